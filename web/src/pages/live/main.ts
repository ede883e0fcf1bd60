// The live page: which view is shown goes by the address. Puts the parts together; what each shows is in its own module.
import { copyButton } from "../page/copy";
import { askToken } from "../page/dialog";
import { make, setAttribute, setText } from "../page/element";
import { brief, span } from "../page/format";
import { frame } from "../page/frame";
import { Gateway } from "../page/gateway";
import { Painter } from "../page/painter";
import type { StreamState } from "../page/stream";
import { ClusterView } from "./cluster";
import { showResult } from "./result";
import { hashOf, routeOf, type Route } from "./route";
import type { Hello, Task } from "./shapes";
import { SubmitForm, takeDrops } from "./submit";
import { TaskView } from "./task";

const WORDS: Record<StreamState, string> = {
  connecting: "connecting", live: "live", reconnecting: "reconnecting", ended: "ended", refused: "refused",
}; // prettier-ignore

class LivePage {
  readonly #gateway = new Gateway(askToken);
  readonly #painter = new Painter();
  readonly #peer = make("span", { class: "id" });
  readonly #namespace = make("span", { class: "namespace" });
  readonly #uptime = make("span");
  readonly #link = make("span", { class: "link", "data-link": "connecting", role: "status" }, WORDS.connecting);
  readonly #frame = frame("Live", this.#namespace, this.#peer, this.#uptime, this.#link);
  readonly #cluster: ClusterView;
  #hello: Hello | null = null;
  #isLive = false;
  #task: TaskView | null = null;
  #result: HTMLDialogElement | null = null;
  #route: Route = { task: null, run: null };

  constructor() {
    const choose = make("button", { type: "button", class: "primary small", onclick: () => this.#submit(null) }, "Submit a task");
    const seen = { hello: (hello: Hello) => this.#seen(hello), state: (state: StreamState, detail: string) => this.#linked(state, detail) };
    this.#cluster = new ClusterView(this.#gateway, this.#painter, this.#frame.announcer, seen, choose);
    this.#frame.main.append(this.#cluster.element);
    addEventListener("hashchange", () => this.#go(routeOf(location.hash)));
    takeDrops((file) => this.#submit(file));
    setInterval(() => this.#painter.ask(this.#paintHead), 1000);
    this.#go(routeOf(location.hash));
  }

  #go(route: Route): void {
    const isOtherTask = route.task !== this.#route.task;
    const before = this.#route;
    this.#route = route;
    if (isOtherTask) {
      this.#task?.close();
      this.#task?.element.remove();
      this.#task = route.task === null ? null : new TaskView(route.task, this.#gateway, this.#painter, this.#frame.announcer);
      this.#cluster.element.hidden = this.#task !== null;
      if (this.#task) {
        this.#frame.main.append(this.#task.element);
        this.#task.title.focus();
        scrollTo(0, 0);
      } else {
        const row = document.querySelector<HTMLElement>(`a[href="${CSS.escape(hashOf({ ...before, run: null }))}"]`);
        (row ?? this.#cluster.element.querySelector("h1"))?.focus();
      }
    }
    this.#result?.close();
    this.#result = route.task !== null && route.run !== null ? this.#openResult(route.task, route.run) : null;
    this.#paintHead();
  }

  #openResult(task: string, run: number): HTMLDialogElement {
    return showResult(this.#gateway, task, run, () => {
      // Closed by the reader, and not by another address: the address is the task's again.
      if (this.#route.task === task && this.#route.run === run) {
        location.hash = hashOf({ task, run: null });
      }
    });
  }

  #submit(file: File | null): void {
    if (document.querySelector("dialog[open]")) {
      return;
    }
    const form = new SubmitForm(this.#gateway, (task: Task) => (location.hash = hashOf({ task: task.id, run: null })));
    if (file) {
      void form.take(file);
    }
  }

  #seen(hello: Hello): void {
    if (hello.gateway !== this.#hello?.gateway) {
      this.#peer.replaceChildren(make("span", { title: hello.gateway }, brief(hello.gateway)), copyButton("the gateway's peer id", () => hello.gateway));
    }
    this.#hello = hello;
    setText(this.#namespace, hello.namespace);
    setAttribute(this.#namespace, "title", `Namespace; ww ${hello.version}`);
    this.#paintHead();
  }

  #linked(state: StreamState, detail: string): void {
    this.#isLive = state === "live";
    setAttribute(this.#link, "data-link", state);
    setAttribute(this.#link, "title", detail);
    setText(this.#link, WORDS[state]);
  }

  readonly #paintHead = (): void => {
    const started = this.#isLive ? this.#hello?.started : undefined;
    setText(this.#uptime, started ? `up ${span(this.#cluster.now() - started)}` : "");
    if (!this.#task) {
      const running = this.#cluster.runningTasks;
      document.title = running ? `${running} running · ww` : "ww";
    }
  };
}

new LivePage();
