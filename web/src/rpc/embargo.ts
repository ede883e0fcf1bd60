// A capability of this side that was called by way of the peer before it was known to be here. Calls that are made on
// it now must come after those, so they wait until the peer has sent these all back. Source: rpc.capnp, Disembargo.
import { Hook } from "./capability";
import { type Outgoing, Outcome } from "./outcome";

/** A capability whose calls wait. */
export class Embargoed extends Hook {
  readonly #hook: Hook;
  #waiting: (() => void)[] | null = [];

  constructor(hook: Hook) {
    super();
    this.#hook = hook;
  }

  /** Let the calls go, in order. */
  lift(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const send of waiting) send();
  }

  send(outgoing: Outgoing): Outcome {
    if (this.#waiting === null) return this.#hook.send(outgoing);
    const outcome = new Outcome();
    this.#waiting.push(() => {
      if (!outcome.isSettled) outcome.follow(this.#hook.send(outgoing));
    });
    return outcome;
  }

  keep(): Hook {
    this.#hook.keep();
    return this;
  }

  release(): void {
    this.#hook.release();
  }
}
