// Reading and writing WebAssembly's binary format: numbers, names, bytes.
//
// Holds what sections and code have in common. Must not know either. Bytes of strangers: no error but Failure.
// Source: WebAssembly Core Specification 3.0, 5 (Binary Format).

import { Failure } from "./failure";

const ENTRIES_MAX = 200_000;
const NAME_BYTES_MAX = 10_000;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads values from data between two offsets, and complains about what it was reading. */
export class Reader {
  at: number;
  readonly data: Uint8Array;
  readonly end: number;
  readonly where: string;

  constructor(data: Uint8Array, start: number, end: number, where: string) {
    this.data = data;
    this.at = start;
    this.end = end;
    this.where = where;
  }

  bad(reason: string): Failure {
    return new Failure("bad_module", `wasm: ${this.where}: ${reason}`);
  }

  byte(): number {
    if (this.at >= this.end) {
      throw this.bad("ends in the middle of something");
    }
    return this.data[this.at++]!;
  }

  /** Jumps over count bytes and returns where they began. */
  skip(count: number): number {
    if (count > this.end - this.at) {
      throw this.bad(`says ${count} bytes, ${this.end - this.at} are left`);
    }
    this.at += count;
    return this.at - count;
  }

  /** Reads an unsigned LEB128 number of at most 32 bits. */
  number(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value > 0xffffffff) {
          break;
        }
        return value;
      }
    }
    throw this.bad("holds a number that is too large");
  }

  /** Jumps over a LEB128 number of any kind. */
  skipNumber(): void {
    for (let left = 10; left; left--) {
      if (this.byte() < 0x80) {
        return;
      }
    }
    throw this.bad("holds a number that is too long");
  }

  /** Reads how many entries follow; each is at least one byte. */
  count(): number {
    const count = this.number();
    if (count > Math.min(ENTRIES_MAX, this.end - this.at)) {
      throw this.bad(`says ${count} entries, more than fit`);
    }
    return count;
  }

  name(): string {
    const length = this.number();
    if (length > NAME_BYTES_MAX) {
      throw this.bad(`holds a name of ${length} bytes, at most ${NAME_BYTES_MAX} are taken`);
    }
    const start = this.skip(length);
    try {
      return UTF8.decode(this.data.slice(start, this.at));
    } catch {
      throw this.bad("holds a name that is not UTF-8");
    }
  }
}

/** Bytes that grow. */
export class Writer {
  #data: Uint8Array<ArrayBuffer>;
  #size = 0;

  constructor(expectedBytes = 256) {
    this.#data = new Uint8Array(expectedBytes);
  }

  get size(): number {
    return this.#size;
  }

  #room(size: number): void {
    if (this.#size + size > this.#data.length) {
      const larger = new Uint8Array(Math.max(this.#size + size, 2 * this.#data.length));
      larger.set(this.#data.subarray(0, this.#size));
      this.#data = larger;
    }
  }

  byte(value: number): void {
    this.#room(1);
    this.#data[this.#size++] = value;
  }

  bytes(data: ArrayLike<number>): void {
    this.#room(data.length);
    this.#data.set(data, this.#size);
    this.#size += data.length;
  }

  /** Writes an unsigned LEB128 number of at most 32 bits. */
  number(value: number): void {
    while (value >= 0x80) {
      this.byte((value & 0x7f) | 0x80);
      value = Math.floor(value / 0x80);
    }
    this.byte(value);
  }

  name(text: string): void {
    this.sized(new TextEncoder().encode(text));
  }

  /** Writes bytes after their number. */
  sized(data: Uint8Array): void {
    this.number(data.length);
    this.bytes(data);
  }

  section(id: number, body: Writer): void {
    this.byte(id);
    this.sized(body.taken());
  }

  clear(): void {
    this.#size = 0;
  }

  /** Returns what was written, as a part of what it is written in. */
  taken(): Uint8Array<ArrayBuffer> {
    return this.#data.subarray(0, this.#size);
  }
}
