// An operation as a line for a shell. Pure: the parts of its path that vary are variables of the shell.
import { followed, type Document, type Operation, type Schema } from "./description";
import { alternatives } from "./types";

const HANDSHAKE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="];
const STREAMS = ["text/event-stream", "application/x-ndjson"];
const FILES: Readonly<Record<string, string>> = { "application/zip": "artifacts.zip", "application/wasm": "module.wasm" };

export function curlOf(document: Document, operation: Operation, origin: string): string {
  const parts = ["curl"];
  const types = operation.answers.flatMap(([status, answer]) => (status.startsWith("2") ? Object.keys(answer.content ?? {}) : []));
  if (operation.method === "HEAD") {
    parts.push("-I");
  } else if (operation.method !== "GET" && !(operation.method === "POST" && Object.keys(operation.body).length > 0)) {
    parts.push("-X", operation.method);
  }
  const isSocket = operation.answers.some(([status]) => status === "101");
  if (isSocket || types.some((type) => STREAMS.includes(type))) {
    parts.push("-N");
  }
  if (isSocket) {
    parts.push("-i", "--http1.1", ...HANDSHAKE.flatMap((line) => ["-H", `'${line}'`]));
  }
  if (operation.takesToken) {
    parts.push("-H", '"Authorization: Bearer $WW_TOKEN"');
  }
  const file = types.map((type) => FILES[type]).find(Boolean);
  if (file && operation.method === "GET") {
    parts.push("-o", file);
  }
  parts.push(...bodyOf(document, operation));
  const path = operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => `$${name.toUpperCase()}`);
  parts.push(path.includes("$") ? `"${origin}${path}"` : `${origin}${path}`);
  return parts.join(" ");
}

function bodyOf(document: Document, operation: Operation): string[] {
  const [type, content] = Object.entries(operation.body)[0] ?? [];
  if (type === undefined) {
    return [];
  }
  if (type !== "multipart/form-data") {
    return ["-H", `'Content-Type: ${type}'`, "--data-binary", "@body"];
  }
  const schema = content?.schema ? followed(document, content.schema) : null;
  const names = [...new Set([...(schema?.required ?? []), ...((schema && alternatives(schema)[0]) ?? [])])];
  return names.flatMap((name) => ["-F", formPart(name, schema?.properties?.[name])]);
}

function formPart(name: string, schema: Schema | undefined): string {
  return schema?.contentMediaType ? `${name}=@${name === "wasm" ? "module.wasm" : name}` : `${name}=${String(schema?.default ?? "VALUE")}`;
}
