// The memory of the guest that calls a function of ours.
//
// Holds how it is reached, and that nothing outside it is. Must not know WASI. It may have grown by the next call, and
// where it was is then empty: nobody keeps a part of it. Words are wasmtime's.

import { GuestEnd } from "./trap";

export class GuestMemory {
  #memory: WebAssembly.Memory | null = null;
  #buffer: ArrayBufferLike | null = null;
  #view = new DataView(new ArrayBuffer(0));
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0);

  /** The memory of the next run; null: it shows none. */
  begin(memory: WebAssembly.Memory | null): void {
    this.#memory = memory;
    this.#buffer = null;
  }

  get isThere(): boolean {
    return this.#memory !== null;
  }

  #look(): void {
    const buffer = this.#memory!.buffer;
    if (buffer !== this.#buffer) {
      this.#view = new DataView(buffer);
      this.#bytes = new Uint8Array(buffer as ArrayBuffer);
      // Last: where the stack ends in between, nobody takes a former run's memory for this one's.
      this.#buffer = buffer;
    }
  }

  get view(): DataView {
    this.#look();
    return this.#view;
  }

  /** Returns that part of it. Ends the guest when it is not all there, or not aligned. */
  part(start: number, size: number, alignment = 1): Uint8Array<ArrayBuffer> {
    this.check(start, size, alignment);
    return this.#bytes.subarray(start, start + size);
  }

  check(start: number, size: number, alignment = 1): void {
    this.#look();
    if (start + size > this.#bytes.length) {
      throw new GuestEnd(`Pointer out of bounds: ${region(start, size)}`);
    }
    if (start % alignment) {
      throw new GuestEnd(`Pointer not aligned to ${alignment}: ${region(start, size)}`);
    }
  }

  /** Does the same for a function that wasmtime lends us the place of, in whose name it then speaks. */
  checkFor(name: string, start: number, size: number, alignment = 1): void {
    this.#look();
    if (start + size > this.#bytes.length) {
      throw new GuestEnd(`${name}: pointer out of bounds`);
    }
    if (start % alignment) {
      throw new GuestEnd(`${name}: pointer not aligned`);
    }
  }

  setUint32(at: number, value: number): void {
    this.check(at, 4, 4);
    this.#view.setUint32(at, value, true);
  }

  setUint64(at: number, value: bigint): void {
    this.check(at, 8, 8);
    this.#view.setBigUint64(at, value, true);
  }

  /**
   * Returns the first part that is not empty of those that `count` of the guest's vectors name, read at `at`. All are
   * looked at, and none kept: a guest may have millions.
   */
  firstVector(at: number, count: number): [start: number, size: number] {
    let start = 0;
    let size = 0;
    for (let index = 0; index < count; index++) {
      const vector = at + 8 * index;
      this.check(vector, 4, 4);
      this.check(vector + 4, 4, 4);
      if (!size) {
        start = this.#view.getUint32(vector, true);
        size = this.#view.getUint32(vector + 4, true);
      }
    }
    return size ? [start, size] : [0, 0];
  }
}

function region(start: number, size: number): string {
  return `Region { start: ${start}, len: ${size} }`;
}
