// What crosses a connection by number: capabilities of this side that the peer may refer to (exports), and of the
// peer's that this side does (imports), each with how often. Knows how they are written in a message, not what is done
// with them. Source: rpc.capnp, CapDescriptor and Release.
import * as $ from "capnp-es";
import { CapDescriptor } from "capnp-es/capnp/rpc";
import { Broken, Hook, Pipelined, hookOf } from "./capability";
import { Question } from "./calls";
import { CapabilityError, Disconnected } from "./errors";
import { type Outgoing, type Outcome, type Transform, failed } from "./outcome";
import { CAPABILITIES_MAX } from "./values";

const STEPS_MAX = 64;
const EXPORTS_MAX = 1 << 16;

/** The peer broke the protocol. */
export class ProtocolError extends Error {}

/** Numbers that are free again are given first. */
export class Numbers {
  #next = 0;
  readonly #free: number[] = [];

  take(): number {
    return this.#free.pop() ?? this.#next++;
  }

  giveBack(number: number): void {
    this.#free.push(number);
  }
}

/** What this side exports. */
export class Exports {
  readonly #entries = new Map<number, { readonly hook: Hook; references: number }>();
  readonly #ids = new Map<Hook, number>();
  readonly #numbers = new Numbers();

  /** Let the peer have a reference to a capability, and return its number. */
  add(hook: Hook): number {
    const known = this.#ids.get(hook);
    if (known !== undefined) {
      this.#entries.get(known)!.references++;
      return known;
    }
    if (this.#entries.size >= EXPORTS_MAX) {
      throw new CapabilityError("overloaded", `${EXPORTS_MAX} capabilities are out`);
    }
    const id = this.#numbers.take();
    hook.keep();
    this.#entries.set(id, { hook, references: 1 });
    this.#ids.set(hook, id);
    return id;
  }

  get(id: number): Hook {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new ProtocolError(`it refers to capability ${id}, which it does not have`);
    return entry.hook;
  }

  /** Take references of the peer's away. */
  release(id: number, count: number): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.references < count) throw new ProtocolError("it releases more than it has");
    entry.references -= count;
    if (entry.references > 0) return;
    this.#entries.delete(id);
    this.#ids.delete(entry.hook);
    this.#numbers.giveBack(id);
    entry.hook.release();
  }

  clear(): void {
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    this.#ids.clear();
    for (const { hook } of entries) hook.release();
  }
}

/** What the peer exports, or promises to. */
export class Import {
  /** References that the peer counts. */
  references = 0;
  /** References that this side has given out. */
  handles = 0;
  /** What a promise came to. */
  resolution: Hook | null = null;
  wasCalled = false;

  constructor(
    readonly connection: Importing,
    readonly id: number,
    readonly isPromise: boolean,
  ) {}
}

/** What an import needs of its connection. */
export interface Importing {
  callImport(id: number, outgoing: Outgoing): Outcome;
  /** Nobody here refers to it any more. */
  drop(given: Import): void;
}

interface Lease {
  readonly import: Import;
  isReleased: boolean;
}

function letGo(lease: Lease): void {
  if (lease.isReleased) return;
  lease.isReleased = true;
  if (--lease.import.handles === 0) lease.import.connection.drop(lease.import);
}

// For those that were forgotten without being released.
const FORGOTTEN = new FinalizationRegistry<Lease>(letGo);

/** One reference to a peer's capability. */
export class Remote extends Hook {
  readonly #lease: Lease;

