// What a call has come to, or will: its results, or why it failed; and what waits for that, in order. Knows no
// connection: calls.ts has those that a peer answers.
import * as $ from "capnp-es";
import { type Hook, Broken, hookOf } from "./capability";
import { Cancelled } from "./errors";
import { type Answer, type PipelineStep, clientAt, copyPointer, initAs } from "./values";

/** The pointer fields that lead from results to a capability in them. */
export type Transform = readonly number[];

/** A call to be made. */
export interface Outgoing {
  readonly interfaceId: bigint;
  readonly methodId: number;
  /** Write the parameters. */
  fill(content: $.Pointer): void;
}

/** Return a call of generated code. */
export function outgoingOf<P extends $.Struct, R extends $.Struct>(call: $.Call<P, R>): Outgoing {
  const { interfaceId, methodId, ParamsClass } = call.method;
  const fill = (content: $.Pointer) => {
    if ($.isDataCall(call)) copyPointer(call.params, content);
    else {
      const params = initAs(ParamsClass, content);
      call.paramsFunc?.(params);
    }
  };
  return { interfaceId, methodId, fill };
}

/** A call's. What generated code calls an Answer. */
export class Outcome implements Answer<$.Struct> {
  #results: $.Pointer | null = null;
  #error: unknown;
  #hasFailed = false;
  #waiting = new Set<() => void>();
  /** Called once when it is given up before it is settled. */
  onCancel: () => void = () => {};

  get isSettled(): boolean {
    return this.#results !== null || this.#hasFailed;
  }

  /** Why the call failed, where it did. */
  get failure(): { readonly error: unknown } | null {
    return this.#hasFailed ? { error: this.#error } : null;
  }

  /** How many wait for it. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Have results. Whatever waits for them goes on, in order. */
  settle(results: $.Pointer): void {
    if (this.isSettled) return;
    this.#results = results;
    this.#goOn();
  }

  fail(error: unknown): void {
    if (this.isSettled) return;
    this.#hasFailed = true;
    this.#error = error;
    this.#goOn();
  }

  /** Come to what another comes to. */
  follow(other: Outcome): void {
    this.onCancel = () => other.cancel();
    other.whenSettled(() => {
      if (other.failure) this.fail(other.failure.error);
      else this.settle(other.results());
    });
  }

  /** Go on once it is settled, or at once; the returned function forgets that. */
  whenSettled(then: () => void): () => void {
    if (this.isSettled) {
      then();
      return () => {};
    }
    const wait = () => then();
    this.#waiting.add(wait);
    return () => this.#waiting.delete(wait);
  }

  /** Give the call up. */
  cancel(): void {
    if (this.isSettled) return;
    this.onCancel();
    this.fail(new Cancelled());
  }

  /** Return the results. Throws why there are none. */
  results(): $.Pointer {
    if (this.#results === null) throw this.#hasFailed ? this.#error : new Error("the call has not answered");
    return this.#results;
  }

  /** Return the capability in the results that the transform leads to. */
  hookAt(transform: Transform): Hook {
    if (this.#hasFailed) return new Broken(this.#error);
    return hookOf(clientAt(pointerAt(this.results(), transform)));
  }

  /** Call the capability in the results that the transform leads to, now or once it is there. */
  sendTo(transform: Transform, outgoing: Outgoing): Outcome {
    if (this.#hasFailed) return failed(this.#error);
    return this.isSettled ? this.hookAt(transform).send(outgoing) : this.sendAhead(transform, outgoing);
  }

  protected sendAhead(transform: Transform, outgoing: Outgoing): Outcome {
    const outcome = new Outcome();
    outcome.onCancel = this.whenSettled(() => outcome.follow(this.sendTo(transform, outgoing)));
    return outcome;
  }

  // What generated code calls.

  struct(): Promise<$.Struct> {
    return new Promise((resolve, reject) => {
      this.whenSettled(() => (this.#hasFailed ? reject(this.#error) : resolve(this.#results as $.Struct)));
    });
  }

  pipelineCall<P extends $.Struct, R extends $.Struct>(transform: PipelineStep[], call: $.Call<P, R>): Answer<R> {
    const fields = transform.map((step) => step.field);
    return this.sendTo(fields, outgoingOf(call)) as unknown as Answer<R>;
  }

  pipelineClose(transform: PipelineStep[]): void {
    const fields = transform.map((step) => step.field);
    this.whenSettled(() => this.hookAt(fields).release());
  }

  #goOn(): void {
    // What one of them begins to wait for meanwhile is settled, so that it goes on at once.
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const then of waiting) then();
  }
}

/** Return an outcome that is a failure. */
export function failed(error: unknown): Outcome {
  const outcome = new Outcome();
  outcome.fail(error);
  return outcome;
}

function pointerAt(results: $.Pointer, transform: Transform): $.Pointer {
  let pointer = results;
  for (const field of transform) {
    if ($.utils.isNull(pointer)) return pointer;
    $.utils.validate($.PointerType.STRUCT, pointer);
    const struct = new $.Struct(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
    // A field that is beyond what was sent is null.
    if (field >= $.utils.getTargetStructSize(struct).pointerLength) {
      return new $.Pointer(new $.Message().getSegment(0), 0);
    }
    pointer = $.utils.getPointer(field, struct);
  }
  return pointer;
}
