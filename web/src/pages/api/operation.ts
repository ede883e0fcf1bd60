// One operation: its line, and what it takes and answers, made when it is opened first.
import { copyButton } from "../page/copy";
import { make } from "../page/element";
import { curlOf } from "./curl";
import { followed, wordsOf, type Answer, type Content, type Document, type Operation, type Parameter } from "./description";
import { boundsOf, schemaView } from "./schema";
import { typeText } from "./types";

export class OperationView {
  readonly element: HTMLDetailsElement;
  readonly link: HTMLLIElement;
  readonly #words: string;

  constructor(document: Document, operation: Operation) {
    const anchor = `op-${operation.id}`;
    this.#words = wordsOf(document, operation);
    const name = [make("span", { class: "method", "data-method": operation.method }, operation.method), " ", make("code", {}, operation.path)];
    this.element = make("details", { id: anchor, class: "operation" },
      make("summary", {}, make("h3", {}, ...name), " ", make("span", { class: "about" }, operation.summary))); // prettier-ignore
    this.element.addEventListener("toggle", () => this.element.append(bodyOf(document, operation)), { once: true });
    this.link = make("li", {}, make("a", { href: `#${anchor}` }, ...name.map((each) => (typeof each === "string" ? each : each.cloneNode(true)))));
  }

  /** Show it if all of these words are about it. */
  match(words: readonly string[]): boolean {
    const isShown = words.every((word) => this.#words.includes(word));
    this.element.hidden = this.link.hidden = !isShown;
    return isShown;
  }
}

function bodyOf(document: Document, operation: Operation): HTMLElement {
  const curl = curlOf(document, operation, location.origin);
  return make(
    "div",
    { class: "operation-body" },
    operation.description ? make("p", {}, operation.description) : null,
    make("p", { class: "help" }, rightsOf(operation), " ", make("a", { href: `#op-${operation.id}` }, "Link to this")),
    section("Example", make("div", { class: "example" }, make("pre", { tabindex: 0, "aria-label": "curl" }, curl), copyButton(`curl of ${operation.method} ${operation.path}`, () => curl))),
    operation.parameters.length > 0 ? section("Parameters", parametersOf(operation.parameters)) : null,
    Object.keys(operation.body).length > 0 ? section("Body", ...contentOf(document, operation.body)) : null,
    section("Answers", make("ul", { class: "answers" }, ...operation.answers.map(([status, answer]) => answerOf(document, status, answer)))),
  ); // prettier-ignore
}

function rightsOf(operation: Operation): string {
  if (!operation.takesToken) {
    return "No token is asked for.";
  }
  return operation.scopes.length > 0 ? `Takes a token with the scope ${operation.scopes.join(", ")}.` : "Takes a token.";
}

function section(title: string, ...children: Node[]): HTMLElement {
  return make("section", {}, make("h4", {}, title), ...children);
}

function parametersOf(parameters: readonly Parameter[]): HTMLElement {
  return make(
    "ul",
    { class: "members" },
    ...parameters.map((each) =>
      make("li", {},
        make("p", { class: "member" }, make("code", { class: "name" }, each.name), " ",
          make("span", { class: "type" }, `${each.in}, ${typeText(each.schema)}`),
          each.required ? make("span", { class: "required" }, "required") : null, ...(each.schema ? boundsOf(each.schema) : [])),
        each.description ? make("p", {}, each.description) : null),
    ),
  ); // prettier-ignore
}

/** Each type of content, and its schema; the first is open where there are several. */
function contentOf(document: Document, content: Content): HTMLElement[] {
  return Object.entries(content).map(([type, { schema }], index) => {
    if (!schema) {
      return make("p", {}, make("code", {}, type));
    }
    const details = make("details", { open: index === 0 }, make("summary", {}, make("code", {}, type)));
    const fill = () => details.append(schemaView(document, schema));
    if (index === 0) {
      fill();
    } else {
      details.addEventListener("toggle", fill, { once: true });
    }
    return details;
  });
}

function answerOf(document: Document, status: string, answer: Answer): HTMLElement {
  const headers = Object.entries(answer.headers ?? {});
  const told = headers.map(([name, header]) => `${name}: ${followed(document, header)?.description ?? ""}`);
  const content = Object.entries(answer.content ?? {}).map(([type, { schema }]) => {
    const title = make("summary", {}, make("code", {}, type), schema ? ` ${typeText(schema)}` : "");
    if (!schema) {
      return make("p", {}, make("code", {}, type));
    }
    const details = make("details", {}, title);
    details.addEventListener("toggle", () => details.append(schemaView(document, schema)), { once: true });
    return details;
  });
  return make("li", {},
    make("p", {}, make("code", { class: "answer", "data-kind": status[0] }, status), " ", answer.description ?? ""),
    ...content,
    told.length > 0 ? make("details", {}, make("summary", {}, "headers"), make("ul", { class: "headers" }, ...told.map((each) => make("li", {}, each)))) : null); // prettier-ignore
}
