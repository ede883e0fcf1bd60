// How figures, times and ids are written.
import { expect, test } from "vitest";
import { ago, brief, bytes, figure, milliseconds, percent, quoted, span, whole } from "../../src/pages/page/format";

const plain = (text: string) => text.replaceAll("\u202f", " ");

test.each([
  [0, "0"],
  [0.123, "0.12"],
  [9.999, "10"],
  [100, "100"],
  [1234, "1 234"],
  [12_345, "12.3k"],
  [4_500_000, "4.5M"],
  [2e9, "2G"],
  [null, "–"],
  [NaN, "–"],
])("a figure: %d is %s", (value, text) => {
  expect(plain(figure(value))).toBe(text);
});

test("whole numbers are in groups of three", () => {
  expect([0, 999, 1000, 1234567].map((value) => plain(whole(value)))).toEqual(["0", "999", "1 000", "1 234 567"]);
});

test("times and sizes have a unit that suits them", () => {
  expect([0.4, 12, 3200, 240_000, null].map((value) => plain(milliseconds(value)))).toEqual(["0.4 ms", "12 ms", "3.2 s", "4 min", "–"]);
  expect([-1, 59, 306, 3600, 273_600].map((value) => plain(span(value)))).toEqual(["0 s", "59 s", "5 min 06 s", "1 h 0 min", "3 d 4 h"]);
  expect([-5, 12, 200, 7200, 1e6].map((value) => plain(ago(value)))).toEqual(["now", "12 s ago", "3 min ago", "2 h ago", "11 d ago"]);
  expect([0, 512, 1536, 5 * 2 ** 30, 2 ** 60].map((value) => plain(bytes(value)))).toEqual(["0 B", "512 B", "1.5 KiB", "5 GiB", "1048576 TiB"]);
});

test("neither all nor nothing is said of what is not quite that", () => {
  expect([[0, 1000], [1, 1000], [500, 1000], [999, 1000], [1000, 1000], [0, 0]].map(([part, of]) => plain(percent(part!, of!)))).toEqual([
    "0 %", "<1 %", "50 %", ">99 %", "100 %", "0 %",
  ]); // prettier-ignore
});

test("ids are short, and words of a shell are one word", () => {
  expect(brief(`sha256:${"ab".repeat(32)}`)).toBe("abab…ababab");
  expect(brief("short")).toBe("short");
  expect(quoted("a/b.c")).toBe("a/b.c");
  expect(quoted("it's $x")).toBe(`'it'\\''s $x'`);
});
