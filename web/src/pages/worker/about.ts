// What joining does, and what it means for whose browser it is.
import { make } from "../page/element";

const LINES = [
  ["What it does", "This tab runs WebAssembly programs that others gave to this gateway, and sends back what they computed."],
  ["What they cannot reach", "They run in the browser's sandbox: no access to this machine, its files or its network, nor to other pages."],
  ["What it costs you", "Processor time, memory and power for each slot you lend, until you leave or close the tab."],
] as const;

export function about(): HTMLElement {
  const lines = LINES.map(([title, text]) => make("div", {}, make("dt", {}, title), make("dd", {}, text)));
  return make("section", { class: "panel lending", "aria-labelledby": "about-title" },
    make("h1", { id: "about-title" }, "Lend this tab to the cluster"), make("dl", {}, ...lines)); // prettier-ignore
}

/** What those should know who read results that tabs computed. */
export function quorumNote(): HTMLElement {
  return make("p", { class: "help note-below" },
    "To those who use the results: nothing shows that a tab computed what it was given. A quorum of peers (replicas, quorum) finds one that " +
    "answers otherwise than the rest; but it counts keys. Where a gateway admits anybody, it cannot stop one host with many keys."); // prettier-ignore
}
