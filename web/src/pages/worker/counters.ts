// What this tab has done, as figures, and how fast, as a line over the last two minutes.
import { draw, make, setAttribute, setText } from "../page/element";
import { bytes, figure, percent, whole } from "../page/format";
import { ceiling, line, under, type Area } from "../live/scale";
import { SECONDS_KEPT, type Tally } from "./tally";

const HEIGHT = 40;

class Figure {
  readonly element: HTMLElement;
  readonly #value = make("dd", { class: "value" });
  readonly #note = make("dd", { class: "note" });

  constructor(title: string, look = "") {
    this.element = make("div", { class: `chart ${look}` }, make("dt", { class: "title" }, title), this.#value, this.#note);
  }

  set(value: string, note: string): void {
    setText(this.#value, value);
    setText(this.#note, note);
  }
}

/** A line without figures, which stand beside it. */
class Spark {
  readonly element: SVGSVGElement;
  readonly #line = draw("path", { class: "line good" });
  readonly #fill = draw("path", { class: "fill good" });

  constructor() {
    this.element = draw("svg", { class: "drawing", "aria-hidden": "true", preserveAspectRatio: "none" },
      draw("line", { class: "base", x1: 0, x2: "100%", y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }), this.#fill, this.#line); // prettier-ignore
  }

  paint(points: readonly (readonly [number, number | null])[], to: number): void {
    const top = ceiling(Math.max(0, ...points.map(([, value]) => value ?? 0)), 1);
    const width = this.element.clientWidth || 240;
    const area: Area = { width, height: HEIGHT, from: to - SECONDS_KEPT, to, top: top * 1.05 };
    setAttribute(this.#line, "d", line(area, points));
    setAttribute(this.#fill, "d", under(area, points));
  }
}

export class Counters {
  readonly element: HTMLElement;
  readonly #tally: Tally;
  readonly #speed = new Figure("Runs a second", "speed");
  readonly #spark = new Spark();
  readonly #ended = new Figure("Runs ended");
  readonly #failed = new Figure("Of these failed");
  readonly #traffic = new Figure("Received");
  readonly #modules = new Figure("Modules kept");

  constructor(tally: Tally) {
    this.#tally = tally;
    this.#speed.element.append(make("dd", { class: "plot" }, this.#spark.element));
    const figures = [this.#speed, this.#ended, this.#failed, this.#traffic, this.#modules].map((each) => each.element);
    this.element = make("dl", { class: "charts counters", "aria-label": "What this tab has done" }, ...figures);
    this.paint(null, 0);
  }

  /** Show the latest figures; null: it is not joined. */
  paint(latest: { per_second: number; modules_cached: number; memory_bytes: number } | null, nowS: number): void {
    const { ended, failed, sent_bytes, received_bytes } = this.#tally.totals;
    const points = this.#tally.points.map((each) => [each.t, each.value] as const);
    // The latest may be newer than the last point.
    const most = Math.max(latest?.per_second ?? 0, ...points.map(([, value]) => value ?? 0));
    this.#speed.set(figure(latest?.per_second), most > 0 ? `at most ${figure(most)} in 2 minutes` : "");
    this.#spark.paint(points, nowS);
    this.#ended.set(whole(ended), ended ? `${whole(ended - failed)} ended well` : "none yet");
    this.#failed.set(whole(failed), ended ? percent(failed, ended) : "");
    this.#traffic.set(bytes(received_bytes), `${bytes(sent_bytes)} sent`);
    this.#modules.set(latest ? whole(latest.modules_cached) : "–", latest ? `${bytes(latest.memory_bytes)} of memory` : "");
    setAttribute(this.element, "data-failed", failed > 0 ? "some" : null);
  }
}

