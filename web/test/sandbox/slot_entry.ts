// The entry of a slot's thread in Node, for tests.
import { parentPort } from "node:worker_threads";

import { serve } from "../../src/sandbox/executor";

serve({
  post: (message, transfer) => parentPort!.postMessage(message, transfer as never),
  onMessage: (hear) => parentPort!.on("message", hear),
});
