import { expect, test } from "vitest";
import { answered, keep, release } from "../../src/rpc";
import { fetchBlob, serveBytes, sizeOf } from "../../src/worker/blob";
import { placesOf } from "../../src/worker/group";

const bytes = (count: number) => Uint8Array.from({ length: count }, (_, at) => (at * 7) % 251);

async function read(blob: ReturnType<typeof serveBytes>, bytesMax: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of fetchBlob(blob, bytesMax)) {
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

test.each([0, 1, 256 << 10, (256 << 10) + 1, 1_500_000])("a blob of %i bytes is read as it is", async (count) => {
  const blob = serveBytes(bytes(count), () => undefined);
  expect(await sizeOf(blob)).toBe(count);
  expect(Buffer.compare(await read(blob, count), bytes(count))).toBe(0);
});

test("one that is larger than it may be is not read", async () => {
  const blob = serveBytes(bytes(11), () => undefined);
  await expect(read(blob, 10)).rejects.toMatchObject({ code: "usage", message: "a blob of 11 bytes: at most 10 are taken" });
});

test("it is served for as long as somebody has it, and not over and over", async () => {
  let released = 0;
  const blob = serveBytes(bytes(1 << 20), () => (released += 1));
  const held = keep(blob);
  const ask = () => answered(blob.read((params) => (params.count = 1 << 20)));
  for (let times = 0; times < 3; times += 1) {
    await ask();
  }
  await expect(ask()).rejects.toMatchObject({ code: "overloaded" });
  await expect(answered(blob.read((params) => (params.count = (1 << 20) + 1)))).rejects.toMatchObject({ code: "usage" });
  const before = released;
  release(held);
  expect(released).toBe(before + 1);
});

test("places of runs are numbers of four bytes", () => {
  expect(placesOf(Uint8Array.of(1, 0, 0, 0, 0, 1, 0, 0))).toEqual([1, 256]);
  expect(placesOf(new Uint8Array())).toEqual([]);
  expect(() => placesOf(Uint8Array.of(1, 0, 0))).toThrow("runs: expected uint32 each");
  expect(() => placesOf(new Uint8Array(4 * 257))).toThrow("no more than a group has");
});
