import { describe, expect, test, vi } from "vitest";

import { Writer } from "../../src/sandbox/binary";
import { Failure } from "../../src/sandbox/failure";
import { ModuleInfo } from "../../src/sandbox/inspect";
import { DEFAULTS } from "../../src/sandbox/limits";
import { hex, Modules } from "../../src/sandbox/modules";
import { rewritten } from "../../src/sandbox/rewrite";
import { MemoryStore } from "../../src/sandbox/store";
import { digestOf, guest, guests, source } from "./guests";

const HASH = guest("hash");

describe("modules", () => {
  test("two who want one module share its fetching and its compiling", async () => {
    const { asked, fetch } = source(HASH);
    const modules = new Modules(new MemoryStore(), DEFAULTS);
    const [one, other] = await Promise.all([1, 2].map(() => modules.prepare(digestOf(HASH), fetch, false)));
    expect(one!.module).toBe(other!.module);
    expect((await modules.prepare(digestOf(HASH), fetch, false)).compileS).toBe(0);
    expect(asked.times).toBe(1);
  });

  test("who shares the fetching with one that gave up fetches itself", async () => {
    let giveUp: (error: Error) => void = () => undefined;
    const never = async function* (): AsyncGenerator<Uint8Array> {
      yield await new Promise<Uint8Array>((_, reject) => (giveUp = reject));
    };
    const modules = new Modules(new MemoryStore(), DEFAULTS);
    const gaveUp = expect(modules.prepare(digestOf(HASH), never, false)).rejects.toThrow("given up");
    const other = modules.prepare(digestOf(HASH), source(HASH).fetch, false);
    await vi.waitFor(() => {
      giveUp(new Error("given up"));
      expect(modules.kept.modules).toBe(1);
    });
    await Promise.all([gaveUp, other]);
  });

  test("bytes that are not what the digest names are refused and not kept", async () => {
    const store = new MemoryStore();
    const modules = new Modules(store, DEFAULTS);
    const wrong = guest("noop");
    await expect(modules.prepare(digestOf(HASH), source(wrong).fetch, false)).rejects.toThrow("sha256");
    await modules.prepare(digestOf(HASH), source(HASH).fetch, false);
    expect(await store.get(hex(digestOf(HASH)))).toEqual(HASH);
  });

  test("what was kept and went bad is dropped and fetched again", async () => {
    const store = new MemoryStore();
    await store.put(hex(digestOf(HASH)), HASH.slice(0, -1));
    const { asked, fetch } = source(HASH);
    await new Modules(store, DEFAULTS).prepare(digestOf(HASH), fetch, false);
    expect(asked.times).toBe(1);
    await new Modules(store, DEFAULTS).prepare(digestOf(HASH), fetch, false);
    expect(asked.times).toBe(1);
  });

  test("a module that is too large is not read to its end", async () => {
    const modules = new Modules(new MemoryStore(), { ...DEFAULTS, moduleBytesMax: 100 });
    const failing = modules.prepare(digestOf(HASH), source(HASH, 60).fetch, false);
    await expect(failing).rejects.toMatchObject({ code: "usage" });
  });

  test("what does not compile is a bad module, in one line, and is tried again", async () => {
    const cut = HASH.slice(0, -400);
    const modules = new Modules(new MemoryStore(), DEFAULTS);
    for (let times = 0; times < 2; times++) {
      const error: unknown = await modules.prepare(digestOf(cut), source(cut).fetch, false).catch((said: unknown) => said);
      expect(error).toBeInstanceOf(Failure);
      expect(error).toMatchObject({ code: "bad_module", message: expect.stringMatching(/^wasm: .+$/) as string });
    }
  });

  test("few are fetched at a time, whatever is asked for; one that never comes takes the place of no more than one", async () => {
    const modules = new Modules(new MemoryStore(), DEFAULTS);
    const begun: (() => void)[] = [];
    const fetch = async function* () {
      await new Promise<void>((resolve) => begun.push(resolve));
      yield HASH;
    };
    const wrong = Array.from({ length: 9 }, (_, index) => modules.prepare(new Uint8Array(32).fill(index), fetch, false));
    const failed = Promise.allSettled(wrong);
    await vi.waitFor(() => expect(begun.length).toBe(4));
    begun[1]!();
    await expect(wrong[1]).rejects.toThrow("sha256");
    await vi.waitFor(() => expect(begun.length).toBe(5));
    for (let next = 0; next < 9; next++) {
      await vi.waitFor(() => expect(begun.length).toBeGreaterThan(next));
      begun[next]!();
    }
    expect((await failed).map(({ status }) => status)).toEqual(Array(9).fill("rejected"));
    await modules.prepare(digestOf(HASH), source(HASH).fetch, false);
  });

  test("of compiled modules as many are kept as fit", async () => {
    const modules = new Modules(new MemoryStore(), { ...DEFAULTS, modulesMax: 2 });
    for (const name of ["hash", "noop", "spin", "echo"]) {
      await modules.prepare(digestOf(guest(name)), source(guest(name)).fetch, false);
    }
    expect(modules.kept.modules).toBe(2);
  });
});

