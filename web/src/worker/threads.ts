// Threads of a browser or Deno, as the sandbox uses them.

import type { SlotPort } from "../sandbox/port";

/** Makes a slot's end of a Web Worker. */
export function portOf(worker: Worker): SlotPort {
  return {
    post: (message, transfer) => worker.postMessage(message, transfer ?? []),
    onMessage: (hear) => {
      worker.onmessage = (event: MessageEvent) => hear(event.data);
    },
    onError: (hear) => {
      worker.onerror = (event: ErrorEvent) => {
        // Otherwise Deno ends the whole program.
        event.preventDefault();
        hear(event.message || "its thread ended");
      };
      worker.onmessageerror = () => hear("its thread said what nobody can read");
    },
    terminate: () => worker.terminate(),
  };
}
