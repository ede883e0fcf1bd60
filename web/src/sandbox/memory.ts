// Memories for runs of one module, one after the other.
//
// Holds how one is made, and the one that waits for the next run. Must not know what runs. Engines reserve gigabytes of
// addresses for each memory, and give those of runs that ended back in time of their own: who makes one for each of many
// short runs is refused another one sooner or later, by no guest's fault.

import { type About, PAGE_BYTES } from "./about";

/** What is larger costs more to clear than to make anew. */
const REUSED_BYTES_MAX = 4 << 20;
/** Tries to make one, and how long is waited after the first; then twice as long, and so on: half a second in all. */
const TRIES_MAX = 9;
const PAUSE_MS = 1;

type Make = (bounds: WebAssembly.MemoryDescriptor) => WebAssembly.Memory;
type Pause = (milliseconds: number) => void;

export class Memories {
  readonly #make: Make;
  readonly #pause: Pause;
  #spare: { memory: WebAssembly.Memory; bounds: { initial: number; maximum: number } } | null = null;
  #bounds = { initial: 0, maximum: 0 };

  constructor(make: Make = (bounds) => new WebAssembly.Memory(bounds), pause: Pause = pauseThread) {
    this.#make = make;
    this.#pause = pause;
  }

  /**
   * Returns an empty memory for a run that may have so many bytes; the caller has seen that it begins with no more.
   * Throws RangeError when the engine has none.
   */
  take({ memory }: About, bytesMax: number): WebAssembly.Memory | null {
    if (!memory) {
      return null;
    }
    const bounds = { initial: memory.minimum, maximum: Math.min(memory.maximum, Math.floor(bytesMax / PAGE_BYTES)) };
    const spare = this.#spare;
    this.#spare = null;
    this.#bounds = bounds;
    if (spare && spare.bounds.initial === bounds.initial && spare.bounds.maximum === bounds.maximum) {
      return spare.memory;
    }
    return this.#made(bounds);
  }

  /** Keeps the memory that was taken last for the next run, cleared, when that is worth it. Its run has ended. */
  giveBack(memory: WebAssembly.Memory): void {
    const bytes = this.#bounds.initial * PAGE_BYTES;
    // One that has grown cannot shrink.
    if (bytes <= REUSED_BYTES_MAX && memory.buffer.byteLength === bytes) {
      new Uint8Array(memory.buffer).fill(0);
      this.#spare = { memory, bounds: this.#bounds };
    }
  }

  #made(bounds: WebAssembly.MemoryDescriptor): WebAssembly.Memory {
    for (let tries = 1; ; tries++) {
      try {
        return this.#make(bounds);
      } catch (error) {
        if (!(error instanceof RangeError) || tries >= TRIES_MAX) {
          throw error;
        }
        this.#pause(PAUSE_MS * 2 ** (tries - 1));
      }
    }
  }
}

/** Holds this thread up, which runs guests and nothing else. */
function pauseThread(milliseconds: number): void {
  if (typeof SharedArrayBuffer !== "undefined") {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
    return;
  }
  const endMs = performance.now() + milliseconds;
  while (performance.now() < endMs) {
    // Where threads share no memory, there is nothing else to wait by.
  }
}
