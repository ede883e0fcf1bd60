// A group of runs on one slot, from its coming to the last outcome's going.
//
// Holds which runs have ended, inputs that are by reference, outcomes that nobody has asked for yet, and how much of all
// that a slot may hold. Every run gets exactly one outcome, whatever becomes of the thread. Must not know threads:
// slot.ts does.

import { Failure } from "./failure";
import { type Invocation, newResult, REASONS, type Result } from "./invocation";
import type { RunLimits, SandboxConfig } from "./limits";
import type { Prepared } from "./modules";
import { concatenated, LARGE_BYTES, readInput, type Span, spansOf, writeOutcome } from "./record";

/** How a run ends that did nothing wrong: gateways take back what waits long, and have it run elsewhere. */
const REASON_OK = REASONS.indexOf("ok");
const REASON_CANCELLED = REASONS.indexOf("cancelled");
/** Runs of a group. */
export const GROUP_MAX = 256;
/** Runs that one slot may have: those under way, those that wait, and those whose outcomes were not asked for. */
const RUNS_MAX = 2048;
/** Of one answer, but for what goes by reference. */
const ANSWER_BYTES_MAX = 4 << 20;

/** An input record that is by reference. */
export interface LargeInput {
  size(): Promise<number>;
  bytes(): AsyncIterable<Uint8Array>;
}

/** Runs to begin. */
export interface Start {
  program: Prepared;
  task: Invocation;
  /** An input record for each run. */
  inputs: Uint8Array;
  /** Those that inputs names by reference, in its order. */
  large?: readonly LargeInput[];
  /** How long the first run has waited for its module's compiling. */
  compileS?: number;
}

/** Outcomes that nobody was given yet. */
export interface Taken {
  /** Records, one after the other. */
  outcomes: Uint8Array;
  /** Records that are large, each. */
  large: Uint8Array[];
  /** Whether these are the last. */
  ended: boolean;
}

/** Something that happens again and again. */
export class Signal {
  #waiting: (() => void)[] = [];

  /** Waits until it happens next, and no longer than that. */
  wait(timeoutMs?: number): Promise<void> {
    return new Promise((resolve) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const wake = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#waiting.push(wake);
      if (timeoutMs !== undefined) {
        timer = setTimeout(() => {
          this.#waiting = this.#waiting.filter((other) => other !== wake);
          resolve();
        }, timeoutMs);
      }
    });
  }

  happen(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    waiting.forEach((wake) => wake());
  }
}

/** What the groups of one slot hold, and how much they may. */
export class Room {
  readonly bytesMax: number;
  /** Ends when the inputs of the group that came last are fetched: in the order in which groups run. */
  fetching: Promise<void> = Promise.resolve();
  readonly freed = new Signal();
  runs = 0;
  inputBytes = 0;
  fetchedBytes = 0;
  outcomeBytes = 0;

  constructor(config: SandboxConfig) {
    this.bytesMax = config.heldBytesMax;
  }

  enter(runs: number, inputBytes: number): void {
    if (this.runs + runs > RUNS_MAX) {
      const said = `${this.runs} are and ${runs} are to come`;
      throw new Failure("overloaded", `${RUNS_MAX} runs may be on a slot, ${said}`);
    }
    if (this.inputBytes > this.bytesMax) {
      throw new Failure("overloaded", `${this.bytesMax} bytes of input may be on a slot, ${this.inputBytes} are`);
    }
    this.runs += runs;
    this.inputBytes += inputBytes;
  }
}

/** Runs that a thread was given. */
export interface UnderWay {
  has(place: number): boolean;
  /** Has them not begin any more, or stop. */
  stop(places: readonly number[]): void;
}

const WAITS = 0;
const CANCELLED = 1;
const ENDED = 2;

export class RunningGroup {
  readonly program: Prepared;
  readonly task: Invocation;
  readonly limits: RunLimits;
  readonly cameMs = performance.now();
  /** Since when runs that are under way are to stop, by place. */
  readonly stopping = new Map<number, number>();
  /** The thread's, while it has some. */
  underWay: UnderWay | null = null;
  compileS: number;
  readonly #room: Room;
  readonly #inputBytesMax: number;
  readonly #data: Uint8Array;
  readonly #spans: Span[];
  readonly #missing: number[];
  readonly #large: readonly LargeInput[];
  readonly #fetched = new Map<number, Uint8Array>();
  readonly #states: Uint8Array;
  readonly #changed = new Signal();
  readonly #over = new Signal();
  readonly #fetchedOne = new Signal();
  #left: number;
  #untold: number;
  #ended: Uint8Array[] = [];
  #failure: Failure | null = null;
  #inputFailure: Failure | null = null;
  #isOver = false;
  #isClosed = false;

