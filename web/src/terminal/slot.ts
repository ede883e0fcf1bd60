// Entry of the thread that is one slot of a terminal's worker: a Web Worker in Deno, worker_threads in Node.

import { serve } from "../sandbox/executor";

if ("Deno" in globalThis) {
  serve({
    post: (message, transfer) => postMessage(message, { transfer: transfer ?? [] }),
    onMessage: (hear) => {
      onmessage = (event: MessageEvent) => hear(event.data);
    },
  });
} else {
  const { parentPort } = await import("node:worker_threads");
  serve({
    post: (message, transfer) => parentPort?.postMessage(message, (transfer ?? []) as never[]),
    onMessage: (hear) => parentPort?.on("message", hear),
  });
}
