// The worker page, as little of it as makes a tab a worker: joins by the address, leaves when the tab goes.
import "../style.css";
import type { PageMessage, VatMessage } from "../../worker/messages";

const fields = new URLSearchParams(location.hash.slice(1));
const vat = new Worker(new URL("../../worker/vat.ts", import.meta.url), { type: "module" });
const tell = (message: PageMessage) => vat.postMessage(message);
const join = () => tell({
  type: "join", url: `${location.protocol.replace("http", "ws")}//${location.host}/peer`, slots: Number(fields.get("slots") ?? 1),
  ticket: fields.get("ticket") ?? undefined,
}); // prettier-ignore
const state = document.createElement("p");
document.body.append(state);
vat.onmessage = (event: MessageEvent<VatMessage>) => {
  if (event.data.type === "state") {
    state.textContent = `${event.data.state} ${event.data.detail ?? ""}`;
  }
};
if (fields.has("autojoin")) {
  join();
  document.addEventListener("resume", join);
}
document.addEventListener("freeze", () => tell({ type: "leave" }));
addEventListener("pagehide", () => {
  tell({ type: "leave" });
  tell({ type: "leave" });
});
