// Modules: fetched once, checked, kept as bytes, rewritten and compiled.
//
// Holds who waits for which, and as many compiled ones as fit. Must not know where bytes come from, nor who runs what.
// What is hashed is what came; what is compiled is what rewrite.ts makes of it.

import { sha256 } from "@noble/hashes/sha2.js";

import { type About, aboutOf } from "./about";
import { Failure, lineOf } from "./failure";
import { ModuleInfo } from "./inspect";
import type { SandboxConfig } from "./limits";
import { concatenated } from "./record";
import { rewritten } from "./rewrite";
import type { ByteStore } from "./store";

/** Modules that are made ready at a time: each holds its bytes, and what is made of them. The others wait. */
const MAKING_MAX = 4;

/** Gives a module's bytes, in pieces. */
export type Fetch = () => AsyncIterable<Uint8Array>;

/** A module that is ready to run. */
export interface Prepared {
  /** Its sha256 in hex. */
  readonly name: string;
  readonly metered: boolean;
  readonly module: WebAssembly.Module;
  readonly about: About;
  /** Of what it was compiled from. */
  readonly bytes: number;
  /** Seconds that whoever asked for it has waited for its compiling. */
  readonly compileS: number;
}

export function hex(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Modules {
  readonly #store: ByteStore;
  readonly #config: SandboxConfig;
  readonly #kept = new Map<string, Prepared>();
  readonly #making = new Map<string, Promise<Prepared>>();
  readonly #waiting: (() => void)[] = [];
  #places = MAKING_MAX;
  #bytes = 0;

  constructor(store: ByteStore, config: SandboxConfig) {
    this.#store = store;
    this.#config = config;
  }

  /** How many are kept compiled, and of how many bytes they were made. */
  get kept(): { modules: number; bytes: number } {
    return { modules: this.#kept.size, bytes: this.#bytes };
  }

  /**
   * Has a module ready, reading its bytes when they are not here; once, however many ask at the same time. Throws
   * bad_module when it does not compile or is not what digest names, usage when it is too large here.
   */
  async prepare(digest: Uint8Array, fetch: Fetch, metered: boolean): Promise<Prepared> {
    if (digest.length !== 32) {
      throw new Failure("usage", `digest: ${digest.length} bytes, a sha256 has 32`);
    }
    const name = hex(digest);
    const key = `${name} ${metered}`;
    const known = this.#kept.get(key);
    if (known) {
      this.#kept.delete(key);
      this.#kept.set(key, known);
      return { ...known, compileS: 0 };
    }
    const shared = this.#making.get(key);
    if (shared) {
      try {
        return await shared;
      } catch (error) {
        if (error instanceof Failure) {
          throw error;
        }
        // The other's bytes did not come: it may have given up. Ours may.
        return this.prepare(digest, fetch, metered);
      }
    }
    const making = this.#inTurn(() => this.#make(name, fetch, metered));
    this.#making.set(key, making);
    try {
      return await making;
    } finally {
      this.#making.delete(key);
    }
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#places) {
      this.#places--;
    } else {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      this.#places += next ? 0 : 1;
      next?.();
    }
  }

  async #make(name: string, fetch: Fetch, metered: boolean): Promise<Prepared> {
    const data = await this.#bytesOf(name, fetch);
    const startMs = performance.now();
    const info = new ModuleInfo(data);
    const about = aboutOf(info);
    const code = await rewritten(info, metered);
    const module = await this.#compile(code);
    const compileS = (performance.now() - startMs) / 1000;
    const prepared: Prepared = { name, metered, module, about, bytes: code.length, compileS };
    this.#keep(`${name} ${metered}`, prepared);
    return prepared;
  }

  async #bytesOf(name: string, fetch: Fetch): Promise<Uint8Array<ArrayBuffer>> {
    const kept = await this.#store.get(name);
    if (kept) {
      if (hex(await digestOf(kept)) === name) {
        return kept;
      }
      await this.#store.drop(name);
    }
    const data = await this.#fetched(fetch);
    if (hex(await digestOf(data)) !== name) {
      throw new Failure("bad_module", "the module's bytes are not those that its sha256 names");
    }
    await this.#store.put(name, data);
    return data;
  }

  async #fetched(fetch: Fetch): Promise<Uint8Array<ArrayBuffer>> {
    const most = this.#config.moduleBytesMax;
    const pieces: Uint8Array[] = [];
    let size = 0;
    for await (const piece of fetch()) {
      size += piece.length;
      if (size > most) {
        throw new Failure("usage", `the module: it has more than ${most} bytes, which this worker takes at most`);
      }
      pieces.push(piece);
    }
    return concatenated(pieces);
  }

  /** The engine compiles beside this thread, and cannot be stopped; nobody waits for ever. */
  async #compile(data: Uint8Array<ArrayBuffer>): Promise<WebAssembly.Module> {
    const { compileMaxS } = this.#config;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const tooLong = new Promise<never>((_, reject) => {
      const error = new Failure("bad_module", `compiling took longer than ${compileMaxS} s`);
      timer = setTimeout(() => reject(error), 1000 * compileMaxS);
    });
    try {
      return await Promise.race([WebAssembly.compile(data), tooLong]);
    } catch (error) {
      throw error instanceof Failure ? error : new Failure("bad_module", `wasm: ${saidBy(error)}`);
    } finally {
      clearTimeout(timer);
    }
  }

  #keep(key: string, prepared: Prepared): void {
    this.#kept.set(key, prepared);
    this.#bytes += prepared.bytes;
    const { modulesMax, modulesBytesMax } = this.#config;
    for (const [oldest, { bytes }] of this.#kept) {
      if (this.#kept.size === 1 || (this.#kept.size <= modulesMax && this.#bytes <= modulesBytesMax)) {
        break;
      }
      this.#kept.delete(oldest);
      this.#bytes -= bytes;
    }
  }
}

function saidBy(error: unknown): string {
  return lineOf(error).replace(/^WebAssembly\.\w+\(\):\s*/, "");
}

async function digestOf(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  // Not there in a page that did not come over TLS.
  const subtle = (globalThis.crypto as Crypto | undefined)?.subtle;
  return subtle ? new Uint8Array(await subtle.digest("SHA-256", data)) : sha256(data);
}
