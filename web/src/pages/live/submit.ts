// The form for a task: a module is dropped or chosen, the gateway says what it is, and what is asked for goes by that. What is
// refused is said beside the field that it names.
import { dialog } from "../page/dialog";
import { make, setAttribute, setText, type Child } from "../page/element";
import { brief, bytes } from "../page/format";
import { type Gateway } from "../page/gateway";
import { Problem, problemFrom } from "../page/problem";
import { formOf, type Draft } from "./submission";
import type { Task } from "./shapes";

interface Module {
  module: string;
  bytes: number;
  kind: string;
  entries: string[];
}

const KINDS: Record<string, string> = {
  function: "functions to call",
  command: "a WASI command (preview 1)",
  component: "a WASI command (component)",
  reactor: "a reactor: one unit of work each run, by stdin and stdout",
  python: "the Python guest: give it work with ww.task",
};

type Control = HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;

export class SubmitForm {
  readonly #gateway: Gateway;
  readonly #done: (task: Task) => void;
  readonly #controls = new Map<string, Control>();
  readonly #messages = new Map<string, HTMLElement>();
  readonly #about = make("p", { class: "module", role: "status" });
  readonly #general = make("p", { class: "problem", role: "alert", hidden: true });
  readonly #button = make("button", { class: "primary", disabled: true }, "Submit");
  readonly #form: HTMLFormElement;
  readonly #element: HTMLDialogElement;
  #module: Module | null = null;

  constructor(gateway: Gateway, done: (task: Task) => void) {
    this.#gateway = gateway;
    this.#done = done;
    this.#form = make("form", { class: "form", novalidate: true }, ...this.#fields());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    this.#element = dialog("Submit a task", "", this.#form);
    this.#element.showModal();
  }

