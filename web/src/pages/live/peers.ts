// Workers and members of the cluster, as tables. The gateway tells of the first five hundred, and how many more there are.
import { make, setAttribute, setText } from "../page/element";
import { ago, brief, figure, pairs, whole } from "../page/format";
import { copyButton } from "../page/copy";
import type { Painter } from "../page/painter";
import { Rows, table, type Row } from "../page/rows";
import type { Member, Worker } from "./shapes";

class Listing<Value extends { peer: string }> {
  readonly element: HTMLElement;
  readonly #count = make("span", { class: "badge" });
  readonly #empty: HTMLElement;
  readonly #table: HTMLElement;
  readonly #rows: Rows<Value>;
  readonly #painter: Painter;
  readonly #key: (value: Value) => string;
  #values: Value[] = [];
  #more = 0;

  constructor(
    painter: Painter,
    about: { id: string; title: string; empty: string; columns: (string | [string, string])[] },
    row: (value: Value) => Row<Value>,
    key: (value: Value) => string,
  ) {
    this.#painter = painter;
    this.#key = key;
    this.#rows = new Rows(row);
    this.#empty = make("p", { class: "empty" }, about.empty);
    this.#table = table(about.title, about.columns, this.#rows.element);
    this.element = make("section", { class: "panel", "aria-labelledby": about.id },
      make("header", {}, make("h2", { id: about.id }, about.title, " ", this.#count)), this.#table, this.#empty); // prettier-ignore
    this.#paint();
  }

  /** Take all there are, but so many more. */
  told(values: Value[], more: number): void {
    this.#values = values;
    this.#more = more;
    this.#painter.ask(this.#paint);
  }

  readonly #paint = (): void => {
    const count = this.#values.length;
    setText(this.#count, whole(count + this.#more) + (this.#more ? `, ${whole(count)} shown` : ""));
    this.#table.hidden = !count;
    this.#empty.hidden = count > 0;
    this.#rows.show(this.#values, this.#key);
  };
}

function peerCell(peer: string): HTMLTableCellElement {
  return make("th", { scope: "row", class: "id" }, make("span", { title: peer }, brief(peer)),
    copyButton(`the peer id ${brief(peer)}`, () => peer)); // prettier-ignore
}

class WorkerLine implements Row<Worker> {
  readonly element: HTMLTableRowElement;
  readonly #kind = make("span", { class: "kind" });
  readonly #slots = make("span", { class: "count" });
  readonly #bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span", { "data-state": "running" }));
  readonly #speed = make("td", { class: "number" });
  readonly #ended = make("td", { class: "number" });
  readonly #host = make("td", { class: "faint" });
  readonly #labels = make("td", { class: "faint cut" });
  readonly #breaker = make("td");
  readonly #lacks = make("td", { class: "faint" });
  readonly #disagreements = make("td", { class: "number" });

  constructor(worker: Worker) {
    this.element = make("tr", {}, peerCell(worker.peer), make("td", {}, this.#kind),
      make("td", { class: "wide" }, make("span", { class: "progress" }, this.#bar, this.#slots)),
      this.#speed, this.#ended, this.#host, this.#labels, this.#breaker, this.#lacks, this.#disagreements); // prettier-ignore
  }

  update(worker: Worker): void {
    const busy = worker.busy ?? worker.slots - worker.free;
    setText(this.#kind, worker.kind);
    setAttribute(this.#kind, "data-kind", worker.kind);
    setText(this.#slots, `${busy} / ${worker.slots}`);
    (this.#bar.firstElementChild as HTMLElement).style.width = `${(100 * busy) / Math.max(1, worker.slots)}%`;
    setText(this.#speed, worker.runs_per_second === undefined ? "–" : figure(worker.runs_per_second));
    setText(this.#ended, worker.runs_ended === undefined ? "–" : whole(worker.runs_ended));
    setText(this.#host, worker.host);
    setText(this.#labels, pairs(worker.labels));
    setAttribute(this.#labels, "title", pairs(worker.labels));
    setText(this.#breaker, worker.breaker);
    setAttribute(this.#breaker, "class", worker.breaker === "closed" ? "faint" : "warn");
    setText(this.#lacks, (worker.lacks ?? []).join(" "));
    const disagreements = worker.disagreements ?? 0;
    setText(this.#disagreements, disagreements ? whole(disagreements) : "");
    setAttribute(this.#disagreements, "class", disagreements ? "number warn" : "number");
  }
}

class MemberLine implements Row<Member> {
  readonly element: HTMLTableRowElement;
  readonly #cells = ["", "", "id faint cut", "faint cut", "number", "number", "number faint"].map((look) => make("td", { class: look || null }));

  constructor(member: Member) {
    this.element = make("tr", {}, peerCell(member.peer), ...this.#cells);
  }

  update(member: Member): void {
    const slots = member.slots === null || member.slots === undefined ? "–" : `${(member.slots ?? 0) - (member.free ?? 0)} / ${member.slots}`;
    const addresses = member.addresses.join(" ");
    const texts = [member.role, member.host, addresses, pairs(member.meta), slots, member.queued === null || member.queued === undefined ? "–" : whole(member.queued),
      ago(member.age_seconds)]; // prettier-ignore
    texts.forEach((text, index) => setText(this.#cells[index]!, text));
    setAttribute(this.#cells[2]!, "title", addresses);
    setAttribute(this.#cells[3]!, "title", pairs(member.meta));
  }
}

export class Workers extends Listing<Worker> {
  constructor(painter: Painter) {
    super(
      painter,
      {
        id: "workers-title", title: "Workers", empty: "No worker is connected: start one with ww worker, or join with a tab.",
        columns: ["Peer", "Kind", ["Slots busy", "wide"], ["Runs/s", "number"], ["Runs ended", "number"], "Host", "Labels", "Breaker", "Lacks",
          ["Disagreed", "number"]],
      }, // prettier-ignore
      (worker) => new WorkerLine(worker),
      // One peer may be connected more than once.
      (worker) => `${worker.peer} ${worker.since}`,
    );
  }
}

export class Members extends Listing<Member> {
  constructor(painter: Painter) {
    super(
      painter,
      {
        id: "members-title", title: "Members", empty: "No member is heard.",
        columns: ["Peer", "Role", "Host", "Addresses", "Meta", ["Slots busy", "number"], ["Queued", "number"], ["Heard", "number"]],
      }, // prettier-ignore
      (member) => new MemberLine(member),
      (member) => member.peer,
    );
  }
}

