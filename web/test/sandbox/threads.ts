// Slots' threads in Node, for tests: how they are built and started.
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";

import type { SlotPort } from "../../src/sandbox/port";

/** Bundles a file of this folder into one that Node runs; returns where it is. */
export async function bundle(name: string): Promise<string> {
  const { build } = await import("vite");
  const outDir = mkdtempSync(join(tmpdir(), "ww-web-"));
  const entry = new URL(`${name}.ts`, import.meta.url).pathname;
  await build({
    configFile: false,
    logLevel: "error",
    publicDir: false,
    build: {
      outDir,
      minify: false,
      target: "es2022",
      rolldownOptions: { input: entry, external: [/^node:/], output: { entryFileNames: `${name}.mjs` } },
    },
  } as Parameters<typeof build>[0]);
  const made = join(outDir, `${name}.mjs`);
  if (!existsSync(made)) {
    throw new Error(`${name} was not built`);
  }
  return made;
}

/** Starts a thread that runs the bundle. */
export function spawnNode(path: string): SlotPort {
  const worker = new Worker(path);
  worker.unref();
  let isOver = false;
  return {
    post: (message, transfer) => worker.postMessage(message, transfer as never),
    onMessage: (hear) => worker.on("message", (message) => isOver || hear(message)),
    onError: (hear) => {
      worker.on("error", (error) => isOver || hear(String(error.message).split("\n")[0]!));
      worker.on("exit", (code) => isOver || hear(`it exited with ${code}`));
    },
    terminate: () => {
      isOver = true;
      void worker.terminate();
    },
  };
}
