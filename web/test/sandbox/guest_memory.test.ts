import { expect, test } from "vitest";

import { GuestMemory } from "../../src/sandbox/guest_memory";
import { GuestEnd } from "../../src/sandbox/trap";

test("of a guest's vectors the first that is not empty counts, and all have to be there, however many", () => {
  const memory = new GuestMemory();
  memory.begin(new WebAssembly.Memory({ initial: 256 }));
  const { view } = memory;
  [0, 0, 7, 0, 64, 5, 128, 9].forEach((value, index) => view.setUint32(4 * index, value, true));
  expect(memory.firstVector(0, 2)).toEqual([0, 0]);
  expect(memory.firstVector(0, 4)).toEqual([64, 5]);
  const all = view.byteLength / 8;
  // As objects, those of a guest with 128 MiB would be a gigabyte.
  expect(memory.firstVector(0, all)).toEqual([64, 5]);
  expect(() => memory.firstVector(0, all + 1)).toThrow(GuestEnd);
  expect(() => memory.firstVector(2, 1)).toThrow(GuestEnd);
});
