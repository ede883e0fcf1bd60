// What each slot of this tab runs, and since when, as a table.
import type { SlotLoad } from "../../worker/messages";
import { copyButton } from "../page/copy";
import { make, setAttribute, setText } from "../page/element";
import { brief, milliseconds, percent, plural, span } from "../page/format";
import { Rows, table, type Row } from "../page/rows";
import { Busy } from "./tally";

interface Shown {
  place: number;
  busy: boolean;
  /** What runs, or ran last; empty: nothing has. */
  module: string;
  /** Milliseconds that it has been busy with it. */
  forMs: number;
  share: number;
}

class SlotLine implements Row<Shown> {
  readonly element: HTMLTableRowElement;
  readonly #sign = make("span", { "aria-hidden": "true" });
  readonly #word = make("span");
  readonly #status = make("span", { class: "status" }, this.#sign, this.#word);
  readonly #module = make("span");
  readonly #copy = copyButton("the module's digest", () => this.#digest);
  readonly #since = make("td", { class: "number" });
  readonly #bar = make("span", { "data-state": "running" });
  readonly #share = make("span", { class: "count" });
  #digest = "";

  constructor(slot: Shown) {
    this.element = make("tr", {}, make("th", { scope: "row" }, slot.place + 1), make("td", {}, this.#status),
      make("td", { class: "id" }, this.#module, this.#copy), this.#since,
      make("td", { class: "wide" }, make("span", { class: "progress" }, make("span", { class: "bar", "aria-hidden": "true" }, this.#bar), this.#share))); // prettier-ignore
  }

  update(slot: Shown): void {
    setAttribute(this.#status, "data-state", slot.busy ? "running" : null);
    setText(this.#sign, slot.busy ? "●" : "○");
    setText(this.#word, slot.busy ? "runs" : "waits");
    this.#digest = slot.module;
    setText(this.#module, slot.module ? brief(slot.module) : "–");
    setAttribute(this.#module, "title", slot.module || null);
    setAttribute(this.#module, "class", slot.busy ? null : "faint");
    this.#copy.hidden = !slot.module;
    setText(this.#since, slot.busy ? (slot.forMs < 1000 ? milliseconds(slot.forMs) : span(slot.forMs / 1000)) : "–");
    this.#bar.style.width = `${(100 * slot.share).toFixed(0)}%`;
    setText(this.#share, percent(slot.share, 1));
  }
}

export class Slots {
  readonly element: HTMLElement;
  readonly #count = make("span", { class: "badge" });
  readonly #rows = new Rows<Shown>((slot) => new SlotLine(slot));
  readonly #empty = make("p", { class: "empty" }, "No slot is lent: join, and each shows what it runs.");
  readonly #table = table("Slots", ["Slot", "State", "Module", ["For", "number"], ["Busy in the last minute", "wide"]], this.#rows.element, "slots");
  #busy: Busy[] = [];
  #modules: string[] = [];

  constructor() {
    this.element = make("section", { class: "panel", "aria-labelledby": "slots-title" },
      make("header", {}, make("h2", { id: "slots-title" }, "Slots ", this.#count)), this.#table, this.#empty); // prettier-ignore
    this.show([], 0);
  }

  note(slots: readonly SlotLoad[], nowS: number): void {
    slots.forEach((slot, place) => {
      (this.#busy[place] ??= new Busy()).note(slot.busy, nowS);
      this.#modules[place] = slot.module ?? this.#modules[place] ?? "";
    });
  }

  /** Forget what was: other slots come, or none. */
  clear(): void {
    this.#busy = [];
    this.#modules = [];
  }

  show(slots: readonly SlotLoad[], nowMs: number): void {
    const shown = slots.map((slot, place) => ({
      place,
      busy: slot.busy,
      module: this.#modules[place] ?? "",
      forMs: Math.max(0, nowMs - (slot.since_ms ?? nowMs)),
      share: this.#busy[place]?.share ?? 0,
    }));
    this.#table.hidden = !slots.length;
    this.#empty.hidden = slots.length > 0;
    const busy = slots.filter((slot) => slot.busy).length;
    setText(this.#count, slots.length ? `${busy} of ${plural(slots.length, "slot")} busy` : "");
    this.#rows.show(shown, (slot) => String(slot.place));
  }
}
