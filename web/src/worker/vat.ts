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

const LOAD_EVERY_MS = 250;
const GRACE_S = 5;
/** Of what a tab claims to have where the browser does not say: GiB. */
const MEMORY_GIB = 4;

type Join = Extract<PageMessage, { type: "join" }>;

/** The tab's part in the cluster: one at a time. */
class Tab {
  #identity: Promise<Identity> | null = null;
  #joining: Joining | null = null;

  async join(asked: Join): Promise<void> {
    if (this.#joining) {
      return;
    }
    const sandbox = new Sandbox(spawnSlot, new CacheStore(), DEFAULTS);
    let joining: Joining | null = null;
    let peer: string | undefined;
    const hear: Hear = (state, detail) => tell({ type: "state", state, peer, gateway: joining?.gateway, detail });
    try {
      hear("connecting");
      const identity = await (this.#identity ??= browserIdentity());
      peer = identity.peerId;
      joining = this.#joining = new Joining(identity, sandbox, configOf(asked), hear);
    } catch (error) {
      this.#identity = null;
      hear("offline", error instanceof Error ? error.message : "this browser gives no key");
      return;
    }
    await this.#serve(joining, sandbox);
  }

  leave(): void {
    if (this.#joining?.isDraining) {
      this.#joining.stop();
    } else {
      this.#joining?.drain();
    }
  }

  async #serve(joining: Joining, sandbox: Sandbox): Promise<void> {
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

function configOf(asked: Join): JoinConfig {
  const memoryGib = (navigator as { deviceMemory?: number }).deviceMemory ?? MEMORY_GIB;
  return {
    url: asked.url,
    slots: asked.slots,
    ticket: asked.ticket,
    gateway: asked.gateway,
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
