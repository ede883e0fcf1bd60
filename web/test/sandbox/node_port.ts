// Slots' threads in Node, for tests: how they are started.
import { Worker } from "node:worker_threads";

import type { SlotPort } from "../../src/sandbox/port";

/** A thread that can be made to die. */
export interface NodePort extends SlotPort {
  die(): void;
}

/** Starts a thread that runs the bundle. */
export function spawnNode(path: string): NodePort {
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
    die: () => void worker.terminate(),
    terminate: () => {
      isOver = true;
      void worker.terminate();
    },
  };
}
