// Entry of the Web Worker that a page starts: the tab's vat, with a further Web Worker for each slot. It is no page's main
// thread, whose timers browsers hold up when it is hidden.
//
// Holds what a tab says of itself, and the conversation with its page (messages.ts). Next: join.ts.

import { browserIdentity } from "../identity/browser";
import type { Identity } from "../identity/identity";
import { DEFAULTS } from "../sandbox/limits";
import { Sandbox } from "../sandbox/sandbox";
import { CacheStore } from "../sandbox/store";
import { browserName } from "./browser";
import { type Hear, type JoinConfig, Joining } from "./join";
import { loadOf, Rate } from "./load";
import type { PageMessage, VatMessage } from "./messages";
import { portOf } from "./threads";
import { parseTicket, type Ticket } from "./ticket";

const LOAD_EVERY_MS = 250;
const GRACE_S = 5;
/** Of what a tab claims to have where the browser does not say: GiB. */
const MEMORY_GIB = 4;

type Join = Extract<PageMessage, { type: "join" }>;

/** The tab's part in the cluster: one at a time. */
class Tab {
  #identity: Promise<Identity> | null = null;
  #joining: Joining | null = null;
  #isIn = false;
  #isLeaving = false;
  /** What was asked for while it was still leaving. */
  #next: Join | null = null;

  async join(asked: Join): Promise<void> {
    if (this.#isIn) {
      this.#next = this.#isLeaving ? asked : null;
      return;
    }
    this.#isIn = true;
    try {
      for (let next: Join | null = asked; next; next = this.#next) {
        this.#next = null;
        this.#isLeaving = false;
        await this.#work(next);
      }
    } finally {
      this.#isIn = false;
    }
  }

  leave(): void {
    this.#next = null;
    if (this.#isLeaving) {
      this.#joining?.stop();
    } else {
      this.#isLeaving = true;
      this.#joining?.drain();
    }
  }

  async #work(asked: Join): Promise<void> {
    let peer: string | undefined;
    const hear: Hear = (state, detail) => tell({ type: "state", state, peer, gateway: this.#joining?.gateway, detail });
    const ticket = asked.ticket ? parseTicket(asked.ticket) : null;
    if (asked.ticket && !ticket) {
      hear("refused", "that is no ticket: expected one, as ww ticket create prints it");
      hear("left");
      return;
    }
    hear("connecting");
    let identity: Identity;
    try {
      identity = await (this.#identity ??= browserIdentity());
    } catch (error) {
      this.#identity = null;
      hear("refused", error instanceof Error ? error.message : "this browser gives no key");
      hear("left");
      return;
    }
    if (this.#isLeaving) {
      hear("left");
      return;
    }
    peer = identity.peerId;
    const sandbox = new Sandbox(spawnSlot, CacheStore.orMemory(), DEFAULTS);
    const joining = new Joining(identity, sandbox, configOf(asked, ticket), hear);
    this.#joining = joining;
    const rate = new Rate();
    const timer = setInterval(() => tell(loadOf(sandbox, rate, joining.traffic, Date.now())), LOAD_EVERY_MS);
    try {
      await joining.serve();
    } finally {
      clearInterval(timer);
      this.#joining = null;
    }
  }
}

function configOf(asked: Join, ticket: Ticket | null): JoinConfig {
  const memoryGib = (navigator as { deviceMemory?: number }).deviceMemory ?? MEMORY_GIB;
  return {
    url: asked.url,
    slots: asked.slots,
    ticket: ticket?.ticket,
    gateway: asked.gateway ?? ticket?.gateway ?? undefined,
    namespace: asked.namespace ?? "ww",
    kind: "browser",
    labels: new Map(),
    cpus: Math.max(asked.slots, navigator.hardwareConcurrency || 1),
    memoryBytes: memoryGib * 2 ** 30,
    host: browserName(navigator.userAgent),
    limits: DEFAULTS,
    graceS: GRACE_S,
  };
}

const spawnSlot = () => portOf(new Worker(new URL("./slot.ts", import.meta.url), { type: "module" }));

const tell = (message: VatMessage) => postMessage(message);

const tab = new Tab();
onmessage = (event: MessageEvent<PageMessage>) => {
  if (event.data.type === "join") {
    void tab.join(event.data);
  } else {
    tab.leave();
  }
};
