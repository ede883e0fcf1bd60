// One task: facts, grid of runs, results, cancelling. Follows its own stream while it is shown.
import type { Announcer } from "../page/announcer";
import { copyButton } from "../page/copy";
import { confirm } from "../page/dialog";
import { make, setText } from "../page/element";
import { brief, bytes, figure, lasted, pairs, percent, seconds, titled, whole } from "../page/format";
import type { Gateway } from "../page/gateway";
import type { Painter } from "../page/painter";
import { problemFrom } from "../page/problem";
import { EventStream, type StreamState } from "../page/stream";
import { Cells } from "./cells";
import { facts } from "./facts";
import { Grid } from "./grid";
import { Progress } from "./progress";
import { curlOf } from "./result";
import { Results } from "./results";
import { hashOf, taskPath } from "./route";
import { ENDED, endedRuns, taskTitle, type GridPatch, type GridWhole, type Task } from "./shapes";
import { StatusMark } from "./status";

export class TaskView {
  readonly element: HTMLElement;
  readonly title = make("h1", { tabindex: "-1" });
  readonly #id: string;
  readonly #gateway: Gateway;
  readonly #painter: Painter;
  readonly #announcer: Announcer;
  readonly #status = new StatusMark();
  readonly #progress = new Progress("Runs that have ended");
  readonly #speed = make("span", { class: "faint" });
  readonly #about = make("p", { class: "description" });
  readonly #facts = make("div");
  readonly #problem = make("p", { class: "problem", role: "alert", hidden: true });
  readonly #cancel = make("button", { type: "button", class: "danger", hidden: true }, "Cancel task");
  readonly #grid: Grid;
  readonly #results: Results;
  readonly #stream: EventStream;
  #cells: Cells | null = null;
  #task: Task | null = null;
  #factsOf = "";

  constructor(id: string, gateway: Gateway, painter: Painter, announcer: Announcer) {
    this.#id = id;
    this.#gateway = gateway;
    this.#painter = painter;
    this.#announcer = announcer;
    this.#grid = new Grid(painter, announcer, (run) => (location.hash = hashOf({ task: id, run })));
    this.#results = new Results(gateway, painter, id);
    setText(this.title, id);
    const tools = make("div", { class: "actions" }, copyButton("of this task", () => id, "Copy id"),
      copyButton("of this task", () => curlOf(gateway, taskPath(id)), "Copy curl"), this.#cancel); // prettier-ignore
    this.element = make("div", { class: "task-view" },
      make("nav", { "aria-label": "Way back" }, make("a", { href: "#", class: "back" }, "← All tasks")),
      make("header", { class: "task-head" }, this.title, this.#status.element, tools),
      this.#about, this.#problem, make("div", { class: "task-progress" }, this.#progress.element, this.#speed),
      this.#facts, this.#grid.element, this.#results.element); // prettier-ignore
    this.#cancel.addEventListener("click", () => void this.#askCancel());
    this.#stream = new EventStream(gateway, `${taskPath(id)}/grid`, {
      event: (type, data) => this.#event(type, data),
      state: (state, detail) => this.#state(state, detail),
    });
  }

  close(): void {
    this.#stream.close();
    this.#results.close();
    this.#grid.close();
  }

  #event(type: string, data: unknown): void {
    if (type === "grid") {
      const whole = data as GridWhole;
      this.#cells = new Cells(whole.repeats, whole.per_cell, whole.cells);
      this.#grid.show(this.#cells);
      this.#results.grown();
    } else if (type === "patch") {
      for (const [first, text] of (data as GridPatch).cells) {
        this.#cells?.put(first, text);
      }
      this.#grid.changed();
      this.#results.grown();
    } else if (type === "task") {
      this.#told(data as Task);
    }
  }

  #told(task: Task): void {
    const had = this.#task?.status;
    this.#task = task;
    this.#grid.told(task.runs);
    if (ENDED.has(task.status)) {
      this.#stream.complete();
      this.#results.grown();
      if (had && had !== task.status) {
        this.#announcer.say(`${taskTitle(task)} ${task.status}`);
      }
    }
    this.#painter.ask(this.#paint);
  }

  #state(state: StreamState, detail: string): void {
    const isLost = state === "refused" || state === "reconnecting";
    setText(this.#problem, !isLost ? "" : state === "refused" ? detail : `Not live: ${detail}. Reconnecting …`);
    this.#problem.hidden = !isLost;
  }

  readonly #paint = (): void => {
    const task = this.#task;
    if (!task) {
      return;
    }
    setText(this.title, taskTitle(task));
    document.title = titled(`${task.status === "running" ? `${percent(endedRuns(task), task.repeats)} · ` : ""}${taskTitle(task)}`);
    this.#status.set(task.status);
    this.#progress.set(task);
    setText(this.#about, [task.description, task.reason].filter(Boolean).join(" — "));
    this.#about.hidden = !this.#about.textContent;
    const isOpen = !ENDED.has(task.status);
    this.#cancel.hidden = !isOpen;
    setText(this.#speed, isOpen && task.throughput ? `${figure(task.throughput)} runs/s` : "");
    const key = `${task.id} ${task.status} ${task.finished_at}`;
    if (key !== this.#factsOf) {
      this.#factsOf = key;
      this.#facts.replaceChildren(factsOf(task));
    }
  };

  async #askCancel(): Promise<void> {
    const left = this.#task ? whole(this.#task.repeats - endedRuns(this.#task)) : "all";
    const text = `Runs that have not started never will, and those that run are stopped: ${left} have not ended. Results that are there stay.`;
    if (!(await confirm("Cancel this task?", text, "Cancel the task"))) {
      return;
    }
    try {
      this.#told(await this.#gateway.json<Task>(taskPath(this.#id), { method: "DELETE" }));
    } catch (error) {
      setText(this.#problem, problemFrom(error).detail);
      this.#problem.hidden = false;
    }
  }
}

function factsOf(task: Task): HTMLElement {
  const time = (text: string | null) => text && new Date(text).toLocaleString();
  const took = task.finished_at && lasted(Date.parse(task.finished_at) - Date.parse(task.created_at));
  const replicas = task.replicas && task.replicas > 1 ? `${task.quorum ?? 1} of ${task.replicas} agree` : null;
  return facts([
    ["Id", make("code", {}, task.id)],
    ["Kind", task.batch ? `${task.kind}, batch` : task.kind],
    ["Entry", task.entry],
    ["Input", task.input === null ? null : String(task.input)],
    ["Difficulty", task.difficulty === null ? null : String(task.difficulty)],
    ["Arguments", task.args.length ? make("code", {}, task.args.join(" ")) : null],
    ["Module", make("span", { class: "id", title: task.module }, brief(task.module), copyButton("the module's digest", () => task.module))],
    ["Limits", `${seconds(task.duration)}, ${bytes(task.memory)}`],
    ["Labels", pairs(task.labels)],
    ["Priority", task.priority ? String(task.priority) : null],
    ["Deterministic", task.deterministic && `yes, seed ${task.seed ?? 0}`],
    ["Quorum", replicas],
    ["Spread", task.spread === "pull" ? null : task.spread],
    ["Parent", task.parent && make("a", { href: hashOf({ task: task.parent, run: null }) }, task.parent)],
    ["Owner", task.owner],
    ["Submitted", time(task.created_at)],
    ["Ended", time(task.finished_at)],
    ["Took", took],
  ]);
}
