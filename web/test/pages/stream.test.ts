// Server-sent events however they are cut, and how long to wait before coming back.
import { expect, test } from "vitest";
import { EventParser } from "../../src/pages/page/sse";
import { backoff } from "../../src/pages/page/stream";

const TEXT = "\ufeff: comment\r\nevent: sample\r\nid: 7\r\ndata: {\"a\":\r\ndata:1}\r\n\r\ndata\r\rid: a\0b\nretry: 5\ndata: x\n\nevent: lost\n\ndata: cut";
const EVENTS = [
  { type: "sample", data: '{"a":\n1}', id: "7" },
  { type: "message", data: "", id: "7" },
  { type: "message", data: "x", id: "7" },
];

test.each([1, 2, 3, 7, 1000])("events are the same in pieces of %i", (size) => {
  const parser = new EventParser();
  const found = [];
  for (let at = 0; at < TEXT.length; at += size) {
    found.push(...parser.feed(TEXT.slice(at, at + size)));
  }
  expect(found).toEqual(EVENTS);
});

test.each(["data: " + "x".repeat(101), "data: 12345\n".repeat(30)])("an event beyond the limit is an error, not memory", (text) => {
  expect(() => new EventParser(100).feed(text)).toThrow(RangeError);
});

test("many events within the limit are fine, however long the stream is", () => {
  const parser = new EventParser(100);
  for (let count = 0; count < 100; count += 1) {
    expect(parser.feed("data: 1234567890\n\n")).toHaveLength(1);
  }
});

test("coming back waits longer and longer, within bounds, and at least as long as it is told to", () => {
  expect([1, 2, 3, 4].map((attempt) => backoff(attempt, 1))).toEqual([500, 1000, 2000, 4000]);
  expect(backoff(1, 0)).toBe(250);
  expect(backoff(60, 1)).toBe(15_000);
  expect(backoff(5000, 1)).toBe(15_000);
  expect(backoff(1, 1, 30)).toBe(30_000);
});
