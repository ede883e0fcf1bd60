// A JSON Schema in words: what type it is of, and within which bounds. Pure.
import { nameOf, type Schema } from "./description";

const KEYWORDS: Readonly<Record<string, (value: unknown) => string>> = {
  minimum: (value) => `at least ${number(value)}`,
  exclusiveMinimum: (value) => `above ${number(value)}`,
  maximum: (value) => `at most ${number(value)}`,
  exclusiveMaximum: (value) => `below ${number(value)}`,
  multipleOf: (value) => `a multiple of ${number(value)}`,
  minLength: (value) => `${number(value)} characters or more`,
  maxLength: (value) => `at most ${number(value)} characters`,
  minItems: (value) => `${number(value)} or more`,
  maxItems: (value) => `at most ${number(value)} of them`,
  maxProperties: (value) => `at most ${number(value)} of them`,
  minProperties: (value) => `${number(value)} or more`,
  uniqueItems: (value) => (value ? "no two alike" : ""),
  format: (value) => String(value),
  contentEncoding: (value) => `in ${String(value)}`,
  contentMediaType: (value) => String(value),
  pattern: (value) => `matches ${String(value)}`,
  default: (value) => `default ${JSON.stringify(value)}`,
};

function number(value: unknown): string {
  return typeof value === "number" && Number.isInteger(value) && Math.abs(value) < 2 ** 53
    ? value.toLocaleString("en").replaceAll(",", "\u202f")
    : String(value);
}

/** "string", "integer or null", "array of Task", "one of pull, random". */
export function typeText(schema: Schema | boolean | undefined): string {
  if (schema === undefined || schema === true) {
    return "anything";
  }
  if (schema === false) {
    return "nothing";
  }
  if (schema.$ref) {
    return nameOf(schema.$ref);
  }
  if (schema.const !== undefined) {
    return JSON.stringify(schema.const);
  }
  if (schema.enum) {
    return schema.enum.map((each) => (typeof each === "string" ? each : JSON.stringify(each))).join(" | ");
  }
  const types = schema.type === undefined ? [] : [schema.type].flat();
  if (types.length === 0) {
    const choices = schema.oneOf ?? schema.anyOf;
    return choices ? choices.map(typeText).join(" or ") : schema.properties ? "object" : schema.allOf ? schema.allOf.map(typeText).join(" and ") : "anything";
  }
  return types.map((type) => oneType(type, schema)).join(" or ");
}

function oneType(type: string, schema: Schema): string {
  if (type === "array") {
    return schema.items === undefined ? "array" : `array of ${typeText(schema.items)}`;
  }
  if (type === "object" && !schema.properties && typeof schema.additionalProperties === "object") {
    return `object of ${typeText(schema.additionalProperties)}`;
  }
  return type;
}

/** Bounds, formats and the default, each in a few words. */
export function bounds(schema: Schema): string[] {
  return Object.entries(KEYWORDS).flatMap(([keyword, say]) => {
    const text = schema[keyword] === undefined ? "" : say(schema[keyword]);
    return text ? [text] : [];
  });
}

/** Which of several sets of members have to be there: [["wasm"], ["module"]] where one of these two is needed. */
export function alternatives(schema: Schema): string[][] {
  const choices = schema.anyOf ?? schema.oneOf ?? [];
  const sets = choices.map((each) => each.required ?? []);
  return sets.every((set) => set.length > 0) ? sets.map((set) => [...set]) : [];
}
