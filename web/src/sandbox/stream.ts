// Descriptors 0, 1 and 2 of a guest: bytes that it reads, and what it writes as far as it is kept.
//
// Holds descriptors for browser_wasi_shim. Must not know guests or WASI's numbers for errors but what it returns here.
// A guest that writes more than is kept is none the wiser.

import { Fd, wasi } from "@bjorn3/browser_wasi_shim";

import { NO_BYTES } from "./invocation";

/** Where a stream's bytes are kept: memory that whoever ends this thread can still read, or not. */
export class Kept {
  readonly #data: Uint8Array;
  readonly #sizes: Int32Array;
  readonly #at: number;
  #most = 0;

  /** sizes holds, from at, how many bytes there are and whether there were more. */
  constructor(data: Uint8Array, sizes: Int32Array, at: number) {
    this.#data = data;
    this.#sizes = sizes;
    this.#at = at;
  }

  begin(most: number): void {
    this.#most = Math.min(most, this.#data.length);
    this.#sizes[this.#at] = 0;
    this.#sizes[this.#at + 1] = 0;
  }

  add(data: Uint8Array): void {
    const size = this.#sizes[this.#at]!;
    const kept = Math.min(data.length, this.#most - size);
    if (kept) {
      this.#data.set(data.subarray(0, kept), size);
      this.#sizes[this.#at] = size + kept;
    }
    if (kept < data.length) {
      this.#sizes[this.#at + 1] = 1;
    }
  }

  get isCut(): boolean {
    return this.#sizes[this.#at + 1] !== 0;
  }

  taken(): Uint8Array {
    const size = this.#sizes[this.#at]!;
    return size ? this.#data.slice(0, size) : NO_BYTES;
  }
}

/** What stdin and the two others have in common: no place, no size, no times; no guest learns what they are. */
export abstract class Stream extends Fd {
  abstract readonly isInput: boolean;

  override fd_fdstat_get(): { ret: number; fdstat: wasi.Fdstat } {
    const fdstat = new wasi.Fdstat(wasi.FILETYPE_UNKNOWN, 0);
    const rights = BigInt(this.isInput ? wasi.RIGHTS_FD_READ : wasi.RIGHTS_FD_WRITE);
    fdstat.fs_rights_base = rights;
    fdstat.fs_rights_inherited = rights;
    return { ret: wasi.ERRNO_SUCCESS, fdstat };
  }

  override fd_filestat_get(): { ret: number; filestat: wasi.Filestat } {
    const filestat = new wasi.Filestat(0n, wasi.FILETYPE_UNKNOWN, 0n);
    filestat.nlink = 0n;
    return { ret: wasi.ERRNO_SUCCESS, filestat };
  }
}

export class Input extends Stream {
  readonly isInput = true;
  #left: Uint8Array;

  constructor(data: Uint8Array) {
    super();
    this.#left = data;
  }

  override fd_read(size: number): { ret: number; data: Uint8Array } {
    const data = this.#left.subarray(0, size);
    this.#left = this.#left.subarray(data.length);
    return { ret: wasi.ERRNO_SUCCESS, data };
  }
}

export class Output extends Stream {
  readonly isInput = false;
  readonly #kept: Kept;

  constructor(kept: Kept) {
    super();
    this.#kept = kept;
  }

  override fd_write(data: Uint8Array): { ret: number; nwritten: number } {
    this.#kept.add(data);
    return { ret: wasi.ERRNO_SUCCESS, nwritten: data.length };
  }
}
