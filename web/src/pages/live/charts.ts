// The charts at the top of the live page, and the same figures as a table. Which figures, in which words; how they are drawn is
// chart.ts.
import { make } from "../page/element";
import { clock, figure, milliseconds, whole } from "../page/format";
import type { Painter } from "../page/painter";
import { Chart, type ChartKind } from "./chart";
import type { History } from "./history";
import type { Sample } from "./shapes";

const TABLE_SECONDS = 10;

const KINDS: ChartKind[] = [
  {
    title: "Throughput", unit: "runs/s", text: figure, least: 10,
    lines: [{ name: "runs ended per second", value: (sample) => sample.ended, look: "good", isFilled: true }],
    note: (sample) => `${figure(sample.requests)} requests/s`,
  },
  {
    title: "Failures", unit: "runs/s", text: figure, least: 4,
    lines: [{ name: "failed per second", value: (sample) => sample.failed, look: "bad", isFilled: true }],
  },
  {
    title: "Queue", unit: "runs", text: figure, least: 10,
    lines: [
      { name: "queued", value: (sample) => sample.queued, look: "plain", isFilled: true },
      { name: "running", value: (sample) => sample.running, look: "busy" },
    ],
    note: (sample) => `${whole(sample.running)} running, ${whole(sample.slots - sample.free)} of ${whole(sample.slots)} slots`,
  },
  {
    title: "Dispatch", unit: "p50", text: milliseconds, least: 10,
    lines: [
      { name: "p50", value: (sample) => sample.dispatch_p50_ms, look: "accent" },
      { name: "p95", value: (sample) => sample.dispatch_p95_ms, look: "faint" },
    ],
    note: (sample) => `${milliseconds(sample.dispatch_p95_ms)} p95`,
  },
  {
    title: "Run time", unit: "p50", text: milliseconds, least: 10,
    lines: [
      { name: "p50", value: (sample) => sample.run_p50_ms, look: "accent" },
      { name: "p95", value: (sample) => sample.run_p95_ms, look: "faint" },
    ],
    note: (sample) => `${milliseconds(sample.run_p95_ms)} p95`,
  },
]; // prettier-ignore

const COLUMNS: [string, (sample: Sample) => string][] = [
  ["From", (sample) => clock(sample.t)],
  ["Runs ended", (sample) => whole(sample.ended)],
  ["Failed", (sample) => whole(sample.failed)],
  ["Queued", (sample) => whole(sample.queued)],
  ["Running", (sample) => whole(sample.running)],
  ["Dispatch p50", (sample) => milliseconds(sample.dispatch_p50_ms)],
  ["p95", (sample) => milliseconds(sample.dispatch_p95_ms)],
  ["Run p50", (sample) => milliseconds(sample.run_p50_ms)],
  ["p95", (sample) => milliseconds(sample.run_p95_ms)],
];

export class Charts {
  readonly element: HTMLElement;
  readonly #charts: Chart[];
  readonly #history: History;
  readonly #painter: Painter;
  readonly #details = make("details", { class: "fallback" }, make("summary", {}, "These figures as a table"));
  readonly #rows = make("tbody");
  #shownTo = 0;

  constructor(history: History, painter: Painter) {
    this.#history = history;
    this.#painter = painter;
    this.#charts = KINDS.map((kind) => new Chart(kind, history));
    const head = make("tr", {}, ...COLUMNS.map(([name]) => make("th", { scope: "col" }, name)));
    const caption = make("caption", { class: "unseen" }, `The last five minutes in spans of ${TABLE_SECONDS} seconds, newest first`);
    this.#details.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures" },
      make("table", {}, caption, make("thead", {}, head), this.#rows))); // prettier-ignore
    this.#details.addEventListener("toggle", () => this.#painter.ask(this.#paintTable));
    this.element = make("section", { "aria-labelledby": "figures-title" },
      make("h2", { id: "figures-title", class: "unseen" }, "The last five minutes"),
      make("div", { class: "charts" }, ...this.#charts.map((each) => each.element)), this.#details); // prettier-ignore
    new ResizeObserver(() => this.changed()).observe(this.element);
  }

  changed(): void {
    this.#painter.ask(this.#paint);
  }

  readonly #paint = (): void => {
    for (const chart of this.#charts) {
      chart.resize();
      chart.paint();
    }
    this.#paintTable();
  };

  readonly #paintTable = (): void => {
    const to = Math.floor((this.#history.latest?.t ?? 0) / TABLE_SECONDS);
    if (!this.#details.open || to === this.#shownTo) {
      return;
    }
    this.#shownTo = to;
    const rows = this.#history.spans(TABLE_SECONDS).map((sample) =>
      make("tr", {}, ...COLUMNS.map(([, text]) => make("td", { class: "number" }, text(sample)))),
    );
    this.#rows.replaceChildren(...rows);
  };
}
