// What this tab has done since it was opened, however often it joined, and how fast it did it lately. Pure: figures come in and go
// out, with the time that they are of.
import type { LoadMessage } from "../../worker/messages";

export const SECONDS_KEPT = 120;

/** Counted from each joining on. */
const COUNTED = ["ended", "failed", "sent_bytes", "received_bytes"] as const;

export type Totals = Record<(typeof COUNTED)[number], number>;

export interface Point {
  readonly t: number;
  /** Runs a second; null: it was not joined. */
  readonly value: number | null;
}

const NOTHING: Totals = { ended: 0, failed: 0, sent_bytes: 0, received_bytes: 0 };

export class Tally {
  #before: Totals = NOTHING;
  #now: Totals = NOTHING;
  readonly #points: Point[] = [];

  get totals(): Totals {
    return sum(this.#before, this.#now);
  }

  get points(): readonly Point[] {
    return this.#points;
  }

  note(load: LoadMessage, t: number): void {
    const { ended, failed, sent_bytes, received_bytes } = load;
    this.#now = { ended, failed, sent_bytes, received_bytes };
    this.#add({ t, value: load.per_second });
  }

  /** It has left: who joins next counts from nothing. */
  end(t: number): void {
    this.#before = this.totals;
    this.#now = NOTHING;
    this.#points.push({ t, value: null });
  }

  #add(point: Point): void {
    const last = this.#points[this.#points.length - 1];
    // One a second: figures come four times as often.
    if (last && last.value !== null && point.t - last.t < 0.9) {
      return;
    }
    this.#points.push(point);
    while (this.#points.length && this.#points[0]!.t < point.t - SECONDS_KEPT - 2) {
      this.#points.shift();
    }
  }
}

/** How much of the last minute each slot was busy, as far as that was looked at. */
export class Busy {
  readonly #seen: { t: number; busy: boolean }[] = [];

  note(busy: boolean, t: number): void {
    this.#seen.push({ t, busy });
    while (this.#seen.length && this.#seen[0]!.t < t - 60) {
      this.#seen.shift();
    }
  }

  /** From 0 to 1. */
  get share(): number {
    return this.#seen.length ? this.#seen.filter((each) => each.busy).length / this.#seen.length : 0;
  }
}

function sum(one: Totals, other: Totals): Totals {
  return Object.fromEntries(COUNTED.map((name) => [name, one[name] + other[name]])) as Totals;
}
