// Bytes of modules by digest, kept beyond this tab's life: in Cache storage where there is one, in memory otherwise.
//
// Holds bounded stores, oldest gone first. Must not know what the bytes are: whoever reads them checks them.

/** Where bytes are kept. It may forget, and it may be wrong. */
export interface ByteStore {
  /** Returns what is kept by that name; null: nothing is. */
  get(name: string): Promise<Uint8Array<ArrayBuffer> | null>;
  /** Keeps bytes, or does not: a store that is full or gone is no failure. */
  put(name: string, data: Uint8Array<ArrayBuffer>): Promise<void>;
  drop(name: string): Promise<void>;
}

export const STORE_BYTES_MAX = 512 << 20;

/** In memory, as long as the process lives. */
export class MemoryStore implements ByteStore {
  readonly #bytesMax: number;
  readonly #kept = new Map<string, Uint8Array<ArrayBuffer>>();
  #bytes = 0;

  constructor(bytesMax = 128 << 20) {
    this.#bytesMax = bytesMax;
  }

  async get(name: string): Promise<Uint8Array<ArrayBuffer> | null> {
    const data = this.#kept.get(name);
    if (!data) {
      return null;
    }
    this.#kept.delete(name);
    this.#kept.set(name, data);
    return data;
  }

  async put(name: string, data: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.drop(name);
    this.#kept.set(name, data);
    this.#bytes += data.length;
    for (const oldest of this.#kept.keys()) {
      if (this.#bytes <= this.#bytesMax) {
        break;
      }
      await this.drop(oldest);
    }
  }

  async drop(name: string): Promise<void> {
    this.#bytes -= this.#kept.get(name)?.length ?? 0;
    this.#kept.delete(name);
  }
}

/** In the browser's Cache storage, which all tabs of an origin share. */
export class CacheStore implements ByteStore {
  readonly #name: string;
  readonly #bytesMax: number;

  constructor(name = "ww modules", bytesMax = STORE_BYTES_MAX) {
    this.#name = name;
    this.#bytesMax = bytesMax;
  }

  /** Returns one where the page may have it: in a secure context. */
  static orMemory(): ByteStore {
    return typeof caches === "undefined" ? new MemoryStore() : new CacheStore();
  }

  async get(name: string): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.#surely(null, async (cache) => {
      const found = await cache.match(urlOf(name));
      return found ? new Uint8Array(await found.arrayBuffer()) : null;
    });
  }

  async put(name: string, data: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#surely(undefined, async (cache) => {
      await this.#makeRoom(cache, data.length);
      const headers = { "content-type": "application/wasm", "content-length": String(data.length) };
      await cache.put(urlOf(name), new Response(data, { headers }));
    });
  }

  async drop(name: string): Promise<void> {
    await this.#surely(undefined, async (cache) => void (await cache.delete(urlOf(name))));
  }

  /** Drops what came first until there is room for so many bytes. */
  async #makeRoom(cache: Cache, bytes: number): Promise<void> {
    const kept: { request: Request; bytes: number }[] = [];
    for (const request of await cache.keys()) {
      const response = await cache.match(request);
      kept.push({ request, bytes: Number(response?.headers.get("content-length") ?? 0) });
    }
    let total = kept.reduce((sum, each) => sum + each.bytes, bytes);
    for (const each of kept) {
      if (total <= this.#bytesMax) {
        break;
      }
      await cache.delete(each.request);
      total -= each.bytes;
    }
  }

  /** Storage may be full, switched off or taken away at any time. */
  async #surely<T>(otherwise: T, use: (cache: Cache) => Promise<T>): Promise<T> {
    try {
      return await use(await caches.open(this.#name));
    } catch {
      return otherwise;
    }
  }
}

function urlOf(name: string): string {
  return `/ww/modules/${name}`;
}
