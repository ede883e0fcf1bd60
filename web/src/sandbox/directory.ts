// Bytes of modules in a folder, for workers at a terminal.
//
// Holds a bounded store over node:fs, which Deno has too; no page must import it. See store.ts.

import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { type ByteStore, STORE_BYTES_MAX } from "./store";

const SUFFIX = ".wasm";

export class DirectoryStore implements ByteStore {
  readonly #path: string;
  readonly #bytesMax: number;

  constructor(path: string, bytesMax = STORE_BYTES_MAX) {
    this.#path = path;
    this.#bytesMax = bytesMax;
  }

  #file(name: string): string {
    return join(this.#path, `${name}${SUFFIX}`);
  }

  async get(name: string): Promise<Uint8Array<ArrayBuffer> | null> {
    try {
      const data = await readFile(this.#file(name));
      const now = new Date();
      await utimes(this.#file(name), now, now).catch(() => undefined);
      return new Uint8Array(data);
    } catch {
      return null;
    }
  }

  async put(name: string, data: Uint8Array<ArrayBuffer>): Promise<void> {
    const temporary = `${this.#file(name)}.${process.pid}.${Math.random().toString(36).slice(2)}`;
    try {
      await mkdir(this.#path, { recursive: true, mode: 0o700 });
      await this.#makeRoom(data.length);
      await writeFile(temporary, data);
      await rename(temporary, this.#file(name));
    } catch {
      await rm(temporary, { force: true }).catch(() => undefined);
    }
  }

  async drop(name: string): Promise<void> {
    await rm(this.#file(name), { force: true }).catch(() => undefined);
  }

  async #makeRoom(bytes: number): Promise<void> {
    const names = (await readdir(this.#path)).filter((name) => name.endsWith(SUFFIX));
    const kept = await Promise.all(
      names.map(async (name) => {
        const { size, mtimeMs } = await stat(join(this.#path, name));
        return { name, size, mtimeMs };
      }),
    );
    kept.sort((one, other) => one.mtimeMs - other.mtimeMs);
    let total = kept.reduce((sum, each) => sum + each.size, bytes);
    for (const each of kept) {
      if (total <= this.#bytesMax) {
        break;
      }
      await rm(join(this.#path, each.name), { force: true });
      total -= each.size;
    }
  }
}
