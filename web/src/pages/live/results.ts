// A task's results, a page at a time. Asks for the page again when the caller says that there are more, and only where the page has
// room for them; what was asked for is never asked for twice at once.
import { make, setText } from "../page/element";
import { brief, plural, seconds, whole } from "../page/format";
import type { Gateway } from "../page/gateway";
import type { Painter } from "../page/painter";
import { problemFrom } from "../page/problem";
import { Rows, table, type Row } from "../page/rows";
import { hashOf, taskPath } from "./route";
import type { Result } from "./shapes";
import { StatusMark } from "./status";

const PAGE = 50;
const BETWEEN_MS = 1000;

export class Results {
  readonly element: HTMLElement;
  readonly #gateway: Gateway;
  readonly #painter: Painter;
  readonly #task: string;
  readonly #rows: Rows<Result>;
  readonly #note = make("p", { class: "empty" }, "No result yet.");
  readonly #table: HTMLElement;
  readonly #back = make("button", { type: "button", class: "small" }, "Back");
  readonly #next = make("button", { type: "button", class: "small" }, "Next");
  readonly #range = make("span", { class: "badge" });
  /** The run number after which each page so far began; -1: from the first. */
  #after = [-1];
  #page: Result[] = [];
  #askedAt = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isAsking = false;
  #isClosed = false;

  constructor(gateway: Gateway, painter: Painter, task: string) {
    this.#gateway = gateway;
    this.#painter = painter;
    this.#task = task;
    this.#rows = new Rows((result) => new ResultLine(task, result));
    const columns: (string | [string, string])[] = [["Run", "number"], "State", "Result", "Output", "Worker", ["Time", "number"], ["Attempts", "number"]];
    this.#table = table("Results by run number", columns, this.#rows.element, "results");
    const jump = make("input", { inputmode: "numeric", size: 8, "aria-label": "Go to run number", placeholder: "run" });
    const form = make("form", { class: "jump" }, jump, make("button", { class: "small" }, "Go"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (/^\d{1,12}$/.test(jump.value.trim())) {
        this.#turn([...this.#after.slice(0, 1), Number(jump.value) - 1]);
      }
    });
    this.#back.addEventListener("click", () => this.#turn(this.#after.slice(0, -1)));
    this.#next.addEventListener("click", () => this.#turn([...this.#after, this.#page[this.#page.length - 1]!.run]));
    this.element = make("section", { class: "panel", "aria-labelledby": "results-title" },
      make("header", {}, make("h2", { id: "results-title" }, "Results ", this.#range),
        make("div", { class: "actions" }, form, this.#back, this.#next)), this.#table, this.#note); // prettier-ignore
    this.#show();
    void this.#ask();
  }

  /** Runs have ended since. */
  grown(): void {
    if (this.#page.length >= PAGE || this.#timer !== undefined || this.#isClosed) {
      return;
    }
    const wait = Math.max(0, this.#askedAt + BETWEEN_MS - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      // With a frame: a tab that nobody looks at asks for nothing.
      this.#painter.ask(this.#askAgain);
    }, wait);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #turn(after: number[]): void {
    this.#after = after;
    void this.#ask();
  }

  readonly #askAgain = (): void => void this.#ask();

  async #ask(): Promise<void> {
    if (this.#isAsking || this.#isClosed) {
      return;
    }
    this.#isAsking = true;
    this.#askedAt = performance.now();
    const after = this.#after[this.#after.length - 1]!;
    try {
      const query = after < 0 ? "" : `&after=${after}`;
      this.#page = await this.#gateway.json<Result[]>(`${taskPath(this.#task)}/runs?limit=${PAGE}${query}`);
      this.#show();
    } catch (error) {
      setText(this.#note, problemFrom(error).detail);
      this.#note.hidden = false;
    } finally {
      this.#isAsking = false;
    }
    if (after !== this.#after[this.#after.length - 1]) {
      void this.#ask(); // a button was pressed meanwhile
    }
  }

  #show(): void {
    const page = this.#page;
    this.#rows.show(page, (result) => String(result.run));
    this.#table.hidden = !page.length;
    this.#note.hidden = page.length > 0;
    setText(this.#note, this.#after.length > 1 ? "No more results." : "No result yet.");
    setText(this.#range, page.length ? `${plural(page.length, "run")} from ${whole(page[0]!.run)}` : "");
    this.#back.disabled = this.#after.length <= 1;
    this.#next.disabled = page.length < PAGE;
  }
}

class ResultLine implements Row<Result> {
  readonly element: HTMLTableRowElement;

  constructor(task: string, result: Result) {
    const link = make("a", { href: hashOf({ task, run: result.run }), "data-row": "", tabindex: -1 }, whole(result.run));
    const value = result.result ?? (result.exit_code ? `exit ${result.exit_code}` : (result.reason ?? ""));
    const output = result.stdout.slice(0, 200) || (result.stdout_base64 ? "not text" : "") || result.stderr.slice(0, 200) || (result.detail ?? "");
    this.element = make("tr", {}, make("th", { scope: "row", class: "number" }, link, result.name ? " " : null, result.name ? make("bdi", {}, result.name) : null),
      make("td", {}, new StatusMark(result.state).element), make("td", { class: "code" }, value), make("td", { class: "code faint cut" }, output),
      make("td", { class: "id", title: result.worker }, brief(result.worker ?? "")), make("td", { class: "number" }, seconds(result.wall_seconds)),
      make("td", { class: "number faint" }, result.attempts)); // prettier-ignore
  }

  update(): void {
    // A result never changes.
  }
}
