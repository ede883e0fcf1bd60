// The page of the HTTP interface: the gateway's own OpenAPI document, rendered here, and in words what no such document says.
import { askToken } from "../page/dialog";
import { make, setText } from "../page/element";
import { plural } from "../page/format";
import { frame } from "../page/frame";
import { Gateway } from "../page/gateway";
import { problemFrom } from "../page/problem";
import { grouped, operationsOf, type Document } from "./description";
import { OperationView } from "./operation";
import { streamSections } from "./streams";

const DOCUMENT = "openapi.json";

/** A heading, what stands under it, and the links to that. */
interface Group {
  readonly element: HTMLElement;
  readonly links: HTMLElement;
  /** Show what all of these words are about; how many that are. */
  match(words: readonly string[]): number;
}

class ApiPage {
  readonly #gateway = new Gateway(askToken);
  readonly #version = make("span", {});
  readonly #frame = frame("API", this.#version);
  readonly #found = make("p", { class: "help", role: "status" });
  readonly #search = make("input", { id: "search", type: "search", autocomplete: "off", spellcheck: "false", placeholder: "path, field or word" });
  readonly #views: OperationView[] = [];
  #groups: Group[] = [];

  async load(): Promise<void> {
    this.#frame.main.replaceChildren(make("p", { class: "faint", role: "status" }, "Asking the gateway for its description…"));
    try {
      this.#show(await this.#gateway.json<Document>(DOCUMENT));
    } catch (error) {
      const again = make("button", { type: "button", onclick: () => void this.load() }, "Try again");
      this.#frame.main.replaceChildren(
        make("h1", {}, "HTTP interface"),
        make("p", { class: "problem", role: "alert" }, `The description cannot be shown: ${problemFrom(error).detail}`),
        make("div", { class: "actions" }, again),
      );
    }
  }

  #show(document: Document): void {
    const operations = grouped(operationsOf(document));
    this.#views.length = 0;
    this.#groups = [...operations.map(([name, each]) => this.#group(name, each.map((one) => new OperationView(document, one)))), streamGroup()];
    setText(this.#version, document.info?.version ? `ww ${document.info.version}` : "");
    const open = make("button", { type: "button", class: "small", onclick: () => this.#openAll(true) }, "Open all");
    const close = make("button", { type: "button", class: "small", onclick: () => this.#openAll(false) }, "Close all");
    this.#frame.main.replaceChildren(
      make("div", { class: "api" },
        make("div", { class: "api-side" },
          make("search", {}, make("label", { for: "search" }, "Search"), this.#search, this.#found),
          make("nav", { "aria-label": "Operations" }, ...this.#groups.map((each) => each.links))),
        make("div", { class: "api-body" },
          make("div", { class: "task-head" }, make("h1", {}, "HTTP interface"),
            make("div", { class: "actions" }, make("a", { href: DOCUMENT }, "openapi.json"), open, close)),
          make("p", { class: "description" }, document.info?.description ?? ""),
          ...this.#groups.map((each) => each.element)))); // prettier-ignore
    this.#search.addEventListener("input", () => this.#filter());
    addEventListener("hashchange", () => this.#go());
    this.#filter();
    this.#go();
  }

  #group(name: string, views: OperationView[]): Group {
    this.#views.push(...views);
    const element = make("section", { class: "group", "aria-label": name }, make("h2", {}, name), ...views.map((each) => each.element));
    const links = make("div", {}, make("h2", {}, name), make("ul", {}, ...views.map((each) => each.link)));
    const match = (words: readonly string[]) => hideEmpty(element, links, views.filter((each) => each.match(words)).length);
    return { element, links, match };
  }

  #filter(): void {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.#groups.reduce((sum, each) => sum + each.match(words), 0);
    setText(this.#found, words.length === 0 ? plural(this.#views.length, "operation") : found ? `${found} found` : "Nothing found");
  }

  #openAll(isOpen: boolean): void {
    for (const view of this.#views) {
      view.element.open = isOpen;
    }
  }

  #go(): void {
    const target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
    if (!target) {
      return;
    }
    if (target.closest("[hidden]")) {
      this.#search.value = "";
      this.#filter();
    }
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
    }
    (target.querySelector("summary") ?? target).focus({ preventScroll: true });
    target.scrollIntoView();
  }
}

function streamGroup(): Group {
  const sections = streamSections();
  const name = "Streams and WebSockets";
  const element = make("section", { class: "group", "aria-label": name }, make("h2", {}, name), ...sections.map((each) => each.element));
  const links = make("div", {}, make("h2", {}, name), make("ul", {}, ...sections.map((each) => each.link)));
  const match = (words: readonly string[]) => {
    const found = sections.filter((each) => {
      const isShown = words.every((word) => each.words.includes(word));
      each.element.hidden = each.link.hidden = !isShown;
      return isShown;
    });
    return hideEmpty(element, links, found.length);
  };
  return { element, links, match };
}

function hideEmpty(element: HTMLElement, links: HTMLElement, count: number): number {
  element.hidden = links.hidden = count === 0;
  return count;
}

void new ApiPage().load();
