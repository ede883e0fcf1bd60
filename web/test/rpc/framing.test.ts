import * as $ from "capnp-es";
import { describe, expect, it } from "vitest";
import { MessageReader, NoMessage, framed } from "../../src/rpc/framing";
import "../../src/rpc/values";
import { WorkerInfo } from "../../src/schema/worker";

function messageOf(host: string): $.Message {
  const message = new $.Message();
  const info = message.initRoot(WorkerInfo);
  info.host = host;
  const labels = info._initLabels(3);
  for (let place = 0; place < 3; place++) {
    labels.get(place).key = `k${place}`;
    labels.get(place).value = "v".repeat(place * 5000);
  }
  return message;
}

function table(...words: number[]): Uint8Array {
  return new Uint8Array(new Uint32Array(words).buffer);
}

describe("messages in a stream", () => {
  it.each([1, 7, 8, 64, 1 << 20])("come whole when they are cut every %i bytes", (step) => {
    const bytes = [framed(messageOf("one")), framed(messageOf("two"))];
    const reader = new MessageReader();
    const hosts: string[] = [];
    for (const part of bytes) {
      for (let at = 0; at < part.length; at += step) {
        reader.push(part.slice(at, at + step), (message, size) => {
          expect(size).toBe(part.length);
          const info = message.getRoot(WorkerInfo);
          expect(info.labels.map((label) => label.value.length)).toEqual([0, 5000, 10000]);
          hosts.push(info.host);
        });
      }
    }
    expect(hosts).toEqual(["one", "two"]);
  });

  it("are read from several segments, of which some are empty", () => {
    const root = new BigUint64Array([0x0000000000000002n | (1n << 32n)]); // far, to word 0 of segment 1
    const far = new BigUint64Array([(3n << 32n) | 0n, 7n, 8n, 9n]);
    const head = table(3, 1, 4, 0, 0, 0);
    const reader = new MessageReader();
    let slots = -1;
    for (const part of [head, new Uint8Array(root.buffer), new Uint8Array(far.buffer)]) {
      reader.push(part, (message) => (slots = message.getRoot(WorkerInfo).slots));
    }
    expect(slots).toBe(7);
  });

  it.each([
    ["too many segments", table(600, 0)],
    ["too many bytes", table(0, (64 << 20) / 8)],
    ["too many bytes in all", table(1, (32 << 20) / 8, (32 << 20) / 8, 0)],
    ["no root", table(0, 0)],
  ])("are refused: %s", (_, bytes) => {
    expect(() => new MessageReader().push(bytes, () => {})).toThrow(NoMessage);
  });
});
