// The cluster's view: charts, tasks, workers, members, packets, and the stream that feeds them. It follows the stream also while a
// task is shown in its place, since the head goes by it.
import type { Announcer } from "../page/announcer";
import { make, setText } from "../page/element";
import { clock } from "../page/format";
import type { Gateway } from "../page/gateway";
import type { Painter } from "../page/painter";
import { EventStream, type StreamState } from "../page/stream";
import { Charts } from "./charts";
import { History } from "./history";
import { Packets } from "./packets";
import { Members, Workers } from "./peers";
import { taskTitle, type Hello, type Member, type Packet, type Sample, type Task, type Worker } from "./shapes";
import { Tasks } from "./tasks";

export interface Seen {
  hello(hello: Hello): void;
  state(state: StreamState, detail: string): void;
}

export class ClusterView {
  readonly element: HTMLElement;
  readonly #history = new History();
  readonly #charts: Charts;
  readonly #tasks: Tasks;
  readonly #workers: Workers;
  readonly #members: Members;
  readonly #packets: Packets;
  readonly #announcer: Announcer;
  readonly #seen: Seen;
  readonly #problem = make("p", { class: "problem", role: "alert", hidden: true });
  /** What the gateway's clock is ahead of this one's, in seconds. */
  #ahead = 0;

  constructor(gateway: Gateway, painter: Painter, announcer: Announcer, seen: Seen, submit: Node) {
    this.#announcer = announcer;
    this.#seen = seen;
    this.#charts = new Charts(this.#history, painter);
    this.#tasks = new Tasks(painter, () => this.now(), submit);
    this.#workers = new Workers(painter);
    this.#members = new Members(painter);
    this.#packets = new Packets(painter);
    this.element = make("div", { class: "cluster" }, make("h1", { class: "unseen", tabindex: "-1" }, "The cluster, live"), this.#problem,
      this.#charts.element, this.#tasks.element, this.#workers.element, this.#members.element, this.#packets.element); // prettier-ignore
    new EventStream(gateway, "events", {
      event: (type, data) => this.#event(type, data),
      state: (state, detail) => this.#state(state, detail),
    });
  }

  /** The gateway's time, in seconds since the epoch. */
  now(): number {
    return Date.now() / 1000 + this.#ahead;
  }

  get runningTasks(): number {
    return this.#tasks.running;
  }

  #event(type: string, data: unknown): void {
    switch (type) {
      case "hello":
        this.#hello(data as Hello);
        break;
      case "sample":
        this.#history.add(data as Sample);
        this.#charts.changed();
        this.#tasks.changed(); // ages
        break;
      case "tasks": {
        const { tasks, reset } = data as { tasks: Task[]; reset?: boolean };
        for (const task of this.#tasks.told(tasks, reset ?? false)) {
          this.#announcer.say(`${taskTitle(task)} ${task.status}`);
        }
        break;
      }
      case "workers": {
        const { workers, more } = data as { workers: Worker[]; more?: number };
        this.#workers.told(workers, more ?? 0);
        break;
      }
      case "members": {
        const { members, more } = data as { members: Member[]; more?: number };
        this.#members.told(members, more ?? 0);
        break;
      }
      case "packets": {
        const { packets, more } = data as { packets: Packet[]; more: number };
        this.#packets.told(packets, more);
        break;
      }
    }
  }

  /** What stays on the page while the stream is lost is as old as that. */
  #state(state: StreamState, detail: string): void {
    if (state === "refused") {
      setText(this.#problem, `Not live: ${detail}. Reload the page to be asked again.`);
    } else if (state === "reconnecting" && this.#problem.hidden) {
      setText(this.#problem, `Not live since ${clock(Date.now() / 1000)}: ${detail}. Reconnecting …`);
    }
    this.#problem.hidden = state !== "refused" && state !== "reconnecting";
    this.#seen.state(state, detail);
  }

  #hello(hello: Hello): void {
    this.#ahead = hello.now - Date.now() / 1000;
    this.#history.restart(hello.samples);
    // What this gateway does not tell of, the one before it may have.
    this.#members.told([], 0);
    this.#charts.changed();
    this.#seen.hello(hello);
  }
}
