// Joining and leaving: how many slots, with which ticket, and how it stands. Must not know how any of it is done.
import { copyButton } from "../page/copy";
import { make, setAttribute, setText } from "../page/element";
import { brief, plural, span } from "../page/format";
import { Awake } from "./awake";
import type { View, Wish } from "./membership";

export interface Asks {
  join(wish: Wish): void;
  leave(): void;
}

/** A name with a peer id behind it, to copy. */
class PeerFact {
  readonly element: HTMLElement;
  readonly #value = make("dd", { class: "id" });
  #peer = "";

  constructor(title: string, nothing: string) {
    setText(this.#value, nothing);
    this.element = make("div", {}, make("dt", {}, title), this.#value);
  }

  set(peer: string, what: string): void {
    if (peer && peer !== this.#peer) {
      this.#peer = peer;
      this.#value.replaceChildren(make("span", { title: peer }, brief(peer)), copyButton(what, () => peer));
    }
  }
}

export class Controls {
  readonly element: HTMLFormElement;
  readonly #asks: Asks;
  readonly #slotsMax: number;
  readonly #slots: HTMLInputElement;
  readonly #slotsText = make("output", { for: "slots" });
  readonly #slotsHelp = make("p", { class: "help", id: "slots-help" });
  readonly #ticket = make("input", {
    id: "ticket", type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false", "aria-describedby": "ticket-help",
    placeholder: "wwt1-…",
  }); // prettier-ignore
  readonly #ticketOf = make("details", { class: "ticket" }, make("summary", {}, "I have a ticket"),
    make("div", { class: "field" }, make("label", { for: "ticket" }, "Ticket"), this.#ticket,
      make("p", { class: "help", id: "ticket-help" }, "As ww ticket create printed it, with the gateway's peer id before it or without."))); // prettier-ignore
  readonly #join = make("button", { class: "primary" }, "Join");
  readonly #leave = make("button", { type: "button" }, "Leave");
  readonly #word = make("span", { class: "link state" });
  readonly #detail = make("span", { class: "state-detail" });
  readonly #since = make("span", { class: "faint state-since" });
  readonly #gateway = new PeerFact("Gateway", "not asked yet");
  readonly #peer = new PeerFact("This tab", "gets its key when it joins");
  readonly #awake = new Awake();
  #view: View | null = null;
  #isBarred = false;

  constructor(asks: Asks, slotsMax: number) {
    this.#asks = asks;
    this.#slotsMax = slotsMax;
    // One is left to whose machine it is.
    this.#slots = make("input", {
      id: "slots", type: "range", min: 1, max: slotsMax, step: 1, value: Math.max(1, slotsMax - 1), "aria-describedby": "slots-help",
    }); // prettier-ignore
    this.#slots.addEventListener("input", () => this.#showSlots());
    this.#leave.addEventListener("click", () => this.#asks.leave());
    this.element = make("form", { class: "panel form controls", "aria-label": "Join or leave", onsubmit: (event) => this.#submit(event) },
      make("p", { class: "state-line", role: "status", "aria-live": "polite" }, this.#word, " ", this.#detail), this.#since,
      make("div", { class: "field" }, make("div", { class: "slots-head" }, make("label", { for: "slots" }, "Slots"), this.#slotsText),
        this.#slots, this.#slotsHelp),
      this.#ticketOf, this.#awake.element,
      make("div", { class: "actions" }, this.#join, this.#leave),
      make("dl", { class: "facts" }, this.#gateway.element, this.#peer.element)); // prettier-ignore
    this.#showSlots();
  }

  /** Take over what the address asks for. */
  fill(slots: number | null, ticket: string, problem: string): void {
    if (slots !== null) {
      this.#slots.value = String(slots);
    }
    this.#ticket.value = ticket;
    this.#ticketOf.open = this.#ticketOf.open || ticket !== "";
    this.#showSlots(problem);
  }

  get wish(): Wish {
    return { slots: Math.min(Math.max(1, Number(this.#slots.value) || 1), this.#slotsMax), ticket: this.#ticket.value.trim() };
  }

  /** Nothing can be joined from here. */
  bar(): void {
    this.#isBarred = true;
    this.#enable();
  }

  knowGateway(peer: string): void {
    this.#gateway.set(peer, "the gateway's peer id");
  }

  show(view: View): void {
    const before = this.#view;
    this.#view = view;
    setAttribute(this.#word, "data-link", view.state);
    setText(this.#word, view.state);
    setText(this.#detail, view.detail || saying(view));
    this.knowGateway(view.gateway);
    this.#peer.set(view.peer, "this tab's peer id");
    setText(this.#leave, view.state === "leaving" ? "Leave at once" : "Leave");
    if (view.state === "refused") {
      this.#ticketOf.open = true;
    } else if (view.state === "joined" && before?.state !== "joined") {
      // It has done its part: the gateway knows the key from now on.
      this.#ticket.value = "";
      this.#ticketOf.open = false;
    }
    this.#enable();
    this.#showSlots();
    this.#awake.set(view.isWanted);
  }

  paintSince(nowMs: number): void {
    const joined = this.#view?.joinedAtMs;
    setText(this.#since, joined ? `for ${span((nowMs - joined) / 1000)}` : "");
  }

  #submit(event: Event): void {
    event.preventDefault();
    if (!this.#join.disabled) {
      this.#asks.join(this.wish);
    }
  }

  #enable(): void {
    const { state = "offline", isWanted = false } = this.#view ?? {};
    const focused = document.activeElement;
    this.#join.disabled = this.#isBarred || (isWanted && state !== "refused") || state === "leaving";
    this.#leave.disabled = !isWanted && state !== "leaving";
    this.#slots.disabled = this.#join.disabled;
    this.#ticket.disabled = this.#join.disabled;
    this.#ticketOf.hidden = this.#join.disabled;
    // The focus is not lost with the button that was pressed.
    if (focused === this.#join && this.#join.disabled) {
      this.#leave.focus();
    } else if (focused === this.#leave && this.#leave.disabled) {
      this.#join.focus();
    }
  }

  #showSlots(problem = ""): void {
    const text = `${this.#slots.value} of ${this.#slotsMax}`;
    setText(this.#slotsText, text);
    setAttribute(this.#slots, "aria-valuetext", `${plural(Number(this.#slots.value), "slot")} of ${this.#slotsMax}`);
    setAttribute(this.#slotsHelp, "class", problem ? "problem" : "help");
    const isSet = this.#slots.disabled && !this.#isBarred;
    setText(this.#slotsHelp, problem || (isSet ? "Leave to lend more or fewer." : "Each runs one program at a time and may keep a processor busy."));
  }
}

function saying(view: View): string {
  switch (view.state) {
    case "offline":
      return view.isWanted ? "The gateway does not answer; trying again in a while." : "This tab does nothing for the cluster yet.";
    case "connecting":
      return "Asking the gateway to be let in.";
    case "joined":
      return "The gateway sends it work as there is some.";
    case "leaving":
      return "Nothing new is taken; what runs may finish.";
    case "refused":
      return "The gateway does not let this tab in.";
    case "left":
      return "This tab does nothing for the cluster any more.";
  }
}
