// The live page's logic: cells of runs, where a chart's points lie, what the address names, what a form sends.
import { expect, test } from "vitest";
import { Cells } from "../../src/pages/live/cells";
import { hashOf, routeOf } from "../../src/pages/live/route";
import { ceiling, line, nearest, under, type Area } from "../../src/pages/live/scale";
import { formOf, linesOf, sizeOf, type Draft } from "../../src/pages/live/submission";

test("cells are counted as they are put, and what is beyond the last is left out", () => {
  const cells = new Cells(10, 1, "4s1f2r3.");
  expect([...cells.counts]).toEqual([3, 0, 2, 4, 1, 0]);
  cells.put(5, "2s");
  cells.put(8, "5c");
  cells.put(100, "5f");
  expect([...cells.counts]).toEqual([1, 0, 0, 6, 1, 2]);
  expect(cells.state(4)).toBe("failed");
  expect(cells.next(-1, "failed")).toBe(4);
  expect(cells.next(4, "failed")).toBe(4);
  expect(cells.next(9, "cancelled")).toBe(8);
  expect(cells.next(0, "running")).toBe(-1);
});

test("a cell may stand for several runs, the last for fewer", () => {
  const cells = new Cells(250_001, 3, "83334s");
  expect(cells.count).toBe(83_334);
  expect(cells.runs(0)).toEqual([0, 2]);
  expect(cells.runs(83_333)).toEqual([249_999, 250_000]);
  expect(() => new Cells(100_001, 1, "")).toThrow("more than 100000");
});

test.each(["s", "4x", "4s-1s", "1e3s", "4s\n"])("what are no cells is refused: %j", (text) => {
  expect(() => new Cells(10, 1, text)).toThrow("expected a count");
});

const AREA: Area = { width: 100, height: 10, from: 0, to: 10, top: 5 };

test("a line breaks where there is nothing, and what lies under it is closed", () => {
  expect(line(AREA, [[-1, 5], [0, 0], [5, 5], [6, null], [10, 50]])).toBe("M0.0 10.0L50.0 0.0M100.0 0.0"); // prettier-ignore
  expect(under(AREA, [[0, 0], [10, 5]])).toBe("M0.0 10.0L0.0 10.0L100.0 0.0L100.0 10.0Z"); // prettier-ignore
  expect(under(AREA, [[0, 1]])).toBe("");
});

test("a chart's top is a round number that nothing is above of", () => {
  expect([0, 0.3, 1, 1.1, 2.1, 3, 7, 10, 2500, NaN].map((value) => ceiling(value, 1))).toEqual([1, 1, 1, 2, 2.5, 5, 10, 10, 2500, 1]);
  expect([[], [1], [1, 2, 10]].map((times) => nearest(times, 5))).toEqual([-1, 0, 1]);
});

test.each([
  ["#", { task: null, run: null }],
  ["#task=abc", { task: "abc", run: null }],
  ["#task=abc&run=12", { task: "abc", run: 12 }],
  ["#task=a%26run%3D1", { task: "a&run=1", run: null }],
])("an address names a view, and a view its address: %s", (hash, route) => {
  expect(routeOf(hash)).toEqual(route);
  expect(hashOf(route)).toBe(hash);
});

test("a run is of a task, and a number", () => {
  expect(routeOf("#run=1")).toEqual({ task: null, run: null });
  expect(routeOf("#task=a&run=-1")).toEqual({ task: "a", run: null });
});

const EMPTY: Draft = {
  module: "sha256:00", name: "", description: "", entry: "", input: "", difficulty: "", args: "", env: "", labels: "", stdin: "",
  stdinFile: null, repeats: "", duration: "", memory: "", priority: "", deterministic: false, seed: "", replicas: "", quorum: "",
}; // prettier-ignore

test("what is left empty is the gateway's default; what is not goes as it was typed", () => {
  expect([...formOf({ ...EMPTY, seed: "7" })]).toEqual([["module", "sha256:00"]]);
  const draft = { ...EMPTY, args: "a\n\n b \n", env: "A=1\n\n", memory: "64 MiB", deterministic: true, seed: "7", replicas: " 3 ", quorum: "many" };
  expect([...formOf(draft)]).toEqual([
    ["module", "sha256:00"], ["replicas", "3"], ["quorum", "many"], ["args", "a"], ["args", ""], ["args", " b "], ["env", "A=1"],
    ["memory", "67108864"], ["deterministic", "true"], ["seed", "7"],
  ]); // prettier-ignore
});

test("sizes are bytes or have a unit, lines end as they do anywhere", () => {
  expect(["1048576", "64M", "64 MiB", "1.5 GiB", "3kb", "7b"].map(sizeOf)).toEqual([2 ** 20, 2 ** 26, 2 ** 26, 1.5 * 2 ** 30, 3072, 7]);
  expect(() => sizeOf("-1")).toThrow("no size");
  expect(() => sizeOf("64 TiB")).toThrow("no size");
  expect(linesOf("a\r\n\r\nb\r\n\r\n")).toEqual(["a", "", "b"]);
  expect(linesOf("")).toEqual([]);
});
