import { describe, expect, test } from "vitest";

import { Failure } from "../../src/sandbox/failure";
import { newResult } from "../../src/sandbox/invocation";
import { concatenated, readInput, readOutcomes, spansOf, writeInput, writeOutcome } from "../../src/sandbox/record";

const TOLD = { memoryLimitBytes: 2 ** 33, queueS: 0.25, compileS: 1.5 };

describe("input records", () => {
  test("what is written of a run is read", () => {
    const given = {
      arguments: [1n, -1n, -(2n ** 63n)],
      args: ["", "żółw 🐢"],
      env: [["K", "v=w"], ["E", ""]] as [string, string][],
      stdin: Uint8Array.of(0, 255),
      seed: 2n ** 64n - 1n,
      name: "named",
    };
    expect(readInput(writeInput(given))).toEqual(given);
    expect([...writeInput({})]).toEqual([1, 0, 0, 0, 0]);
  });

  test("no cut of a record is read, nor anything longer", () => {
    const whole = writeInput({ arguments: [1n], args: ["a"], env: [["b", "c"]], stdin: Uint8Array.of(1), seed: 1n, name: "n" });
    for (let end = 5; end < whole.length; end++) {
      expect(() => readInput(whole, 4, end), `cut at ${end}`).toThrow(Failure);
    }
    expect(() => readInput(concatenated([whole, Uint8Array.of(0)]))).toThrow("another length");
  });

  test("records of a group are counted, and those by reference are empty", () => {
    const data = concatenated([writeInput({}), Uint8Array.of(255, 255, 255, 255), writeInput({ seed: 1n })]);
    expect(spansOf(data, 3)).toEqual([[4, 5], [9, 9], [13, 22]]);
    expect(() => spansOf(data, 2)).toThrow("at most 2 runs");
    expect(() => spansOf(data.subarray(0, 7), 3)).toThrow("cut off");
    expect(() => spansOf(new Uint8Array(4), 3)).toThrow("empty");
  });
});

test("what is written of outcomes is read", () => {
  const ended = {
    ...newResult("exit", "exit code 4294967295"),
    exitCode: 2 ** 32 - 1,
    stdout: Uint8Array.of(1, 2),
    stderr: Uint8Array.of(3),
    stderrCut: true,
    memoryBytes: 2 ** 32,
    wallS: 0.5,
  };
  const returned = { ...newResult(), value: -5n, isFloat: true };
  const records = concatenated([writeOutcome(7, ended, TOLD), writeOutcome(0, returned, TOLD)]);
  expect(readOutcomes(records)).toEqual([
    { ...ended, place: 7, ...TOLD },
    { ...returned, place: 0, ...TOLD },
  ]);
});