  /** Takes runs in. Throws usage when they are none that a guest could be given, overloaded when too many are here. */
  constructor(start: Start, limits: RunLimits, room: Room, config: SandboxConfig) {
    this.program = start.program;
    this.task = start.task;
    this.limits = limits;
    this.compileS = start.compileS ?? 0;
    this.#room = room;
    this.#inputBytesMax = config.inputBytesMax;
    this.#data = start.inputs;
    this.#spans = spansOf(start.inputs, GROUP_MAX);
    this.#missing = this.#spans.flatMap(([from, to], place) => (from === to ? [place] : []));
    this.#large = start.large ?? [];
    if (this.#large.length !== this.#missing.length) {
      const said = `${this.#large.length} are given, records refer to ${this.#missing.length}`;
      throw new Failure("usage", `large: ${said}`);
    }
    this.#states = new Uint8Array(this.#spans.length);
    this.#left = this.#untold = this.#spans.length;
    this.#checkSizes();
    room.enter(this.#spans.length, this.#data.length);
    if (this.#large.length) {
      const before = room.fetching;
      room.fetching = before.then(() => this.#fetchAll());
    }
  }

  // What runs them.

  get isDone(): boolean {
    return this.#left === 0;
  }

  hasEnded(place: number): boolean {
    return this.#states[place] === ENDED;
  }

  /** Waits until there is room for outcomes: those who asked for runs have to ask for outcomes. */
  async waitForRoom(): Promise<void> {
    while (this.isFull && !this.isDone) {
      await this.#room.freed.wait();
    }
  }

  get isFull(): boolean {
    return this.#room.outcomeBytes > this.#room.bytesMax;
  }

  /** Waits until a run can begin; returns those that can, in order, none when all have ended. */
  async toRun(): Promise<number[]> {
    for (;;) {
      const places: number[] = [];
      for (let place = 0; place < this.#spans.length; place++) {
        if (this.#states[place] === WAITS) {
          if (this.#isMissing(place)) {
            break;
          }
          places.push(place);
        }
      }
      if (places.length || this.isDone) {
        return places;
      }
      if (this.#inputFailure) {
        throw this.#inputFailure;
      }
      await this.#fetchedOne.wait();
    }
  }

  #isMissing(place: number): boolean {
    const [from, to] = this.#spans[place]!;
    return from === to && !this.#fetched.has(place);
  }

  /** Returns the records of runs, one after the other, without their lengths, and where each is. */
  recordsOf(places: readonly number[]): { records: Uint8Array<ArrayBuffer>; spans: Uint32Array } {
    const parts = places.map((place) => this.#fetched.get(place) ?? this.#data.subarray(...this.#spans[place]!));
    const spans = new Uint32Array(2 * places.length);
    let at = 0;
    parts.forEach((part, index) => {
      spans[2 * index] = at;
      at += part.length;
      spans[2 * index + 1] = at;
    });
    return { records: concatenated(parts), spans };
  }

  /**
   * Takes outcome records in, of runs that have none yet; returns how many ended by themselves, and how many of them not well. What
   * was cancelled is neither: a gateway takes back what it finds a quicker slot for.
   */
  add(data: Uint8Array): { ended: number; failed: number } {
    const counted = { ended: 0, failed: 0 };
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    for (let at = 0; at < data.length; ) {
      const size = 4 + view.getUint32(at, true);
      const place = view.getUint32(at + 4, true);
      if (this.#end(place, size === data.length ? data : data.subarray(at, at + size))) {
        const reason = view.getUint8(at + 8);
        counted.ended += reason === REASON_CANCELLED ? 0 : 1;
        counted.failed += reason === REASON_CANCELLED || reason === REASON_OK ? 0 : 1;
      }
      at += size;
    }
    return counted;
  }

  /** Says how a run ended that cannot say it itself. */
  give(place: number, result: Result, queueS = 0): void {
    this.#end(place, writeOutcome(place, result, { memoryLimitBytes: this.limits.memoryBytes, queueS, compileS: 0 }));
  }

  #end(place: number, record: Uint8Array): boolean {
    if (this.#states[place] === undefined || this.#states[place] === ENDED) {
      return false;
    }
    this.#states[place] = ENDED;
    this.stopping.delete(place);
    this.#left--;
    this.#drop(place);
    if (!this.#isClosed) {
      this.#room.outcomeBytes += record.length;
      this.#ended.push(record);
    }
    // When all have ended, the slot is another group's before anybody is told.
    if (this.#left) {
      this.#changed.happen();
    }
    return true;
  }

  #drop(place: number): void {
    const fetched = this.#fetched.get(place);
    if (fetched) {
      this.#fetched.delete(place);
      this.#room.fetchedBytes -= fetched.length;
      this.#room.freed.happen();
    }
  }

