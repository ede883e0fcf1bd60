// Capabilities as this side has them: those it serves, and references to whatever it may call. Holds serving and the
// counting of references; knows no connection. A served one learns when nobody can call it any more.
import * as $ from "capnp-es";
import { CapabilityError } from "./errors";
import { type Outgoing, Outcome, type Transform, failed, outgoingOf } from "./outcome";
import { type Answer, NullCapability, structOf } from "./values";

/** What a handler is told of a call beside its parameters. */
export interface CallContext {
  /** Aborted when the caller gave the call up, or its connection ended: nobody will read the results. */
  readonly signal: AbortSignal;
}

/** An interface as capnp-es generates it. */
export interface Kind<Target, Client> {
  readonly Client: { new (client: $.Client): Client; readonly methods: readonly $.Method<any, any>[] };
  readonly Server: new (target: Target) => $.Server;
}

/** The handlers of an interface's methods. */
export type Handlers<Target> = {
  [Name in keyof Target]: Target[Name] extends (params: infer P, results: infer R) => unknown
    ? (params: P, results: R, context: CallContext) => void | Promise<void>
    : never;
} & {
  /** Called when the last reference went that somebody else had, and no call is under way. */
  released?(): void;
};

/** A capability that can be called, and referred to. What capnp-es calls a Client. */
export abstract class Hook implements $.Client {
  /** Make a call. Never throws for what is the callee's fault. */
  abstract send(outgoing: Outgoing): Outcome;
  /** Return one more reference to it. */
  abstract keep(): Hook;
  /** Let go of this reference. */
  abstract release(): void;

  call<P extends $.Struct, R extends $.Struct>(call: $.Call<P, R>): Answer<R> {
    return this.send(outgoingOf(call)) as unknown as Answer<R>;
  }

  close(): void {
    this.release();
  }
}

/** A call on something that is served here. */
export interface IncomingCall {
  readonly interfaceId: bigint;
  readonly methodId: number;
  readonly params: $.Pointer;
  readonly context: CallContext;
  /** Where results are to be put. */
  place(): $.Pointer;
}

interface Method {
  readonly name: string;
  readonly Params: $.StructCtor<$.Struct>;
  readonly Results: $.StructCtor<$.Struct>;
}

/** No such method: the caller speaks of a newer interface, or another. */
export class Unimplemented extends CapabilityError {}

type Handler = (params: $.Struct, results: $.Struct, context: CallContext) => void | Promise<void>;

/** Something that is served here. */
export class Local extends Hook {
  readonly #handlers: Record<string, unknown>;
  readonly #methods: ReadonlyMap<string, Method>;
  #references = 0;

  constructor(handlers: Record<string, unknown>, methods: ReadonlyMap<string, Method>) {
    super();
    this.#handlers = handlers;
    this.#methods = methods;
  }

  /** Handle a call; settles when its handler is done, with its results. Begins it at once. */
  async start(call: IncomingCall): Promise<$.Pointer> {
    const method = this.#methods.get(`${call.interfaceId}:${call.methodId}`);
    const handler = method && this.#handlers[method.name];
    if (!method || typeof handler !== "function") throw new Unimplemented("protocol_mismatch", "no such method here");
    const results = structOf(call.place(), method.Results);
    this.keep();
    try {
      await (handler as Handler).call(this.#handlers, structOf(call.params, method.Params), results, call.context);
    } finally {
      this.release();
    }
    return results;
  }

  send(outgoing: Outgoing): Outcome {
    const params = new $.Pointer(new $.Message().getSegment(0), 0);
    const outcome = new Outcome();
    const controller = new AbortController();
    try {
      outgoing.fill(params);
    } catch (error) {
      return failed(error);
    }
    outcome.onCancel = () => controller.abort();
    const { interfaceId, methodId } = outgoing;
    const place = () => new $.Pointer(new $.Message().getSegment(0), 0);
    this.start({ interfaceId, methodId, params, context: { signal: controller.signal }, place }).then(
      (results) => outcome.settle(results),
      (error: unknown) => outcome.fail(error),
    );
    return outcome;
  }

  keep(): Hook {
    this.#references++;
    return this;
  }

  release(): void {
    if (this.#references === 0 || --this.#references > 0) return;
    try {
      (this.#handlers.released as (() => void) | undefined)?.call(this.#handlers);
    } catch (error) {
      console.error("a capability that was released:", error);
    }
  }
}

/** A capability in the results of a call that has not answered yet. */
export class Pipelined extends Hook {
  constructor(
    readonly outcome: Outcome,
    readonly transform: Transform,
  ) {
    super();
  }

  send(outgoing: Outgoing): Outcome {
    return this.outcome.sendTo(this.transform, outgoing);
  }

  keep(): Hook {
    return this.outcome.isSettled ? this.outcome.hookAt(this.transform).keep() : this;
  }

  release(): void {
    this.outcome.whenSettled(() => this.outcome.hookAt(this.transform).release());
  }
}

/** What is no capability, since it is null or never came to be: each call fails. */
export class Broken extends Hook {
  constructor(readonly error: unknown = new CapabilityError("remote", "a call on a capability that is null")) {
    super();
  }

  send(): Outcome {
    return failed(this.error);
  }

  keep(): Hook {
    return this;
  }

  release(): void {}
}

/** Return what generated code has for a capability as a Hook. */
export function hookOf(client: $.Client): Hook {
  if (client instanceof Hook) return client;
  if (client instanceof NullCapability) return new Broken();
  const { pipeline } = client as { pipeline?: unknown };
  if (pipeline instanceof $.Pipeline && pipeline.answer instanceof Outcome) {
    return new Pipelined(pipeline.answer, pipeline.transform().map((step) => step.field));
  }
  throw new TypeError("expected a capability that serve() made, or that a peer gave");
}

const METHODS = new WeakMap<object, ReadonlyMap<string, Method>>();

function methodsOf(client: Kind<never, unknown>["Client"]): ReadonlyMap<string, Method> {
  let methods = METHODS.get(client);
  if (methods === undefined) {
    methods = new Map(
      client.methods.map((method) => {
        const { interfaceId, methodId, methodName: name = "", ParamsClass: Params, ResultsClass: Results } = method;
        return [`${interfaceId}:${methodId}`, { name, Params, Results }];
      }),
    );
    METHODS.set(client, methods);
  }
  return methods;
}

/** Serve an interface by handlers, and return the capability, to be put into what is sent. */
export function serve<Target, Client>(kind: Kind<Target, Client>, handlers: Handlers<Target>): Client {
  return new kind.Client(new Local(handlers as Record<string, unknown>, methodsOf(kind.Client)));
}

/** Return one more reference to a capability, good until it is released: for what comes as a call's parameter. */
export function keep<Client extends { client: $.Client }>(capability: Client): Client {
  const kind = capability.constructor as new (client: $.Client) => Client;
  return new kind(hookOf(capability.client).keep());
}

/** Let go of capabilities; of a struct that came as a call's results: of all that are in it. */
export function release(...given: ({ client: $.Client } | $.Struct)[]): void {
  for (const each of given) {
    if (!(each instanceof $.Struct)) hookOf(each.client).release();
    else for (const client of each.segment.message._capnp.capTable ?? []) if (client) hookOf(client).release();
  }
}