  constructor(given: Import) {
    super();
    given.handles++;
    this.#lease = { import: given, isReleased: false };
    FORGOTTEN.register(this, this.#lease, this);
  }

  get import(): Import {
    return this.#lease.import;
  }

  get isReleased(): boolean {
    return this.#lease.isReleased;
  }

  send(outgoing: Outgoing): Outcome {
    if (this.#lease.isReleased) return failed(new CapabilityError("usage", "a call on a capability that was released"));
    const { resolution, connection, id } = this.#lease.import;
    if (resolution !== null) return resolution.send(outgoing);
    this.#lease.import.wasCalled = true;
    return connection.callImport(id, outgoing);
  }

  keep(): Hook {
    if (this.#lease.isReleased) return new Broken(new CapabilityError("usage", "the capability was released"));
    return new Remote(this.#lease.import);
  }

  release(): void {
    FORGOTTEN.unregister(this);
    letGo(this.#lease);
  }
}

/** The imports of one connection. */
export class Imports {
  readonly #entries = new Map<number, Import>();

  /** Take note of one more reference, and return it. */
  add(connection: Importing, id: number, isPromise: boolean): Remote {
    let entry = this.#entries.get(id);
    if (entry === undefined) {
      entry = new Import(connection, id, isPromise);
      this.#entries.set(id, entry);
    }
    entry.references++;
    return new Remote(entry);
  }

  get(id: number): Import | undefined {
    return this.#entries.get(id);
  }

  remove(given: Import): boolean {
    return this.#entries.get(given.id) === given && this.#entries.delete(given.id);
  }

  /** Break all that are promises still. */
  clear(): void {
    for (const entry of this.#entries.values()) entry.resolution = new Broken(new Disconnected());
    this.#entries.clear();
  }
}

/** Whether calls on a capability go to the peer, in the order in which they are made. */
export function isOfPeer(hook: Hook): boolean {
  if (hook instanceof Remote) return hook.import.resolution === null || isOfPeer(hook.import.resolution);
  return hook instanceof Broken || (hook instanceof Pipelined && hook.outcome instanceof Question);
}

/** Whether a capability came, by what has been resolved so far, to that promise: nobody follows a promise to itself. */
export function leadsTo(hook: Hook, promise: Import): boolean {
  let found = hook;
  while (found instanceof Remote && found.import !== promise && found.import.resolution !== null) {
    found = found.import.resolution;
  }
  return found instanceof Remote && found.import === promise;
}

/** Return a transform that came in a message. */
export function transformOf(steps: $.List<unknown>): Transform {
  if (steps.length > STEPS_MAX) throw new ProtocolError(`a path of ${steps.length} steps`);
  const fields: number[] = [];
  for (const step of steps as $.List<CapDescriptor["receiverAnswer"]["transform"][0]>) {
    if (step._isGetPointerField) fields.push(step.getPointerField);
  }
  return fields;
}

/** Return the capabilities of a message. `read` gives each of them. */
export function readTable(table: $.List<CapDescriptor>, read: (descriptor: CapDescriptor) => Hook): Hook[] {
  if (table.length > CAPABILITIES_MAX) throw new ProtocolError(`${table.length} capabilities in a message`);
  return Array.from({ length: table.length }, (_, place) => read(table.get(place)));
}

/** Say in a message what one of its capabilities is; returns the number of what is exported by that. */
function describe(hook: Hook, descriptor: CapDescriptor, connection: Importing, exports: Exports): number | null {
  let found = hook;
  for (;;) {
    if (found instanceof Remote && found.import.resolution !== null) found = found.import.resolution;
    else if (found instanceof Pipelined && found.outcome.isSettled) found = found.outcome.hookAt(found.transform);
    else break;
  }
  if (found instanceof Broken) return null;
  if (found instanceof Remote && found.import.connection === connection && !found.isReleased) {
    descriptor.receiverHosted = found.import.id;
    return null;
  }
  if (found instanceof Pipelined && found.outcome instanceof Question && found.outcome.isOf(connection)) {
    const answer = descriptor._initReceiverAnswer();
    answer.questionId = found.outcome.id;
    writeTransform(answer, found.transform);
    return null;
  }
  const id = exports.add(found);
  descriptor.senderHosted = id;
  return id;
}

/** Write the path to a capability in an answer. */
export function writeTransform(answer: CapDescriptor["receiverAnswer"], transform: Transform): void {
  const steps = answer._initTransform(transform.length);
  transform.forEach((field, place) => {
    steps.get(place).getPointerField = field;
  });
}

/** Write the capabilities of a message; returns the numbers of those that are exported by that. */
export function writeTable(
  payload: { _initCapTable(length: number): $.List<CapDescriptor> } & $.Struct,
  connection: Importing,
  exports: Exports,
): number[] {
  const { capTable } = payload.segment.message._capnp;
  if (!capTable?.length) return [];
  const table = payload._initCapTable(capTable.length);
  const exported: number[] = [];
  capTable.forEach((client, place) => {
    if (client === null) return;
    const id = describe(hookOf(client), table.get(place), connection, exports);
    if (id !== null) exported.push(id);
  });
  return exported;
}
