// Being a gateway's worker: connected, registered, with an Offer for each free slot; coming back when the gateway went,
// and leaving.
//
// Holds that life as states. Must not know in what it runs: vat.ts and terminal/ say. Next: lease.ts.

import type { Identity } from "../identity/identity";
import { answered, CapabilityError, connectWebSocket, Disconnected, initAs, type Link, release, serve } from "../rpc";
import type { SandboxConfig } from "../sandbox/limits";
import type { Sandbox, Slot } from "../sandbox/sandbox";
import { Sender, type Sender$Client } from "../schema/channel";
import type { Registration$Client, WorkerInfo } from "../schema/worker";
import { Offer, Pulse, Registry } from "../schema/worker";
import { Backoff } from "./backoff";
import { type Host, Lease } from "./lease";
import type { State } from "./messages";

/** What somebody has to change before trying again can help. */
const FOR_PEOPLE: ReadonlySet<string> = new Set(["not_admitted", "peer_mismatch", "protocol_mismatch", "not_allowed"]);
const REFUSED_S = 30;
const OFFER_AGAIN_S = 5;
/** How long a gateway may take to answer who registers. */
const BEGIN_S = 30;

export interface JoinConfig {
  /** ws(s)://HOST:PORT/peer */
  url: string;
  slots: number;
  ticket?: string;
  /** Peer id of the gateway; nobody else is joined where it is given. */
  gateway?: string;
  namespace: string;
  /** What it is, and says of itself: "browser", "deno" or "node". */
  kind: string;
  labels: ReadonlyMap<string, string>;
  cpus: number;
  memoryBytes: number;
  host: string;
  limits: SandboxConfig;
  /** Seconds that running guests may take to finish when it leaves. */
  graceS: number;
}

/** What guests of this worker cannot have: words of WorkerInfo.lacks. */
export const LACKS = ["reactor", "component", "python", "fuel", "cpu", "files"] as const;

/** Hears what becomes of it; detail is one line for people. */
export type Hear = (state: State, detail?: string) => void;

/** One worker, from `serve` until it has left. */
export class Joining implements Host {
  readonly sandbox: Sandbox;
  readonly limits: SandboxConfig;
  readonly #identity: Identity;
  readonly #config: JoinConfig;
  readonly #hear: Hear;
  readonly #slots: Slot[];
  readonly #draining = new AbortController();
  readonly #stopped = new AbortController();
  readonly #taken = new Set<Slot>();
  #link: Link | null = null;
  #gateway: string | undefined;
  #sentBytes = 0;
  #receivedBytes = 0;

  constructor(identity: Identity, sandbox: Sandbox, config: JoinConfig, hear: Hear) {
    this.#identity = identity;
    this.sandbox = sandbox;
    this.#config = config;
    this.#hear = hear;
    this.limits = config.limits;
    this.#slots = Array.from({ length: config.slots }, () => sandbox.newSlot());
  }

  get isDraining(): boolean {
    return this.#draining.signal.aborted;
  }

  /** Who it is, or was, joined to. */
  get gateway(): string | undefined {
    return this.#gateway;
  }