  /** Send a module to the gateway, and say what it is. */
  async take(file: File): Promise<void> {
    this.#say("wasm", "");
    this.#button.disabled = true;
    setText(this.#about, `Sending ${file.name}, ${bytes(file.size)} …`);
    try {
      const headers = { "Content-Type": "application/wasm" };
      const module = await this.#gateway.json<Module>("modules", { method: "POST", headers, body: file });
      this.#module = module;
      setText(this.#about, `${file.name}: ${KINDS[module.kind] ?? module.kind}, ${bytes(module.bytes)}, sha256 ${brief(module.module)}`);
      this.#offer(file, module);
      this.#button.disabled = false;
    } catch (error) {
      setText(this.#about, "");
      this.#say("wasm", problemFrom(error).detail);
    }
  }

  #offer(file: File, module: Module): void {
    const entry = this.#controls.get("entry") as HTMLSelectElement;
    const first = module.entries.includes("run") || module.kind !== "function" ? [["", "as its kind says"]] : [];
    const options = [...first, ...module.entries.map((name) => [name, name])];
    entry.replaceChildren(...options.map(([value, text]) => make("option", { value: value! }, text!)));
    const name = this.#controls.get("name") as HTMLInputElement;
    name.value ||= file.name.replace(/\.wasm$/, "").slice(0, 128);
    setAttribute(this.#form, "data-kind", module.kind);
    for (const number of ["input", "difficulty"].map((each) => this.#controls.get(each)!)) {
      // What was filled in for another module, and is not shown for one of this kind.
      number.value = number.getClientRects().length ? number.value : "";
    }
    name.focus();
  }

  async #submit(): Promise<void> {
    if (!this.#module) {
      this.#say("wasm", "choose a .wasm file first");
      return;
    }
    for (const name of [...this.#messages.keys(), ""]) {
      this.#say(name, "");
    }
    this.#button.disabled = true;
    try {
      const task = await this.#gateway.json<Task>("tasks", { method: "POST", body: formOf(this.#draft(this.#module.module)) });
      this.#element.close();
      this.#done(task);
    } catch (error) {
      const problem = error instanceof RangeError ? new Problem(error.message, 422, "memory") : problemFrom(error);
      this.#say(problem.field, problem.detail);
      this.#button.disabled = false;
    }
  }

  #draft(module: string): Draft {
    const text = (name: string) => this.#controls.get(name)?.value ?? "";
    const names = ["name", "description", "entry", "input", "difficulty", "args", "env", "labels", "stdin", "repeats", "duration", "memory",
      "priority", "seed", "replicas", "quorum"]; // prettier-ignore
    const texts = Object.fromEntries(names.map((name) => [name, text(name)])) as unknown as Draft;
    const file = (this.#controls.get("stdin-file") as HTMLInputElement).files?.[0] ?? null;
    return { ...texts, module, stdinFile: file, deterministic: (this.#controls.get("deterministic") as HTMLInputElement).checked };
  }

  /** Show a problem beside a field; under the form where the field is none of these. */
  #say(field: string, detail: string): void {
    const message = this.#messages.get(field);
    if (!message) {
      setText(this.#general, detail);
      this.#general.hidden = !detail;
      return;
    }
    setText(message, detail);
    message.hidden = !detail;
    const control = this.#controls.get(field);
    if (control) {
      setAttribute(control, "aria-invalid", detail ? "true" : null);
      if (detail) {
        control.closest("details")?.setAttribute("open", "");
        control.focus();
      }
    }
  }

  #fields(): Child[] {
    const file = make("input", { type: "file", accept: ".wasm,application/wasm" });
    file.addEventListener("change", () => file.files?.[0] && void this.take(file.files[0]));
    const number = (placeholder = "") => make("input", { inputmode: "numeric", autocomplete: "off", placeholder });
    const lines = (placeholder: string) => make("textarea", { rows: 2, spellcheck: "false", placeholder });
    const text = () => make("input", { autocomplete: "off", spellcheck: "false" });
    const deterministic = make("input", { type: "checkbox" });
    return [
      this.#field("wasm", "Module", file, "A .wasm file; dropping it anywhere on the page does the same."),
      this.#about,
      row(this.#field("name", "Name", text()), this.#field("description", "Description", text())),
      row(this.#field("entry", "Entry", make("select", {}, make("option", { value: "" }, "as its kind says")), "The exported function to call."),
        this.#field("input", "Input", number()), this.#field("difficulty", "Difficulty", number())),
      row(this.#field("repeats", "Repeats", number("1"), "Number of runs."),
        this.#field("duration", "Duration, s", number("60"), "Of one run at most."),
        this.#field("memory", "Memory", make("input", { placeholder: "256 MiB", autocomplete: "off" }), "Of one run at most.")),
      row(this.#field("args", "Arguments", lines("one a line")),
        this.#field("env", "Environment", lines("NAME=VALUE, one a line"), "Never shown again.")),
      row(this.#field("stdin", "Standard input", make("textarea", { rows: 2, spellcheck: "false" })),
        this.#field("stdin-file", "… or a file", make("input", { type: "file" }))),
      make("details", {}, make("summary", {}, "Where and how it runs"),
        row(this.#field("labels", "Labels of its workers", lines("KEY=VALUE, one a line"), "kind=browser, say."),
          this.#field("priority", "Priority", number("0"), "-100 to 100; higher goes first.")),
        this.#checkbox("deterministic", deterministic, "Deterministic: the same bytes on every worker"),
        row(this.#field("seed", "Seed", number("0")),
          this.#field("replicas", "Replicas", number(), "Workers that do each run."),
          this.#field("quorum", "Quorum", number(), "Of them that must agree.")),
        make("p", { class: "help" }, "Replicas need a deterministic task. With open admission one host may be many peers: quorum cannot stop it.")),
      this.#general,
      make("div", { class: "actions" }, this.#button),
    ]; // prettier-ignore
  }

  #field(name: string, label: string, control: Control, help = ""): HTMLElement {
    control.id = `submit-${name}`;
    const message = make("p", { class: "problem", id: `${control.id}-problem`, hidden: true });
    const described = help ? make("p", { class: "help", id: `${control.id}-help` }, help) : null;
    setAttribute(control, "aria-describedby", `${control.id}-problem${help ? ` ${control.id}-help` : ""}`);
    this.#controls.set(name, control);
    this.#messages.set(name, message);
    return make("div", { class: "field", "data-field": name }, make("label", { for: control.id }, label), control, message, described);
  }

  #checkbox(name: string, control: HTMLInputElement, label: string): HTMLElement {
    const field = this.#field(name, label, control);
    field.classList.add("check");
    field.prepend(control);
    return field;
  }
}

function row(...fields: Child[]): HTMLElement {
  return make("div", { class: "row" }, ...fields);
}

/** Take a .wasm that is dropped anywhere on the page. */
export function takeDrops(take: (file: File) => void): void {
  let depth = 0;
  const shade = make("div", { class: "drop", hidden: true, "aria-hidden": "true" }, make("p", {}, "Drop the module to submit a task"));
  document.body.append(shade);
  const show = (by: number) => {
    depth = Math.max(0, depth + by);
    shade.hidden = depth === 0;
  };
  const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    show(-depth);
    // A file control takes what is dropped on it by itself.
    if (file && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      take(file);
    }
  });
}
