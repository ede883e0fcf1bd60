// A JSON Schema as a list of members. What is inside a member is made when it is opened, so that schemas which hold themselves
// end where the reader does.
import { make, type Child } from "../page/element";
import { followed, nameOf, type Document, type Schema } from "./description";
import { alternatives, bounds, typeText } from "./types";

/** Show a schema: its members where it has any, else its type. */
export function schemaView(document: Document, schema: Schema): HTMLElement {
  const inner = followed(document, schema);
  if (!inner) {
    return make("p", { class: "problem" }, `The document has no ${schema.$ref ?? "such schema"}.`);
  }
  const view = make("div", { class: "schema" });
  const name = schema.$ref ? `${nameOf(schema.$ref)}: ` : "";
  view.append(make("p", { class: "type" }, make("code", {}, `${name}${typeText(inner)}`), ...boundsOf(inner)));
  if (inner.description) {
    view.append(make("p", {}, inner.description));
  }
  const needs = alternatives(inner);
  if (needs.length > 0) {
    view.append(make("p", { class: "help" }, `Needed: ${needs.map((set) => set.join(" and ")).join(", or ")}.`));
  }
  view.append(...partsOf(document, inner));
  return view;
}

function partsOf(document: Document, schema: Schema): Node[] {
  const parts: Node[] = [];
  const members = Object.entries(schema.properties ?? {});
  if (members.length > 0) {
    parts.push(make("ul", { class: "members" }, ...members.map(([name, member]) => memberView(document, schema, name, member))));
  }
  for (const choice of [...(schema.oneOf ?? []), ...(schema.anyOf ?? []), ...(schema.allOf ?? [])]) {
    if (choice.$ref || choice.properties) {
      parts.push(opened(document, typeText(choice), choice));
    }
  }
  for (const [word, inner] of [["each", schema.items], ["each member", schema.additionalProperties]] as const) {
    if (typeof inner === "object" && hasParts(inner)) {
      parts.push(opened(document, `${word}: ${typeText(inner)}`, inner));
    }
  }
  return parts;
}

function hasParts(schema: Schema): boolean {
  return Boolean(
    schema.$ref || schema.properties || schema.oneOf || schema.anyOf || schema.allOf ||
    (typeof schema.items === "object" && hasParts(schema.items)) ||
    (typeof schema.additionalProperties === "object" && hasParts(schema.additionalProperties)),
  ); // prettier-ignore
}

function memberView(document: Document, owner: Schema, name: string, schema: Schema): HTMLElement {
  const isRequired = owner.required?.includes(name) ?? false;
  return make(
    "li",
    {},
    make("p", { class: "member" }, make("code", { class: "name" }, name), " ", make("span", { class: "type" }, typeText(schema)),
      isRequired ? make("span", { class: "required" }, "required") : null, ...boundsOf(schema)),
    schema.description ? make("p", {}, schema.description) : null,
    hasParts(schema) ? opened(document, `what ${name} holds`, schema) : null,
  ); // prettier-ignore
}

/** What is made when it is opened for the first time. */
function opened(document: Document, title: string, schema: Schema): HTMLDetailsElement {
  const details = make("details", {}, make("summary", {}, title));
  details.addEventListener("toggle", () => details.append(schemaView(document, schema)), { once: true });
  return details;
}

export function boundsOf(schema: Schema): Child[] {
  const found = bounds(schema);
  return found.length > 0 ? [" ", make("span", { class: "bounds" }, found.join(", "))] : [];
}
