// Time and random numbers of a run that is to give the same on every machine: what ww/sandbox/determinism.py gives.
//
// Holds what they are. Must not know guests: preview1.ts gives them to guests.

import { shake256 } from "@noble/hashes/sha3.js";

/** When every deterministic run begins: 2020-01-01T00:00:00Z, in nanoseconds since 1970. */
export const START_NS = 1_577_836_800n * 1_000_000_000n;
/** What one reading of a clock takes, so that a loop that waits for a time to come ends. */
export const STEP_NS = 10_000n;
/** Nothing sleeps for longer than this after START_NS, so that sums stay within 64 bits. */
const END_NS = 1n << 62n;
const BLOCK_BYTES = 1024;

/** A clock that goes on when it is read, and when somebody would sleep. */
export class VirtualClock {
  /** Since the run began. */
  elapsedNs = 0n;

  /** Returns the time since the run began, never zero and never the same again. */
  readNs(): bigint {
    this.elapsedNs += STEP_NS;
    return this.elapsedNs;
  }

  /** Is there at once; never goes back. */
  sleepUntil(timeNs: bigint): void {
    const until = timeNs < END_NS ? timeNs : END_NS;
    if (until > this.elapsedNs) {
      this.elapsedNs = until;
    }
  }
}

/**
 * Random bytes by seed: SHAKE256 in counter mode (FIPS 202). Block i, of 1,024 bytes, is
 * SHAKE256("ww random" || seed || i), both numbers as 8 bytes, little-endian. How it is cut into reads changes nothing.
 */
export class RandomStream {
  readonly #name = new Uint8Array(25);
  readonly #numbers = new DataView(this.#name.buffer);
  #counter = 0n;
  #block: Uint8Array = new Uint8Array(0);

  /** seed counts modulo 2**64. */
  constructor(seed: bigint) {
    this.#name.set(new TextEncoder().encode("ww random"));
    this.#numbers.setBigUint64(9, BigInt.asUintN(64, seed), true);
  }

  /** Fills target with the next bytes of the stream. */
  fill(target: Uint8Array): void {
    for (let at = 0; at < target.length; ) {
      if (!this.#block.length) {
        this.#numbers.setBigUint64(17, this.#counter++, true);
        this.#block = shake256(this.#name, { dkLen: BLOCK_BYTES });
      }
      const part = this.#block.subarray(0, target.length - at);
      target.set(part, at);
      at += part.length;
      this.#block = this.#block.subarray(part.length);
    }
  }
}