  /** How many bytes have crossed, over all connections. */
  get traffic(): { sentBytes: number; receivedBytes: number } {
    const { sentBytes = 0, receivedBytes = 0 } = this.#link?.traffic ?? {};
    return { sentBytes: this.#sentBytes + sentBytes, receivedBytes: this.#receivedBytes + receivedBytes };
  }

  /** Takes nothing new, lets running guests finish for a while, and makes `serve` return. */
  drain(): void {
    this.#draining.abort();
  }

  /** Makes `serve` return at once. */
  stop(): void {
    this.#draining.abort();
    this.#stopped.abort();
  }

  /** Works for the gateway, and again whenever it comes back, until told to leave. */
  async serve(): Promise<void> {
    const backoff = new Backoff();
    try {
      while (!this.isDraining) {
        await this.#attempt(backoff);
      }
    } finally {
      this.#slots.forEach((slot) => slot.close());
      this.#hear("left");
    }
  }

  async #attempt(backoff: Backoff): Promise<void> {
    this.#hear("connecting");
    let waitS = 0;
    try {
      const link = await this.#connect();
      const why = await this.#workOver(link, backoff);
      if (this.isDraining) {
        return;
      }
      this.#hear("offline", why);
      waitS = backoff.next();
    } catch (error) {
      const isForPeople = error instanceof CapabilityError && FOR_PEOPLE.has(error.code);
      if (this.isDraining) {
        return;
      }
      this.#hear(isForPeople ? "refused" : "offline", error instanceof Error ? error.message : "it failed");
      waitS = isForPeople ? REFUSED_S * (0.5 + Math.random() / 2) : backoff.next();
    }
    await aborted([this.#draining.signal], waitS);
  }

  #connect(): Promise<Link> {
    const { url, ticket, gateway, namespace } = this.#config;
    return connectWebSocket(url, this.#identity, { ticket, gateway, namespace, signal: this.#draining.signal });
  }

  /** Serves over one connection until it breaks or draining is done; returns why it ended. */
  async #workOver(link: Link, backoff: Backoff): Promise<string> {
    this.#link = link;
    const closed = new AbortController();
    const why = link.closed.then((reason) => {
      closed.abort();
      return reason;
    });
    try {
      const { registration, sender } = await this.#begin(link);
      backoff.reset();
      this.#gateway = link.peerId;
      this.#hear("joined");
      const offering = this.#slots.map((slot) => this.#offerForEver(slot, sender, closed.signal));
      await aborted([this.#draining.signal, closed.signal]);
      if (!closed.signal.aborted) {
        await this.#leave(registration, offering, closed.signal);
      }
    } finally {
      this.#sentBytes += link.traffic.sentBytes;
      this.#receivedBytes += link.traffic.receivedBytes;
      this.#link = null;
      link.close();
    }
    return await why;
  }

  /** Registers, and gets where offers go. A gateway that does not answer, or is not wanted any more, is hung up on. */
  async #begin(link: Link): Promise<{ registration: Registration$Client; sender: Sender$Client }> {
    const over = new AbortController();
    void aborted([this.#draining.signal, over.signal], BEGIN_S).then(() => {
      if (!over.signal.aborted) {
        link.close("the gateway does not answer a registration in time");
      }
    });
    try {
      return { registration: await this.#register(link), sender: await link.connect("channel", Sender) };
    } catch (error) {
      throw error instanceof Disconnected ? new CapabilityError("peer", await link.closed) : error;
    } finally {
      over.abort();
    }
  }

  async #register(link: Link): Promise<Registration$Client> {
    const registry = await link.connect("registry", Registry);
    const registering = registry.register((params) => {
      describe(params._initInfo(), this.#config);
      params.pulse = serve(Pulse, { beat: () => undefined });
    });
    return (await answered(registering)).registration;
  }

  /** Says goodbye, then waits for the slots in use to be given back. */
  async #leave(registration: Registration$Client, offering: Promise<void>[], closed: AbortSignal): Promise<void> {
    this.#hear("leaving", this.#taken.size ? `slots in use: ${this.#taken.size}` : undefined);
    const over = [closed, this.#stopped.signal];
    try {
      await answered(registration.leave(), AbortSignal.any([...over, AbortSignal.timeout(1000 * this.#config.graceS)]));
    } catch {
      return;
    }
    if (this.#taken.size) {
      const finished = new AbortController();
      void Promise.all(offering).then(() => finished.abort());
      await aborted([...over, finished.signal], this.#config.graceS);
    }
  }

  /** Sends an offer, waits for the slot to be given back, and so on until draining or the connection's end. */
  async #offerForEver(slot: Slot, sender: Sender$Client, closed: AbortSignal): Promise<void> {
    const over = AbortSignal.any([this.#draining.signal, closed]);
    while (!over.aborted) {
      try {
        const lease = await this.#offer(slot, sender, over);
        this.#taken.add(slot);
        await lease.ended;
      } catch (error) {
        if (over.aborted || error instanceof Disconnected) {
          return;
        }
        this.#hear("joined", `the gateway does not take an offer: ${error instanceof Error ? error.message : ""}`);
        await aborted([over], OFFER_AGAIN_S);
      } finally {
        this.#taken.delete(slot);
      }
    }
  }

  async #offer(slot: Slot, sender: Sender$Client, over: AbortSignal): Promise<Lease> {
    const lease = new Lease(this, slot);
    const sending = sender.send((params) => {
      const offer = initAs(Offer, params.value);
      offer.depth = 0;
      offer.worker = lease.worker;
    });
    release(await answered(sending, over));
    return lease;
  }
}

function describe(info: WorkerInfo, config: JoinConfig): void {
  info.kind = config.kind;
  info.slots = config.slots;
  info.cpus = config.cpus;
  info.memoryBytes = BigInt(config.memoryBytes);
  info.host = config.host;
  const labels = [...new Map([...config.labels, ["kind", config.kind]])];
  const list = info._initLabels(labels.length);
  labels.forEach(([key, value], index) => {
    const label = list.get(index);
    label.key = key;
    label.value = value;
  });
  const lacks = info._initLacks(LACKS.length);
  LACKS.forEach((word, index) => lacks.set(index, word));
}

/** Waits until one of them is aborted, and with a time no longer than that. */
function aborted(signals: AbortSignal[], withinS?: number): Promise<void> {
  return new Promise((resolve) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const end = () => {
      clearTimeout(timer);
      signals.forEach((signal) => signal.removeEventListener("abort", end));
      resolve();
    };
    signals.forEach((signal) => signal.addEventListener("abort", end));
    if (withinS !== undefined) {
      timer = setTimeout(end, 1000 * withinS);
    }
    if (signals.some((signal) => signal.aborted)) {
      end();
    }
  });
}