test("a store keeps its bound and forgets what was not used for longest", async () => {
  const store = new MemoryStore(250);
  for (const name of ["a", "b"]) {
    await store.put(name, new Uint8Array(100));
  }
  await store.get("a");
  await store.put("c", new Uint8Array(100));
  expect([await store.get("a"), await store.get("b"), await store.get("c")].map((found) => found !== null)).toEqual([
    true,
    false,
    true,
  ]);
});

test("every guest that is valid stays so when it is rewritten, and takes its memory from outside", async () => {
  const known = guests().filter(([, data]) => WebAssembly.validate(data));
  expect(known.length).toBeGreaterThan(20);
  for (const [name, data] of known) {
    const info = new ModuleInfo(data);
    for (const metered of [false, true]) {
      const module = new WebAssembly.Module(await rewritten(info, metered));
      const memories = WebAssembly.Module.imports(module).filter(({ kind }) => kind === "memory");
      expect(memories.length, name).toBe(info.memories.length);
    }
  }
});

/** A module of one function, of those locals and instructions. */
function moduleOf(...parts: ArrayLike<number>[]): Uint8Array<ArrayBuffer> {
  const body = new Writer();
  parts.forEach((part) => body.bytes(part));
  const code = new Writer();
  code.number(1);
  code.sized(body.taken());
  const module = new Writer();
  module.bytes([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
  module.bytes([1, 4, 1, 0x60, 0, 0]);
  module.bytes([3, 2, 1, 0]);
  module.section(10, code);
  return module.taken().slice();
}

/** f32.const 1, then so many f32.trunc, and drop. */
const truncating = (times: number) =>
  moduleOf([0, 0x43, 0, 0, 0x80, 0x3f], new Uint8Array(times).fill(0x8f), [0x1a, 0x0b]);

describe.each([false, true])("of instructions, metered: %s,", (metered) => {
  test.each([
    ["catching what ends a guest", [0, 0x02, 0x40, 0x1f, 0x40, 1, 2, 0, 0x0b, 0x0b, 0x0b]],
    ["catching as it was once", [0, 0x06, 0x40, 0x19, 0x0b, 0x0b]],
    ["an atomic one", [0, 0x41, 0, 0xfe, 0x10, 2, 0, 0x1a, 0x0b]],
    ["a null of another kind", [0, 0xd0, 0x6e, 0x1a, 0x0b]],
    // Their types have two bytes: whoever reads one takes the second for an instruction, and the next for its number.
    ["a block of a typed reference", [0, 0x02, 0x63, 0x0c, 0xd0, 0, 0x0b, 0x1a, 0x0b]],
    ["the same, written longer", [0, 0x02, 0xe3, 0x7f, 0x0c, 0xd0, 0, 0x0b, 0x1a, 0x0b]],
    ["a local of a typed reference", [1, 1, 0x63, 0x0c, 0x0b]],
    ["a choice of typed references", [0, 0xd0, 0, 0xd0, 0, 0x41, 0, 0x1c, 1, 0x63, 0x0c, 0x1a, 0x0b]],
  ])("%s is none that a worker runs", async (_, body) => {
    await expect(rewritten(new ModuleInfo(moduleOf(body)), metered)).rejects.toMatchObject({ code: "bad_module" });
  });

  test.each([
    ["blocks of all kinds", [0, 0x02, 0x40, 0x03, 0x7b, 0x00, 0x0b, 0x1a, 0x04, 0x00, 0x00, 0x0b, 0x0b, 0x0b]],
    ["nulls", [0, 0xd0, 0x70, 0x1a, 0xd0, 0x6f, 0x1a, 0x0b]],
    ["a block of a type written longer", [0, 0x02, 0x80, 0x00, 0x0b, 0x0b]],
  ])("%s stay as they are", async (_, body) => {
    expect(Array.from(await rewritten(new ModuleInfo(moduleOf(body)), metered)).slice(-body.length)).toEqual(body);
  });
});

test("code that becomes larger than engines take is refused, and that before it has", async () => {
  expect(WebAssembly.validate(await rewritten(new ModuleInfo(truncating(500_000)), true))).toBe(true);
  for (const times of [600_000, 20_000_000]) {
    await expect(rewritten(new ModuleInfo(truncating(times)), true)).rejects.toThrow(/a function of \d+ bytes/);
  }
});

test("no cut of a module and no changed byte of it makes anything but a failure or what the engine judges", async () => {
  const data = guest("echo");
  const isNoModule = async (bytes: Uint8Array<ArrayBuffer>) => {
    try {
      return !WebAssembly.validate(await rewritten(new ModuleInfo(bytes), true));
    } catch (error) {
      expect(error).toBeInstanceOf(Failure);
      return true;
    }
  };
  for (let end = 0; end < data.length; end += 7) {
    const cut = data.slice(0, end);
    expect(await isNoModule(cut), `cut at ${end}`).toBe(!WebAssembly.validate(cut));
  }
  for (let at = 8; at < data.length; at += 5) {
    const changed = data.slice();
    changed[at] = changed[at]! ^ 0x91;
    await isNoModule(changed);
  }
});
