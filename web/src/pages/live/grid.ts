// The runs of a task as a grid on a canvas: zoomed, scrolled, and read by pointer or arrow keys. Only what is to be seen is drawn,
// at most once a frame. Must not know where cells come from.
import type { Announcer } from "../page/announcer";
import { make, setAttribute, setText } from "../page/element";
import { plural, whole } from "../page/format";
import type { Painter } from "../page/painter";
import { STATES, type Cells } from "./cells";
import type { RunState } from "./shapes";
import { cellAt, fill, fitting, layout, type Layout } from "./pixels";

const PITCHES = [3, 4, 5, 6, 8, 10, 13, 16, 20, 26];
const HEIGHT_MAX = 420;
const SIGNS_FROM = 10; // CSS pixels a cell needs for a sign in it

export class Grid {
  readonly element: HTMLElement;
  readonly #painter: Painter;
  readonly #announcer: Announcer;
  readonly #open: (run: number) => void;
  readonly #canvas = make("canvas", { "aria-hidden": "true" });
  readonly #space = make("div", { class: "grid-space" }, this.#canvas);
  readonly #view = make("div", {
    class: "grid-view", tabindex: 0, role: "application", "aria-roledescription": "grid of runs", "aria-describedby": "grid-keys",
  }, this.#space); // prettier-ignore
  readonly #read = make("output", { class: "grid-read" });
  readonly #legend = make("ul", { class: "legend", "aria-label": "Runs by state" });
  readonly #counts = STATES.map((state) => {
    const count = make("span", { class: "count" });
    this.#legend.append(make("li", { "data-state": state }, make("span", { class: "swatch", "aria-hidden": "true" }), `${state} `, count));
    return count;
  });
  readonly #failed = make("button", { type: "button", class: "small", hidden: true }, "Next failed");
  readonly #sizes = new ResizeObserver(() => this.changed());
  readonly #recolored = (): void => {
    this.#pixels = null;
    this.changed();
  };
  #cells: Cells | null = null;
  #told: Readonly<Record<RunState, number>> | null = null;
  #pitch = 0; // 0: as fits
  #cursor = -1;
  #pixels: ImageData | null = null;
  #colors: Uint32Array = new Uint32Array(STATES.length);

  constructor(painter: Painter, announcer: Announcer, open: (run: number) => void) {
    this.#painter = painter;
    this.#announcer = announcer;
    this.#open = open;
    const zoom = (label: string, sign: string, by: number) =>
      make("button", { type: "button", class: "small icon", "aria-label": label, title: label, onclick: () => this.#zoom(by) }, sign);
    const tools = make("div", { class: "actions" }, this.#failed, zoom("Zoom out", "−", -1), zoom("Zoom in", "+", 1),
      make("button", { type: "button", class: "small", onclick: () => this.#zoom(0) }, "Fit")); // prettier-ignore
    const keys = make("p", { id: "grid-keys", class: "unseen" },
      "Arrow keys move from run to run, F to the next that failed, Enter opens the run, plus and minus zoom. The results are a table below."); // prettier-ignore
    this.element = make("section", { class: "panel grid", "aria-labelledby": "grid-title" },
      make("header", {}, make("h2", { id: "grid-title" }, "Runs"), tools), this.#legend, this.#view, this.#read, keys); // prettier-ignore
    this.#failed.addEventListener("click", () => this.#toFailed());
    this.#listen();
    this.#sizes.observe(this.#view);
  }

  /** Let go of the document, which would hold the pixels of every task that was looked at. */
  close(): void {
    this.#sizes.disconnect();
    document.removeEventListener("theme", this.#recolored);
  }

  show(cells: Cells): void {
    this.#cells = cells;
    this.#cursor = Math.min(this.#cursor, cells.count - 1);
    this.changed();
  }

  /** Take how many runs are in each state: where a cell stands for several, cells do not tell. */
  told(runs: Readonly<Record<RunState, number>>): void {
    this.#told = runs;
    this.changed();
  }

  changed(): void {
    this.#painter.ask(this.#paint);
  }

  readonly #paint = (): void => {
    const cells = this.#cells;
    const width = this.#view.clientWidth;
    if (!cells || !width || !this.element.isConnected) {
      return;
    }
    const of = this.#layout(cells, width);
    const height = Math.min(HEIGHT_MAX, of.rows * of.pitch);
    this.#space.style.height = `${of.rows * of.pitch}px`;
    this.#view.style.height = `${height}px`;
    this.#paintCells(cells, of, width, height);
    this.#paintWords(cells);
  };

  #paintCells(cells: Cells, of: Layout, width: number, height: number): void {
    const scale = Math.max(1, Math.round(devicePixelRatio));
    const [across, down] = [width * scale, height * scale];
    const context = this.#canvas.getContext("2d");
    if (!context) {
      return;
    }
    if (this.#canvas.width !== across || this.#canvas.height !== down || !this.#pixels) {
      this.#canvas.width = across;
      this.#canvas.height = down;
      this.#canvas.style.width = `${width}px`;
      this.#canvas.style.height = `${height}px`;
      this.#pixels = context.createImageData(across, down);
      this.#colors = this.#readColors();
    }
    const top = this.#view.scrollTop;
    const scaled = { ...of, pitch: of.pitch * scale, gap: of.gap * scale };
    fill(new Uint32Array(this.#pixels.data.buffer), across, Math.round(top * scale), scaled, cells.states, this.#colors);
    context.putImageData(this.#pixels, 0, 0);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    if (of.pitch >= SIGNS_FROM) {
      this.#paintSigns(context, cells, of, top, height);
    }
    this.#paintCursor(context, of, top);
  }

  /** A cross on what failed and a dot on what runs: colours alone would not tell everybody. */
  #paintSigns(context: CanvasRenderingContext2D, cells: Cells, of: Layout, top: number, height: number): void {
    const [running, failed] = [STATES.indexOf("running"), STATES.indexOf("failed")];
    context.strokeStyle = context.fillStyle = getComputedStyle(this.#view).getPropertyValue("--cell-sign");
    context.lineWidth = 1.5;
    context.beginPath();
    const first = Math.floor(top / of.pitch) * of.columns;
    const end = Math.min(cells.count, Math.ceil((top + height) / of.pitch) * of.columns);
    const middle = (of.pitch - of.gap) / 2;
    const reach = middle * 0.45;
    for (let cell = first; cell < end; cell += 1) {
      const state = cells.states[cell];
      const x = (cell % of.columns) * of.pitch + middle;
      const y = Math.floor(cell / of.columns) * of.pitch - top + middle;
      if (state === failed) {
        context.moveTo(x - reach, y - reach);
        context.lineTo(x + reach, y + reach);
        context.moveTo(x + reach, y - reach);
        context.lineTo(x - reach, y + reach);
      } else if (state === running) {
        context.moveTo(x + reach * 0.5, y);
        context.arc(x, y, reach * 0.5, 0, 7);
      }
    }
    context.stroke();
  }

  #paintCursor(context: CanvasRenderingContext2D, of: Layout, top: number): void {
    if (this.#cursor < 0) {
      return;
    }
    const x = (this.#cursor % of.columns) * of.pitch;
    const y = Math.floor(this.#cursor / of.columns) * of.pitch - top;
    const size = of.pitch - of.gap;
    context.strokeStyle = getComputedStyle(this.#view).getPropertyValue("--text");
    context.lineWidth = 2;
    context.strokeRect(x - 1, y - 1, size + 2, size + 2);
  }

  #paintWords(cells: Cells): void {
    const isOne = cells.perCell === 1;
    const runs = STATES.map((state, index) => [state, isOne ? cells.counts[index]! : this.#told?.[state]] as const);
    runs.forEach(([, count], state) => setText(this.#counts[state]!, count === undefined ? "–" : whole(count)));
    this.#failed.hidden = cells.counts[STATES.indexOf("failed")] === 0;
    const each = isOne ? "" : ` A cell stands for ${whole(cells.perCell)} runs, and shows the worst of them.`;
    const read = runs.filter(([, count]) => count).map(([state, count]) => `${count} ${state}`);
    setAttribute(this.#view, "aria-label", `${plural(cells.repeats, "run")}: ${read.join(", ")}.${each}`);
    setText(this.#read, this.#cursor < 0 ? each.trim() : this.#describe(cells, this.#cursor));
  }

  #describe(cells: Cells, cell: number): string {
    const [first, last] = cells.runs(cell);
    return first === last ? `Run ${whole(first)}: ${cells.state(cell)}` : `Runs ${whole(first)} to ${whole(last)}: ${cells.state(cell)}`;
  }

  #layout(cells: Cells, width: number): Layout {
    const pitch = this.#pitch || fitting(cells.count, width, HEIGHT_MAX, PITCHES);
    return layout(cells.count, width, pitch, pitch > 3 ? 1 : 0);
  }

  /** Colours as the stylesheet has them, as pixels: alpha, blue, green, red from the highest byte. */
  #readColors(): Uint32Array {
    const style = getComputedStyle(this.#view);
    const found = STATES.map((state) => {
      const number = parseInt(style.getPropertyValue(`--cell-${state}`).trim().slice(1), 16);
      return (0xff000000 | ((number & 0xff) << 16) | (number & 0xff00) | ((number >> 16) & 0xff)) >>> 0;
    });
    return Uint32Array.from(found);
  }

  #zoom(by: number): void {
    const cells = this.#cells;
    if (!cells) {
      return;
    }
    const now = this.#layout(cells, this.#view.clientWidth).pitch;
    const at = PITCHES.indexOf(now);
    this.#pitch = by === 0 ? 0 : PITCHES[Math.max(0, Math.min(PITCHES.length - 1, at + by))]!;
    this.changed();
    this.#painter.ask(() => this.#reveal());
  }

  #move(to: number): void {
    const cells = this.#cells;
    if (!cells?.count) {
      return;
    }
    this.#cursor = Math.max(0, Math.min(cells.count - 1, to));
    this.#reveal();
    this.changed();
    this.#announcer.answer(this.#describe(cells, this.#cursor));
  }

  #toFailed(): void {
    const next = this.#cells?.next(this.#cursor, "failed") ?? -1;
    if (next >= 0) {
      this.#move(next);
    }
  }

  #reveal(): void {
    if (!this.#cells || this.#cursor < 0) {
      return;
    }
    const of = this.#layout(this.#cells, this.#view.clientWidth);
    const y = Math.floor(this.#cursor / of.columns) * of.pitch;
    const { scrollTop, clientHeight } = this.#view;
    if (y < scrollTop || y + of.pitch > scrollTop + clientHeight) {
      this.#view.scrollTop = y - clientHeight / 2;
    }
  }

  #listen(): void {
    const at = (event: MouseEvent): number => {
      const cells = this.#cells;
      const box = this.#canvas.getBoundingClientRect();
      const of = cells && this.#layout(cells, this.#view.clientWidth);
      return of ? cellAt(of, event.clientX - box.left, event.clientY - box.top + this.#view.scrollTop) : -1;
    };
    this.#view.addEventListener("scroll", () => this.changed(), { passive: true });
    this.#view.addEventListener("pointermove", (event) => {
      const cell = at(event);
      if (event.pointerType === "mouse" && cell !== this.#cursor) {
        this.#cursor = cell;
        this.changed();
      }
    });
    this.#view.addEventListener("pointerleave", () => {
      if (document.activeElement !== this.#view) {
        this.#cursor = -1;
        this.changed();
      }
    });
    this.#view.addEventListener("click", (event) => {
      const cell = at(event);
      if (cell >= 0) {
        this.#cursor = cell;
        this.#open(this.#cells!.runs(cell)[0]);
      }
    });
    this.#view.addEventListener("wheel", (event) => {
      if (event.ctrlKey) {
        event.preventDefault();
        this.#zoom(event.deltaY < 0 ? 1 : -1);
      }
    }, { passive: false }); // prettier-ignore
    this.#view.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("theme", this.#recolored);
  }

  #key(event: KeyboardEvent): void {
    const cells = this.#cells;
    if (!cells || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const { columns } = this.#layout(cells, this.#view.clientWidth);
    const steps: Record<string, number> = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -10 * columns, PageDown: 10 * columns,
      Home: -cells.count, End: cells.count,
    }; // prettier-ignore
    const step = steps[event.key];
    if (step !== undefined) {
      this.#move(Math.max(this.#cursor, 0) + (this.#cursor < 0 && event.key !== "End" ? 0 : step));
    } else if (event.key === "Enter" && this.#cursor >= 0) {
      this.#open(cells.runs(this.#cursor)[0]);
    } else if (event.key === "+" || event.key === "-") {
      this.#zoom(event.key === "+" ? 1 : -1);
    } else if (event.key.toLowerCase() === "f") {
      this.#toFailed();
    } else {
      return;
    }
    event.preventDefault();
  }
}
