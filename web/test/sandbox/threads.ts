// Slots' threads in Node, for tests: how they are built.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Bundles what a slot's thread runs; returns where it is. */
export async function bundledSlot(): Promise<string> {
  const { build } = await import("vite");
  const outDir = mkdtempSync(join(tmpdir(), "ww-web-"));
  await build({ configFile: new URL("vite.config.ts", import.meta.url).pathname, build: { outDir } });
  return join(outDir, "slot.mjs");
}
