// Memory that a slot's thread shares with its supervisor: where it is, what it has written, what is not to begin.
//
// Holds its layout, and both sides' use of it. Must not know messages. What a run had written when its thread was ended
// is still here, and so are outcomes that nobody has fetched. Without SharedArrayBuffer the memory is the thread's own,
// and the supervisor gives it one run at a time.

import { Kept } from "./stream";

/** Where the output of runs goes. */
export interface Outputs {
  stdout: Kept;
  stderr: Kept;
}

const INTS = 16;
const PLACE = 0;
const WRITTEN = 1;
const READ = 2;
const PAUSED = 3;
const STDOUT = 4;
const STDERR = 6;
const STARTED_AT = 64;
const MARKS_AT = 128;
const MARKS = 256;
const LOG_AT = MARKS_AT + MARKS;
const LOG_BYTES = 512 << 10;
/** A record that is larger goes by message. */
export const LOGGED_BYTES_MAX = 64 << 10;
/** Of stdout and of stderr, what survives the end of the thread. */
export const OUTPUT_BYTES_MAX = 1 << 20;
const IDLE = -1;
/** How long the thread waits at a time for its log to be read. */
const READ_WAIT_MS = 1000;

export class Control {
  readonly buffer: ArrayBufferLike;
  readonly isShared: boolean;
  readonly #ints: Int32Array;
  readonly #started: Float64Array;
  readonly #marks: Uint8Array;
  readonly #log: Uint8Array;

  constructor(buffer: ArrayBufferLike) {
    this.buffer = buffer;
    this.isShared = typeof SharedArrayBuffer !== "undefined" && buffer instanceof SharedArrayBuffer;
    this.#ints = new Int32Array(buffer, 0, INTS);
    this.#started = new Float64Array(buffer, STARTED_AT, 1);
    this.#marks = new Uint8Array(buffer, MARKS_AT, MARKS);
    this.#log = new Uint8Array(buffer, LOG_AT, LOG_BYTES);
  }

  static fresh(): Control {
    const control = new Control(newBuffer(LOG_AT + LOG_BYTES));
    control.rest();
    return control;
  }

  // The thread's side.

  /** Notes that the run at a place begins, at that time of the thread's own clock. */
  enter(place: number, nowMs: number): void {
    this.#started[0] = nowMs;
    Atomics.store(this.#ints, PLACE, place);
  }

  /** Notes that no run is under way. */
  rest(): void {
    Atomics.store(this.#ints, PLACE, IDLE);
  }

  isMarked(place: number): boolean {
    return Atomics.load(this.#marks, place) !== 0;
  }

  /** Adds a record to the log, waiting until there is room; `notify` has it read. */
  append(record: Uint8Array, notify: () => void): void {
    let written = Atomics.load(this.#ints, WRITTEN);
    if (written + record.length > LOG_BYTES) {
      notify();
      this.#waitUntilRead(written);
      // In this order: whoever reads between the two finds nothing.
      Atomics.store(this.#ints, WRITTEN, 0);
      Atomics.store(this.#ints, READ, 0);
      written = 0;
    }
    this.#log.set(record, written);
    Atomics.store(this.#ints, WRITTEN, written + record.length);
  }

  #waitUntilRead(written: number): void {
    for (let read = Atomics.load(this.#ints, READ); read !== written; read = Atomics.load(this.#ints, READ)) {
      Atomics.wait(this.#ints, READ, read, READ_WAIT_MS);
    }
  }

  /** Waits while nothing more is to begin. */
  waitWhilePaused(): void {
    while (this.isShared && Atomics.load(this.#ints, PAUSED)) {
      Atomics.wait(this.#ints, PAUSED, 1, READ_WAIT_MS);
    }
  }

  // The supervisor's side.

  /** Which run is under way, and since when by the thread's clock; null: none is. */
  get running(): { place: number; startedMs: number } | null {
    const place = Atomics.load(this.#ints, PLACE);
    return place === IDLE ? null : { place, startedMs: this.#started[0]! };
  }

  /** Returns what was added to the log since this was called last. */
  drain(): Uint8Array<ArrayBuffer> {
    const written = Atomics.load(this.#ints, WRITTEN);
    const read = Atomics.load(this.#ints, READ);
    const data = this.#log.slice(read, written) as Uint8Array<ArrayBuffer>;
    if (read !== written) {
      Atomics.store(this.#ints, READ, written);
      Atomics.notify(this.#ints, READ);
    }
    return data;
  }

  mark(place: number): void {
    Atomics.store(this.#marks, place, 1);
  }

  unmarkAll(): void {
    this.#marks.fill(0);
  }

  set isPaused(paused: boolean) {
    Atomics.store(this.#ints, PAUSED, paused ? 1 : 0);
    Atomics.notify(this.#ints, PAUSED);
  }

  // Both.

  /** Returns where the two streams are kept, each in one half of data. */
  outputs(data: ArrayBufferLike): Outputs {
    const half = data.byteLength / 2;
    return {
      stdout: new Kept(new Uint8Array(data, 0, half), this.#ints, STDOUT),
      stderr: new Kept(new Uint8Array(data, half), this.#ints, STDERR),
    };
  }
}

/** Returns zeros, shared between threads where the page may do that. */
export function newBuffer(size: number): ArrayBufferLike {
  return typeof SharedArrayBuffer === "undefined" ? new ArrayBuffer(size) : new SharedArrayBuffer(size);
}