  /** Notes that no more will be run: all have ended, or of a failure. */
  finish(failure: Failure | null = null): void {
    if (this.#isOver) {
      return;
    }
    this.#isOver = true;
    this.#failure = failure;
    this.#room.inputBytes -= this.#data.length;
    [...this.#fetched.keys()].forEach((place) => this.#drop(place));
    this.#fetchedOne.happen();
    this.#changed.happen();
    this.#over.happen();
  }

  // Inputs.

  /** Sees that no run is given more than it may. */
  #checkSizes(): void {
    const common = sizeOf(this.task);
    if (this.#data.length + common <= this.#inputBytesMax) {
      return;
    }
    this.#spans.forEach(([from, to]) => {
      if (from !== to && to - from + common > this.#inputBytesMax) {
        this.#checkSize(this.#data, from, to);
      }
    });
  }

  #checkSize(data: Uint8Array, from = 0, to = data.length): void {
    const total = sizeOf({ ...this.task, ...readInput(data, from, to) });
    if (total > this.#inputBytesMax) {
      const said = `${this.#inputBytesMax} bytes of stdin, args and env here, ${total} are given`;
      throw new Failure("usage", `one run gets at most ${said}`);
    }
  }

  async #fetchAll(): Promise<void> {
    try {
      for (const [index, place] of this.#missing.entries()) {
        if (this.#isOver) {
          return;
        }
        if (!this.hasEnded(place)) {
          await this.#fetch(place, this.#large[index]!);
        }
      }
    } catch (error) {
      this.#inputFailure = error instanceof Failure ? error : new Failure("closed", "an input cannot be read any more");
      this.#fetchedOne.happen();
    }
  }

  async #fetch(place: number, large: LargeInput): Promise<void> {
    const size = await large.size();
    const most = this.#inputBytesMax + LARGE_BYTES;
    if (size > most) {
      throw new Failure("usage", `large: a record of ${size} bytes, at most ${most} are taken`);
    }
    while (this.#room.fetchedBytes > this.#room.bytesMax && !this.#isOver) {
      await this.#room.freed.wait();
    }
    const pieces: Uint8Array[] = [];
    let left = size;
    for await (const piece of large.bytes()) {
      left -= piece.length;
      if (left < 0) {
        throw new Failure("usage", `large: a record of more than the ${size} bytes that it says`);
      }
      pieces.push(piece);
    }
    const record = concatenated(pieces);
    this.#checkSize(record);
    if (!this.#isOver && !this.hasEnded(place)) {
      this.#fetched.set(place, record);
      this.#room.fetchedBytes += record.length;
      this.#fetchedOne.happen();
    }
  }

  // Those who ask.

  /** Whether every run has an outcome, or a failure is what is left to be told. */
  get isFinished(): boolean {
    return this.#isOver;
  }

  /** Waits until there is something to take, or all is over. */
  async wait(): Promise<void> {
    if (!this.#ended.length && !this.#isOver) {
      await this.#changed.wait();
    }
  }

  /** Waits until all is over, and no longer than that. */
  async over(timeoutMs: number): Promise<void> {
    if (!this.#isOver) {
      await this.#over.wait(timeoutMs);
    }
  }

  /** Returns what ended since this was called last. Throws what ended the group. */
  take(): Taken {
    const small: Uint8Array[] = [];
    const large: Uint8Array[] = [];
    let taken = 0;
    for (let size = 0; taken < this.#ended.length && size <= ANSWER_BYTES_MAX; taken++) {
      const record = this.#ended[taken]!;
      size += record.length;
      (record.length > LARGE_BYTES ? large : small).push(record);
    }
    this.#ended.splice(0, taken);
    this.#untold -= taken;
    this.#leave(taken, [...small, ...large]);
    if (this.#failure && !taken) {
      throw this.#failure;
    }
    const ended = !this.#untold || (this.#isOver && !this.#failure && !this.#ended.length);
    return { outcomes: concatenated(small), large, ended };
  }

  #leave(runs: number, records: readonly Uint8Array[]): void {
    this.#room.runs -= runs;
    this.#room.outcomeBytes -= records.reduce((sum, record) => sum + record.length, 0);
    this.#room.freed.happen();
  }

  /** Stops the runs at those places, or all. Those that have ended are left as they are. */
  cancel(places: readonly number[] = []): void {
    const marked: number[] = [];
    for (const place of places.length ? places : this.#states.keys()) {
      if (this.#states[place] !== WAITS) {
        continue;
      }
      if (this.underWay?.has(place)) {
        this.#states[place] = CANCELLED;
        this.stopping.set(place, performance.now());
        marked.push(place);
      } else {
        this.give(place, newResult("cancelled"));
      }
    }
    this.underWay?.stop(marked);
    this.#fetchedOne.happen();
  }

  /** Gives the runs their outcome that were to stop and are under way no more. */
  withdraw(): void {
    for (const place of [...this.stopping.keys()]) {
      this.give(place, newResult("cancelled"));
    }
  }

  /** Stops all and forgets it: nobody will ask any more. */
  close(): void {
    if (this.#isClosed) {
      return;
    }
    this.#isClosed = true;
    this.cancel();
    this.#leave(this.#untold, this.#ended);
    this.#ended = [];
    this.#untold = 0;
  }
}

const ENCODER = new TextEncoder();

function sizeOf({ args, env, stdin }: Pick<Invocation, "args" | "env" | "stdin">): number {
  const texts = [...args, ...env.flat()].reduce((sum, text) => sum + ENCODER.encode(text).length, 0);
  return texts + stdin.length;
}
