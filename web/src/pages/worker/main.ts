// The worker page: a tab that works for the gateway that served it. Puts the parts together; what each does is in its own module.
import type { LoadMessage } from "../../worker/messages";
import { make, setText } from "../page/element";
import { figure } from "../page/format";
import { frame } from "../page/frame";
import { Painter } from "../page/painter";
import { about, quorumNote } from "./about";
import { askedOf, peerUrl, withoutTicket } from "./address";
import { Controls } from "./controls";
import { Counters } from "./counters";
import { Membership, type View } from "./membership";
import { obstacleOf } from "./obstacle";
import { Slots } from "./slots";
import { Tally } from "./tally";
import { health, healthInTheEnd, Vat } from "./vat";

class WorkerPage {
  readonly #painter = new Painter();
  readonly #namespace = make("span", { class: "namespace", title: "Namespace" });
  readonly #frame = frame("Worker", this.#namespace);
  readonly #slotsMax = Math.max(1, navigator.hardwareConcurrency || 1);
  readonly #tally = new Tally();
  readonly #counters = new Counters(this.#tally);
  readonly #slots = new Slots();
  readonly #vat = new Vat({
    state: (message) => {
      if (message.state === "left") {
        this.#ended();
      }
      this.#membership.hear(message);
    },
    load: (message) => this.#loaded(message),
    broke: (why) => {
      this.#ended();
      this.#membership.broke(why);
    },
  });
  readonly #membership = new Membership(peerUrl(location.href), {
    tell: (message) => this.#vat.tell(message),
    namespace: async (signal, failed) => (await healthInTheEnd(signal, failed)).namespace,
    changed: (view) => this.#changed(view),
    nowMs: () => Date.now(),
  });
  readonly #controls = new Controls(this.#membership, this.#slotsMax);
  readonly #obstacle = obstacleOf(globalThis);
  #load: LoadMessage | null = null;

  constructor() {
    const barred = this.#obstacle && make("p", { class: "panel barred", role: "alert" }, make("strong", {}, "No tab can join from here. "), this.#obstacle);
    this.#frame.main.append(make("div", { class: "worker" }, about(), barred || null, this.#controls.element,
      make("div", { class: "doing" }, this.#counters.element, this.#slots.element), quorumNote())); // prettier-ignore
    this.#changed(this.#membership.view);
    if (this.#obstacle) {
      this.#controls.bar();
    }
    this.#follow();
    this.#read();
    setInterval(() => this.#painter.ask(this.#paint), 1000);
    health().then(
      ({ peer, namespace }) => {
        this.#controls.knowGateway(peer);
        setText(this.#namespace, namespace);
      },
      () => undefined, // who joins is told
    );
  }

  #follow(): void {
    addEventListener("hashchange", () => this.#read());
    // Browsers stop what is in a page that is kept for the way back, or asleep; its runs are wanted elsewhere then.
    addEventListener("pagehide", () => this.#membership.away());
    addEventListener("pageshow", () => this.#membership.back());
    document.addEventListener("freeze", () => this.#membership.away());
    document.addEventListener("resume", () => this.#membership.back());
  }

  /** Do as the address asks. */
  #read(): void {
    const asked = askedOf(location.hash, this.#slotsMax);
    const { isWanted, state } = this.#membership.view;
    if (asked.ticket) {
      history.replaceState(history.state, "", `${location.pathname}${location.search}${withoutTicket(location.hash)}`);
    }
    if (isWanted && state !== "refused") {
      return;
    }
    this.#controls.fill(asked.slots, asked.ticket, asked.problem);
    if (asked.isAutojoin && !asked.problem && !this.#obstacle) {
      this.#membership.join(this.#controls.wish);
    }
  }

  #changed(view: View): void {
    this.#controls.show(view);
    this.#painter.ask(this.#paint);
  }

  /** The vat's figures are over: those of the next joining begin at nothing. */
  #ended(): void {
    this.#load = null;
    this.#tally.end(Date.now() / 1000);
    this.#slots.clear();
  }

  #loaded(load: LoadMessage): void {
    const now = Date.now() / 1000;
    this.#load = load;
    this.#tally.note(load, now);
    this.#slots.note(load.slots, now);
    this.#painter.ask(this.#paint);
  }

  readonly #paint = (): void => {
    const nowMs = Date.now();
    const { state } = this.#membership.view;
    this.#counters.paint(this.#load, nowMs / 1000);
    this.#slots.show((state === "joined" || state === "leaving" ? this.#load?.slots : null) ?? [], nowMs);
    this.#controls.paintSince(nowMs);
    document.title = state === "joined" && this.#load?.per_second ? `${figure(this.#load.per_second)} runs/s · ww worker` : `${state} · ww worker`;
  };
}

new WorkerPage();
