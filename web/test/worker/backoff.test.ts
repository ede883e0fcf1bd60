import { expect, test } from "vitest";
import { Backoff } from "../../src/worker/backoff";

const times = (backoff: Backoff, count: number) => Array.from({ length: count }, () => backoff.next());

test("it doubles up to a limit, and begins anew when it worked", () => {
  const backoff = new Backoff(0.1, 5, () => 1);
  expect(times(backoff, 8)).toEqual([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]);
  backoff.reset();
  expect(backoff.next()).toBe(0.1);
});

test("those that were cut off together come back apart", () => {
  expect(new Backoff(1, 5, () => 0).next()).toBe(0.5);
  expect(new Backoff(1, 5, () => 1).next()).toBe(1);
});
