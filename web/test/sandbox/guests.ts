// Guests and what they are given, for tests.
import { readdirSync, readFileSync } from "node:fs";

import { sha256 } from "@noble/hashes/sha2.js";

import { type Invocation, NO_BYTES } from "../../src/sandbox/invocation";
import { NO_LIMITS } from "../../src/sandbox/limits";

const FOLDER = new URL("../../../wasm/", import.meta.url).pathname;

/** Returns the prebuilt guest of that name. */
export function guest(name: string, file = name): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(`${FOLDER}${name}/${file}.wasm`));
}

/** Returns all that there are, by name. */
export function guests(): [string, Uint8Array<ArrayBuffer>][] {
  const folders = readdirSync(FOLDER, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return folders.flatMap(({ name }) =>
    readdirSync(FOLDER + name)
      .filter((file) => file.endsWith(".wasm"))
      .map((file): [string, Uint8Array<ArrayBuffer>] => [`${name}/${file}`, guest(name, file.slice(0, -5))]),
  );
}

export function invocation(given: Partial<Invocation> = {}): Invocation {
  return {
    entry: "",
    arguments: [],
    args: [],
    env: [],
    stdin: NO_BYTES,
    limits: NO_LIMITS,
    deterministic: false,
    seed: 0n,
    ...given,
  };
}

export const digestOf = (data: Uint8Array): Uint8Array => sha256(data);

/** Gives bytes in pieces, and counts how often it is asked. */
export function source(data: Uint8Array, pieceBytes = 1000) {
  const asked = { times: 0 };
  const fetch = async function* () {
    asked.times++;
    for (let at = 0; at < data.length; at += pieceBytes) {
      yield data.subarray(at, at + pieceBytes);
    }
  };
  return { asked, fetch };
}
