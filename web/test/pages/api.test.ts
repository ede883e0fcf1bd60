// OpenAPI documents as the page of the HTTP interface reads them: references, also in circles, types in words, lines for a shell.
import { expect, test } from "vitest";
import { curlOf } from "../../src/pages/api/curl";
import { followed, grouped, operationsOf, type Document, type Schema } from "../../src/pages/api/description";
import { alternatives, bounds, typeText } from "../../src/pages/api/types";

const DOCUMENT: Document = {
  security: [{ bearer: ["read"] }],
  paths: {
    "/": { get: { responses: { 200: { content: { "text/html": {} } } }, security: [] } },
    "/tasks": {
      post: {
        requestBody: { content: { "multipart/form-data": { schema: { $ref: "#/components/schemas/Form" } } } },
        responses: { 201: { content: { "application/json": { schema: { $ref: "#/components/schemas/Tree" } } } } },
      },
    },
    "/tasks/{id}/events": {
      parameters: [{ name: "id", in: "path" }],
      get: { responses: { 200: { content: { "text/event-stream": {} } } }, security: [{}, { bearer: [] }] },
    },
    "/ws": { get: { responses: { 101: {} } } },
  },
  components: {
    schemas: {
      Tree: { type: "object", properties: { parent: { $ref: "#/components/schemas/Tree" }, all: { type: "array", items: { $ref: "#/components/schemas/Tree" } } } },
      Here: { $ref: "#/components/schemas/There" },
      There: { $ref: "#/components/schemas/Here" },
      "a/b": { type: "string" },
      Form: {
        required: ["name"],
        anyOf: [{ required: ["wasm"] }, { required: ["module"] }],
        properties: { wasm: { type: "string", contentMediaType: "application/wasm" }, name: { type: "string", default: "x" } },
      },
    },
  },
}; // prettier-ignore

const schema = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });

test("a reference is followed to its end; one that leads nowhere, or in a circle, is none", () => {
  expect(followed(DOCUMENT, schema("a~1b"))).toEqual({ type: "string" });
  for (const name of ["Here", "Nobody", "toString"]) {
    expect(followed(DOCUMENT, schema(name))).toBeNull();
  }
  expect(followed(DOCUMENT, { $ref: "https://elsewhere/x.json" })).toBeNull();
});

test("a schema that holds itself has a type in words", () => {
  const tree = followed(DOCUMENT, schema("Tree"))!;
  expect(typeText(tree)).toBe("object");
  expect(typeText(tree.properties!.parent)).toBe("Tree");
  expect(typeText(tree.properties!.all)).toBe("array of Tree");
});

test("types, bounds and what is needed are said in words", () => {
  expect(typeText({ type: ["integer", "null"] })).toBe("integer or null");
  expect(typeText({ enum: ["pull", "random", null] })).toBe("pull | random | null");
  expect(typeText({ oneOf: [{ type: "string" }, schema("Tree")] })).toBe("string or Tree");
  expect(typeText({ type: "object", additionalProperties: { type: "string" } })).toBe("object of string");
  expect(bounds({ type: "integer", minimum: 0, maximum: 1000, default: 1 })).toEqual(["at least 0", "at most 1\u202f000", "default 1"]);
  expect(alternatives(followed(DOCUMENT, schema("Form"))!)).toEqual([["wasm"], ["module"]]);
});

test("operations become lines for a shell", () => {
  const lines = operationsOf(DOCUMENT).map((each) => curlOf(DOCUMENT, each, "http://h"));
  expect(lines[0]).toBe("curl http://h/");
  expect(lines[1]).toBe('curl -H "Authorization: Bearer $WW_TOKEN" -F name=x -F wasm=@module.wasm http://h/tasks');
  expect(lines[2]).toBe('curl -N "http://h/tasks/$ID/events"');
  expect(lines[3]).toContain("-H 'Upgrade: websocket'");
});

test("pages come last among the groups", () => {
  expect(grouped(operationsOf(DOCUMENT)).map(([name]) => name)).toEqual(["Tasks", "Cluster and gateway", "Pages"]);
});
