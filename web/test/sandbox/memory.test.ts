import { expect, test } from "vitest";
import type { About } from "../../src/sandbox/about";
import { Memories } from "../../src/sandbox/memory";

const PAGE = 65_536;
const about = (minimum: number, maximum = 65_536) => ({ memory: { minimum, maximum } }) as unknown as About;

test("a memory is used again for the next run, and empty", () => {
  const memories = new Memories();
  const first = memories.take(about(1), 4 * PAGE)!;
  new Uint8Array(first.buffer).fill(7);
  memories.giveBack(first);
  const second = memories.take(about(1), 4 * PAGE)!;
  expect(second).toBe(first);
  expect(new Uint8Array(second.buffer).every((byte) => byte === 0)).toBe(true);
  // Not given back yet: a further one is another.
  expect(memories.take(about(1), 4 * PAGE)).not.toBe(first);
});

test("one that has grown, is large, or may grow to another size is not", () => {
  for (const [first, bytesMax, pages] of [[about(1), 4 * PAGE, 1], [about(100), 200 * PAGE, 0], [about(1), 8 * PAGE, 0]] as const) {
    const memories = new Memories();
    const memory = memories.take(first, bytesMax)!;
    memory.grow(pages);
    memories.giveBack(memory);
    expect(memories.take(first, bytesMax === 8 * PAGE ? 4 * PAGE : bytesMax)).not.toBe(memory);
  }
});

test("an engine that has none at the moment is asked again, and one that has none is believed", () => {
  let refusals = 3;
  const waited: number[] = [];
  const make = (bounds: WebAssembly.MemoryDescriptor) => {
    if (refusals-- > 0) {
      throw new RangeError("could not allocate memory");
    }
    return new WebAssembly.Memory(bounds);
  };
  const memories = new Memories(make, (milliseconds) => waited.push(milliseconds));
  expect(memories.take(about(1), PAGE)!.buffer.byteLength).toBe(PAGE);
  expect(waited).toEqual([1, 2, 4]);
  refusals = Infinity;
  expect(() => memories.take(about(2), 2 * PAGE)).toThrow(RangeError);
});
