// Calls of this side that a peer answers: a Question for each, from its Call to its Return. Also waiting for one, and
// giving it up. connection.ts has the table of them.
import * as $ from "capnp-es";
import { Cancelled } from "./errors";
import { type Outgoing, Outcome, type Transform } from "./outcome";
import { structOf } from "./values";

/** What a Question needs of its connection. */
export interface Asking {
  /** Call what a question's results will have, before they are there. */
  callAhead(question: Question, transform: Transform, outgoing: Outgoing): Outcome;
  /** Tell the peer that nobody waits for a question's results. */
  giveUp(question: Question): void;
}

/** A call that was sent. */
export class Question extends Outcome {
  readonly #connection: Asking;
  /** Ids of this side's capabilities in the parameters, one for each time. */
  exported: readonly number[] = [];
  /** Which capabilities of the results were called, or sent, before these were there. */
  readonly ahead = new Map<string, Transform>();
  isGivenUp = false;

  constructor(
    connection: Asking,
    readonly id: number,
  ) {
    super();
    this.#connection = connection;
    this.onCancel = () => connection.giveUp(this);
  }

  /** Whether it was asked over that connection. */
  isOf(connection: object): boolean {
    return this.#connection === connection;
  }

  protected override sendAhead(transform: Transform, outgoing: Outgoing): Outcome {
    this.ahead.set(transform.join("."), transform);
    return this.#connection.callAhead(this, transform, outgoing);
  }
}

/** A call as generated code has it. */
export interface Calling<R extends $.Struct> {
  readonly pipeline: $.Pipeline<any, any, R>;
  promise(): Promise<R>;
}

/** Wait for a call's results. The signal gives it up, at the peer too. */
export async function answered<R extends $.Struct>(calling: Calling<R>, signal?: AbortSignal): Promise<R> {
  if (signal === undefined) return whole(calling);
  const giveUp = () => cancel(calling);
  if (signal.aborted) giveUp();
  signal.addEventListener("abort", giveUp);
  try {
    return await whole(calling);
  } catch (error) {
    throw error instanceof Cancelled && signal.aborted ? (signal.reason ?? error) : error;
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

/** Wait for results, and make them as large as this side's schema has them: what is missing is null, or zero. */
async function whole<R extends $.Struct>(calling: Calling<R>): Promise<R> {
  return structOf(await calling.promise(), calling.pipeline.ResultsClass);
}

/** Give a call up, at the peer too; it fails with Cancelled. Does nothing to one that has answered. */
export function cancel(calling: { readonly pipeline: $.Pipeline<any, any, any> }): void {
  (calling.pipeline.answer as unknown as Outcome).cancel();
}
