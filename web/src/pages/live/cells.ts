// The runs of a task as cells: one byte each, filled from RLE text such as "120s4r76q". Knows neither how they are drawn nor where
// they come from. Bounded by what the gateway sends at most: 100,000 cells.
import type { RunState } from "./shapes";

const CELLS_MAX = 100_000;
export const STATES: readonly RunState[] = ["scheduled", "queued", "running", "succeeded", "failed", "cancelled"];

const LETTERS = ".qrsfc";
const PART = /(\d+)([.qrsfc])/y;

/** Read RLE text part by part. Error where it is no such text. */
function* parts(text: string): Generator<[count: number, state: number]> {
  PART.lastIndex = 0;
  let at = 0;
  while (at < text.length) {
    PART.lastIndex = at;
    const found = PART.exec(text);
    if (!found) {
      throw new Error(`cells: expected a count and one of ${LETTERS}, got ${JSON.stringify(text.slice(at, at + 20))}`);
    }
    at = PART.lastIndex;
    yield [Number(found[1]), LETTERS.indexOf(found[2]!)];
  }
}

export class Cells {
  readonly states: Uint8Array;
  /** How many cells are in each state, by the order of STATES. */
  readonly counts = new Uint32Array(STATES.length);
  readonly repeats: number;
  readonly perCell: number;

  constructor(repeats: number, perCell: number, text: string) {
    this.repeats = repeats;
    this.perCell = Math.max(1, perCell);
    const count = Math.ceil(repeats / this.perCell);
    if (count > CELLS_MAX) {
      throw new Error(`cells: ${count} are more than ${CELLS_MAX}`);
    }
    this.states = new Uint8Array(count);
    this.counts[0] = count;
    this.put(0, text);
  }

  get count(): number {
    return this.states.length;
  }

  /** Change cells from the first on. What is beyond the last cell is left out. */
  put(first: number, text: string): void {
    let at = first;
    for (const [count, state] of parts(text)) {
      const end = Math.min(at + count, this.states.length);
      for (let cell = Math.max(0, at); cell < end; cell += 1) {
        this.counts[this.states[cell]!]! -= 1;
        this.states[cell] = state;
      }
      this.counts[state]! += Math.max(0, end - Math.max(0, at));
      at += count;
    }
  }

  state(cell: number): RunState {
    return STATES[this.states[cell] ?? 0]!;
  }

  /** The first and the last run of a cell. */
  runs(cell: number): [first: number, last: number] {
    const first = cell * this.perCell;
    return [first, Math.min(first + this.perCell, this.repeats) - 1];
  }

  /** The next cell of a state after one, around the end; -1 when there is none. */
  next(after: number, state: RunState): number {
    const wanted = STATES.indexOf(state);
    if (!this.counts[wanted]) {
      return -1;
    }
    const found = this.states.indexOf(wanted, after + 1);
    return found >= 0 ? found : this.states.indexOf(wanted);
  }
}
