// How long something waits before it tries again.
//
// Holds the arithmetic alone. Must not know what is tried.

/** Grows with every try that failed, up to a limit, with jitter: those that were cut off together come back apart. */
export class Backoff {
  readonly #firstS: number;
  readonly #mostS: number;
  readonly #random: () => number;
  #nextS: number;

  constructor(firstS = 0.1, mostS = 5, random: () => number = Math.random) {
    this.#firstS = this.#nextS = firstS;
    this.#mostS = mostS;
    this.#random = random;
  }

  /** Seconds to wait now. */
  next(): number {
    const nowS = this.#nextS;
    this.#nextS = Math.min(this.#mostS, 2 * nowS);
    return nowS * (0.5 + this.#random() / 2);
  }

  /** Begins anew: it worked. */
  reset(): void {
    this.#nextS = this.#firstS;
  }
}
