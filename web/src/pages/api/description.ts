// An OpenAPI 3.1 document as this page reads it: its operations in groups, with references followed. Pure: knows no element, and
// takes whatever JSON Schema the document uses; what it does not know is shown as it stands.

export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema | boolean;
  readonly additionalProperties?: Schema | boolean;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly [keyword: string]: unknown;
}

interface Reference {
  readonly $ref?: string;
}

export type Content = Readonly<Record<string, { readonly schema?: Schema }>>;

export interface Parameter extends Reference {
  readonly name: string;
  readonly in: string;
  readonly required?: boolean;
  readonly description?: string;
  readonly schema?: Schema;
}

export interface Answer extends Reference {
  readonly description?: string;
  readonly headers?: Readonly<Record<string, { readonly $ref?: string; readonly description?: string; readonly schema?: Schema }>>;
  readonly content?: Content;
}

interface Body extends Reference {
  readonly required?: boolean;
  readonly content?: Content;
}

interface Described {
  readonly operationId?: string;
  readonly summary?: string;
  readonly description?: string;
  readonly tags?: readonly string[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: Body;
  readonly responses?: Readonly<Record<string, Answer>>;
  readonly security?: readonly Readonly<Record<string, readonly string[]>>[];
}

export interface Document {
  readonly info?: { readonly title?: string; readonly version?: string; readonly description?: string };
  readonly paths?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly components?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly security?: readonly Readonly<Record<string, readonly string[]>>[];
}

export interface Operation {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly summary: string;
  readonly description: string;
  readonly group: string;
  readonly parameters: readonly Parameter[];
  readonly body: Content;
  readonly answers: readonly (readonly [status: string, answer: Answer])[];
  /** The rights it takes; none where no token is asked for. */
  readonly scopes: readonly string[];
  readonly takesToken: boolean;
}

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
const REFERENCES_MAX = 16;
const OF_PAGES = ["text/html", "text/javascript", "*/*"];

/** What a reference within the document stands for; null where it points nowhere, or in a circle. */
export function followed<Value extends object>(document: Document, value: Value & Reference): Value | null {
  let found: unknown = value;
  for (let count = 0; count < REFERENCES_MAX; count++) {
    const reference = (found as Reference).$ref;
    if (typeof reference !== "string") {
      return found as Value;
    }
    found = at(document, reference);
    if (typeof found !== "object" || found === null) {
      return null;
    }
  }
  return null;
}

function at(document: Document, reference: string): unknown {
  if (!reference.startsWith("#/")) {
    return undefined;
  }
  let place: unknown = document;
  for (const word of reference.slice(2).split("/")) {
    const name = decodeURIComponent(word).replaceAll("~1", "/").replaceAll("~0", "~");
    place = typeof place === "object" && place !== null && Object.hasOwn(place, name) ? (place as Record<string, unknown>)[name] : undefined;
  }
  return place;
}

/** The name of what is referred to: "Task" of "#/components/schemas/Task". */
export function nameOf(reference: string): string {
  return reference.split("/").at(-1) ?? reference;
}

/** All operations, in the document's order. */
export function operationsOf(document: Document): Operation[] {
  const found: Operation[] = [];
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const method of METHODS) {
      const described = item[method];
      if (typeof described === "object" && described !== null) {
        found.push(operation(document, path, method, described as Described, (item.parameters ?? []) as Parameter[]));
      }
    }
  }
  return found;
}

function operation(document: Document, path: string, method: string, described: Described, shared: readonly Parameter[]): Operation {
  const answers = Object.entries(described.responses ?? {}).map(
    ([status, answer]) => [status, followed(document, answer) ?? { description: answer.$ref ?? "" }] as const,
  );
  const security = described.security ?? document.security ?? [];
  const body = described.requestBody ? followed(document, described.requestBody) : null;
  return {
    id: described.operationId ?? `${method}${path.replaceAll(/[^A-Za-z0-9]+/g, "_")}`,
    method: method.toUpperCase(),
    path,
    summary: described.summary ?? "",
    description: described.description ?? "",
    group: described.tags?.[0] ?? groupOf(path, answers),
    parameters: [...shared, ...(described.parameters ?? [])].flatMap((each) => followed(document, each) ?? []),
    body: body?.content ?? {},
    answers,
    scopes: [...new Set(security.flatMap((each) => Object.values(each).flat()))],
    takesToken: security.length > 0 && !security.some((each) => Object.keys(each).length === 0),
  };
}

/** A document without tags: what the path is of. */
function groupOf(path: string, answers: Operation["answers"]): string {
  if (path.startsWith("/tasks")) {
    return "Tasks";
  }
  if (path.startsWith("/modules")) {
    return "Modules";
  }
  const types = answers.flatMap(([, answer]) => Object.keys(answer.content ?? {})).filter((type) => !type.includes("problem"));
  return types.length > 0 && types.every((type) => OF_PAGES.includes(type)) ? "Pages" : "Cluster and gateway";
}

/** Operations by group, groups in the order in which they come first. */
export function grouped(operations: readonly Operation[]): [string, Operation[]][] {
  const groups = new Map<string, Operation[]>();
  for (const each of operations) {
    groups.set(each.group, [...(groups.get(each.group) ?? []), each]);
  }
  return [...groups].sort(([one], [other]) => Number(one === "Pages") - Number(other === "Pages"));
}

/** All that the search looks at, in lower case. */
export function wordsOf(document: Document, each: Operation): string {
  const members = Object.values(each.body).flatMap(({ schema }) => Object.keys((schema && followed(document, schema)?.properties) ?? {}));
  const parameters = each.parameters.map((parameter) => parameter.name);
  return [each.method, each.path, each.summary, each.description, each.group, ...parameters, ...members].join(" ").toLowerCase();
}
