// A call that a peer made of this side, from its Call to its Finish. connection.ts has the table of them.
import * as $ from "capnp-es";
import { Message, type Payload } from "capnp-es/capnp/rpc";
import { type CallContext, type Hook, hookOf } from "./capability";
import { Cancelled } from "./errors";
import { Outcome } from "./outcome";

/** A call that is answered here. */
export class Served implements CallContext {
  readonly outcome = new Outcome();
  /** Ids of the capabilities in its results, one for each time. */
  exported: readonly number[] = [];
  /** Whether its Return was sent. */
  hasReturned = false;
  /** Whether its Finish came. */
  isFinished = false;
  /** Gives up what is done for it elsewhere. */
  onAbort: () => void = () => {};
  #controller: AbortController | null = null;
  #isAborted = false;
  #held: Hook[] = [];
  #reply: { readonly message: $.Message; readonly root: Message; readonly payload: Payload } | null = null;

  constructor(
    readonly id: number,
    readonly bytes: number,
    /** Whether the results are for another call of the same peer. */
    readonly isForOther: boolean,
    private params: readonly (Hook | null)[],
  ) {}

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#isAborted) this.#controller.abort(new Cancelled());
    }
    return this.#controller.signal;
  }

  /** Nobody waits for it any more. */
  abort(): void {
    if (this.#isAborted || this.outcome.isSettled) return;
    this.#isAborted = true;
    this.#controller?.abort(new Cancelled());
    this.onAbort();
  }

  /** Begin the message that has the results, and return where they go. */
  place(): $.Pointer {
    const message = new $.Message();
    const root = message.initRoot(Message);
    const answer = root._initReturn();
    answer.answerId = this.id;
    answer.releaseParamCaps = false;
    const payload = answer._initResults();
    this.#reply = { message, root, payload };
    return payload.content;
  }

  /** The message that has the results. */
  get reply(): { readonly message: $.Message; readonly payload: Payload } {
    if (this.#reply === null) this.place();
    return this.#reply!;
  }

  /** Let go of what came with the call. */
  releaseParams(): void {
    const given = this.params;
    this.params = [];
    for (const hook of given) hook?.release();
  }

  /** Hold what is in the results, until `releaseResults`: calls may be made on it. */
  holdResults(): void {
    const { capTable } = this.reply.message._capnp;
    this.#held = (capTable ?? []).filter((client) => client !== null).map((client) => hookOf(client).keep());
  }

  /** Let go of the results, whether anybody got them or not. */
  releaseResults(): void {
    const held = this.#held;
    this.#held = [];
    for (const hook of held) hook.release();
  }
}
