// Entry of the Web Worker that is one slot of a tab: it runs guests, and says how they ended.

import { serve } from "../sandbox/executor";

serve({
  post: (message, transfer) => postMessage(message, { transfer: transfer ?? [] }),
  onMessage: (hear) => {
    onmessage = (event: MessageEvent) => hear(event.data);
  },
});
