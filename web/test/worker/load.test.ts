import { expect, test } from "vitest";
import { browserName } from "../../src/worker/browser";
import { Rate } from "../../src/worker/load";

test("a rate is of the last seconds", () => {
  const rate = new Rate();
  expect(rate.note(0, 0)).toBe(0);
  expect(rate.note(100, 1000)).toBe(100);
  for (let atMs = 2000; atMs <= 20_000; atMs += 1000) {
    rate.note(100, atMs);
  }
  expect(rate.note(100, 21_000)).toBe(0);
  expect(rate.note(150, 22_000)).toBeCloseTo(10, 5);
});

test.each([
  ["Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36", "Chrome 156"],
  ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox 140"],
  ["Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 Safari/605.1.15", "Safari 19"],
  ["Mozilla/5.0 (Windows) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0", "Edge 156"],
  ["curl", "browser"],
])("a browser is called by its short name: %s", (userAgent, name) => {
  expect(browserName(userAgent)).toBe(name);
});
