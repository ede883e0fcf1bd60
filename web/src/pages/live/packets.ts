// Discovery packets as they come, newest first: the last two hundred. Paused, the table stands still, and what comes is counted.
import { make, setAttribute, setText } from "../page/element";
import { brief, bytes, clock, whole } from "../page/format";
import type { Painter } from "../page/painter";
import { table } from "../page/rows";
import type { Packet } from "./shapes";

const KEPT = 200;

export class Packets {
  readonly element: HTMLElement;
  readonly #painter: Painter;
  readonly #body = make("tbody");
  readonly #pause = make("button", { type: "button", class: "small", "aria-pressed": "false" }, "Pause");
  readonly #note = make("span", { class: "badge" });
  #packets: Packet[] = [];
  #unsaid: Packet[] = [];
  #missed = 0;
  #isPaused = false;

  constructor(painter: Painter) {
    this.#painter = painter;
    this.#pause.addEventListener("click", () => this.#toggle());
    const columns: (string | [string, string])[] = ["Time", "Kind", ["Size", "number"], "Namespace", "From", ["Distance", "number"], "Dropped"];
    this.element = make("section", { class: "panel", "aria-labelledby": "packets-title", hidden: true },
      make("header", {}, make("h2", { id: "packets-title" }, "Discovery packets ", this.#note), this.#pause),
      table("Discovery packets, newest first", columns, this.#body, "packets")); // prettier-ignore
  }

  told(packets: Packet[], more: number): void {
    this.#missed += more;
    this.#unsaid = [...this.#unsaid, ...packets].slice(-KEPT);
    this.element.hidden = false;
    this.#painter.ask(this.#paint);
  }

  #toggle(): void {
    this.#isPaused = !this.#isPaused;
    setAttribute(this.#pause, "aria-pressed", String(this.#isPaused));
    setText(this.#pause, this.#isPaused ? "Go on" : "Pause");
    this.#painter.ask(this.#paint);
  }

  readonly #paint = (): void => {
    if (this.#isPaused) {
      setText(this.#note, `paused, ${this.#unsaid.length}${this.#unsaid.length === KEPT ? " or more" : ""} new`);
      return;
    }
    const told = this.#unsaid;
    this.#unsaid = [];
    this.#packets = [...this.#packets, ...told].slice(-KEPT);
    this.#body.prepend(...told.map(line).reverse());
    while (this.#body.rows.length > KEPT) {
      this.#body.deleteRow(-1);
    }
    setText(this.#note, this.#missed ? `${whole(this.#missed)} not shown` : "");
  };
}

function line(packet: Packet): HTMLTableRowElement {
  const peer = packet.peer ?? "";
  return make("tr", {},
    make("td", { class: "faint" }, clock(packet.t)), make("th", { scope: "row" }, packet.kind),
    make("td", { class: "number" }, bytes(packet.size)), make("td", {}, packet.namespace ?? ""),
    make("td", { class: "id", title: peer || null }, brief(peer)),
    make("td", { class: "number" }, packet.distance === null || packet.distance === undefined ? "" : packet.distance),
    make("td", { class: packet.dropped ? "warn" : null }, packet.dropped ?? "")); // prettier-ignore
}
