// A chart of the last five minutes: a figure with its latest value in words, a drawing, and a read-out that follows the pointer
// or the arrow keys. Drawn as SVG, so that colours are the stylesheet's. Knows nothing of the gateway but samples.
import { draw, make, setAttribute, setText } from "../page/element";
import { clock } from "../page/format";
import { SECONDS_KEPT, type History } from "./history";
import { ceiling, line, nearest, under, x, y, type Area } from "./scale";
import type { Sample } from "./shapes";

export interface Line {
  name: string;
  value: (sample: Sample) => number | null;
  /** The class of the stylesheet that gives it a colour. */
  look: string;
  isFilled?: boolean;
}

export interface ChartKind {
  title: string;
  unit: string;
  lines: Line[];
  text: (value: number | null) => string;
  /** What the top stands for when all values are smaller. */
  least: number;
  /** What is worth knowing beside the first line's latest value. */
  note?: (sample: Sample) => string;
}

const HEIGHT = 56;

export class Chart {
  readonly element: HTMLElement;
  readonly #kind: ChartKind;
  readonly #history: History;
  readonly #value = make("span", { class: "value" });
  readonly #note = make("span", { class: "note" });
  readonly #top = make("span", { class: "chart-top", "aria-hidden": "true" });
  readonly #read = make("output", { class: "chart-read" });
  readonly #drawing: SVGSVGElement;
  readonly #paths: { line: SVGPathElement; fill: SVGPathElement | null; dot: SVGCircleElement }[];
  readonly #cursor = draw("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  #width = 240;
  /** The time that the read-out is of; null: there is none. */
  #at: number | null = null;

  constructor(kind: ChartKind, history: History) {
    this.#kind = kind;
    this.#history = history;
    this.#paths = kind.lines.map((each) => ({
      line: draw("path", { class: `line ${each.look}` }),
      fill: each.isFilled ? draw("path", { class: `fill ${each.look}` }) : null,
      dot: draw("circle", { class: `dot ${each.look}`, r: 3, visibility: "hidden" }),
    }));
    this.#drawing = draw("svg", { class: "drawing", role: "img", tabindex: 0, preserveAspectRatio: "none" },
      draw("line", { class: "base", x1: 0, x2: "100%", y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
      ...this.#paths.flatMap((each) => [each.fill, each.line]), this.#cursor, ...this.#paths.map((each) => each.dot)); // prettier-ignore
    const plot = make("div", { class: "plot" }, this.#drawing, this.#top, this.#read);
    const head = make("figcaption", {}, make("span", { class: "title" }, kind.title),
      make("span", {}, this.#value, make("span", { class: "unit" }, kind.unit)), this.#note); // prettier-ignore
    this.element = make("figure", { class: "chart" }, head, plot);
    this.#listen();
  }

  /** Take the width that there is; true when it is another than before. */
  resize(): boolean {
    const width = this.#drawing.clientWidth;
    const isOther = width > 0 && width !== this.#width;
    this.#width = isOther ? width : this.#width;
    return isOther;
  }

  paint(): void {
    const samples = this.#history.samples;
    const last = this.#history.latest;
    const first = this.#kind.lines[0]!;
    setText(this.#value, this.#kind.text(last ? first.value(last) : null));
    setText(this.#note, last && this.#kind.note ? this.#kind.note(last) : "");
    const area = this.#area();
    this.#kind.lines.forEach((each, index) => {
      const points = samples.map((sample) => [sample.t, each.value(sample)] as const);
      const path = this.#paths[index]!;
      setAttribute(path.line, "d", line(area, points));
      if (path.fill) {
        setAttribute(path.fill, "d", under(area, points));
      }
    });
    setText(this.#top, this.#kind.text(area.top));
    setAttribute(this.#drawing, "aria-label", this.#summary());
    this.#paintCursor(area);
  }

  #area(): Area {
    const to = this.#history.latest?.t ?? 0;
    const values = this.#history.samples.flatMap((sample) => this.#kind.lines.map((each) => each.value(sample) ?? 0));
    const top = ceiling(Math.max(0, ...values), this.#kind.least);
    return { width: this.#width, height: HEIGHT, from: to - SECONDS_KEPT, to, top };
  }

  #summary(): string {
    const last = this.#history.latest;
    if (!last) {
      return `${this.#kind.title}: nothing yet`;
    }
    const said = this.#kind.lines.map((each) => {
      const known = this.#history.samples.map(each.value).filter((value) => value !== null);
      const most = known.length ? this.#kind.text(Math.max(...known)) : "none";
      return `${each.name} now ${this.#kind.text(each.value(last))}, at most ${most}`;
    });
    return `${this.#kind.title} in the last 5 minutes: ${said.join("; ")}. Arrow keys read values.`;
  }

  #paintCursor(area: Area): void {
    const samples = this.#history.samples;
    const index = this.#at === null ? -1 : nearest(samples.map((each) => each.t), this.#at);
    const sample = samples[index];
    const visibility = sample ? "visible" : "hidden";
    setAttribute(this.#cursor, "visibility", visibility);
    setText(this.#read, sample ? this.#reading(sample) : "");
    this.#kind.lines.forEach((each, place) => {
      const value = sample ? each.value(sample) : null;
      const dot = this.#paths[place]!.dot;
      setAttribute(dot, "visibility", value === null ? "hidden" : "visible");
      if (sample && value !== null) {
        setAttribute(dot, "cx", x(area, sample.t).toFixed(1));
        setAttribute(dot, "cy", y(area, value).toFixed(1));
      }
    });
    if (sample) {
      const at = x(area, sample.t).toFixed(1);
      setAttribute(this.#cursor, "x1", at);
      setAttribute(this.#cursor, "x2", at);
    }
  }

  #reading(sample: Sample): string {
    const values = this.#kind.lines.map((each) => {
      const name = this.#kind.lines.length > 1 ? `${each.name} ` : "";
      return name + this.#kind.text(each.value(sample));
    });
    return `${clock(sample.t)}  ${values.join("  ")}`;
  }

  #listen(): void {
    const show = (at: number | null) => {
      this.#at = at;
      this.#paintCursor(this.#area());
    };
    this.#drawing.addEventListener("pointermove", (event) => {
      const area = this.#area();
      show(area.from + (event.offsetX / this.#width) * SECONDS_KEPT);
    });
    this.#drawing.addEventListener("pointerleave", () => show(null));
    this.#drawing.addEventListener("blur", () => show(null));
    this.#drawing.addEventListener("focus", () => {
      if (this.#drawing.matches(":focus-visible")) {
        show(this.#history.latest?.t ?? null);
      }
    });
    this.#drawing.addEventListener("keydown", (event) => {
      const { from, to } = this.#area();
      const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -SECONDS_KEPT, End: SECONDS_KEPT };
      const step = steps[event.key];
      if (step !== undefined) {
        event.preventDefault();
        show(Math.min(to, Math.max(from + 1, (this.#at ?? to) + step)));
      }
    });
  }
}
