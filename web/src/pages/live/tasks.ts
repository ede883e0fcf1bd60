// The newest tasks, live. Keeps at most fifty, whatever is told.
import { make, setAttribute, setText } from "../page/element";
import { ago, figure } from "../page/format";
import type { Painter } from "../page/painter";
import { Rows, table, type Row } from "../page/rows";
import { Progress } from "./progress";
import { hashOf } from "./route";
import { ENDED, taskTitle, type Task } from "./shapes";
import { StatusMark } from "./status";

const TASKS_KEPT = 50;

/** The newest of the tasks that are known and those told now, newest first. */
function newest(known: ReadonlyMap<string, Task>, told: readonly Task[], limit = TASKS_KEPT): Map<string, Task> {
  const all = new Map(known);
  for (const task of told) {
    all.set(task.id, task);
  }
  const sorted = [...all.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : a.created_at > b.created_at ? -1 : 0));
  return new Map(sorted.slice(0, limit).map((task) => [task.id, task]));
}

export class Tasks {
  readonly element: HTMLElement;
  readonly #painter: Painter;
  readonly #rows: Rows<Task>;
  readonly #empty = make("p", { class: "empty" }, "No task yet. Drop a .wasm file anywhere on this page, or choose one.");
  readonly #table: HTMLElement;
  #tasks = new Map<string, Task>();

  constructor(painter: Painter, now: () => number, ...actions: Node[]) {
    this.#painter = painter;
    this.#rows = new Rows((task) => new TaskLine(task, now));
    const columns = ["Status", "Task", ["Runs", "wide"], ["Runs/s", "number"], "Kind", ["Submitted", "number"]] as const;
    this.#table = table("Tasks, newest first", columns.map((each) => each as string | [string, string]), this.#rows.element, "tasks");
    this.element = make("section", { class: "panel", "aria-labelledby": "tasks-title" },
      make("header", {}, make("h2", { id: "tasks-title" }, "Tasks"), make("div", { class: "actions" }, ...actions)),
      this.#table, this.#empty); // prettier-ignore
    this.#paint();
  }

  get running(): number {
    return [...this.#tasks.values()].filter((task) => !ENDED.has(task.status)).length;
  }

  /** Take what was told: all there is, or what changed. Returns those that have ended since they were told last. */
  told(tasks: Task[], isAll: boolean): Task[] {
    const ended = tasks.filter((task) => ENDED.has(task.status) && !ENDED.has(this.#tasks.get(task.id)?.status ?? task.status));
    this.#tasks = newest(isAll ? new Map() : this.#tasks, tasks);
    this.changed();
    return ended;
  }

  changed(): void {
    this.#painter.ask(this.#paint);
  }

  readonly #paint = (): void => {
    const tasks = [...this.#tasks.values()];
    this.#table.hidden = !tasks.length;
    this.#empty.hidden = tasks.length > 0;
    this.#rows.show(tasks, (task) => task.id);
  };
}

class TaskLine implements Row<Task> {
  readonly element: HTMLTableRowElement;
  readonly #status = new StatusMark();
  readonly #link: HTMLAnchorElement;
  readonly #about = make("span", { class: "about" });
  readonly #progress: Progress;
  readonly #speed = make("td", { class: "number" });
  readonly #kind = make("td", { class: "faint" });
  readonly #age = make("td", { class: "number faint" });
  readonly #now: () => number;

  constructor(task: Task, now: () => number) {
    this.#now = now;
    this.#link = make("a", { href: hashOf({ task: task.id, run: null }), "data-row": "", tabindex: -1 }, taskTitle(task));
    this.#progress = new Progress(`Runs of ${taskTitle(task)}`);
    this.element = make("tr", {}, make("td", {}, this.#status.element), make("th", { scope: "row" }, this.#link, this.#about),
      make("td", { class: "wide" }, this.#progress.element), this.#speed, this.#kind, this.#age); // prettier-ignore
  }

  update(task: Task): void {
    const isOpen = !ENDED.has(task.status);
    this.#status.set(task.status);
    setText(this.#link, taskTitle(task));
    setText(this.#about, task.reason ?? task.description);
    setAttribute(this.#about, "title", task.reason ?? task.description);
    this.#progress.set(task);
    setText(this.#speed, isOpen && task.throughput ? figure(task.throughput) : "");
    setText(this.#kind, task.batch ? `${task.kind}, batch` : task.kind);
    setText(this.#age, ago(this.#now() - Date.parse(task.created_at) / 1000));
  }
}
