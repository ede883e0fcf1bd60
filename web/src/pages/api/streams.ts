// What no OpenAPI document describes: what goes over the streams and WebSockets, in few words. The whole of it is docs/http.md.
import { make } from "../page/element";

interface Stream {
  readonly id: string;
  readonly path: string;
  readonly about: string;
  readonly head: readonly [string, string];
  readonly rows: readonly (readonly [string, string])[];
  readonly rest: string;
}

const STREAMS: readonly Stream[] = [
  {
    id: "events",
    path: "/events",
    about: "Server-sent events of the cluster, without an end; each event's data is one JSON object. A reader that comes back begins anew.",
    head: ["event", "data"],
    rows: [
      ["hello", "once: gateway, namespace, version, started, now, and the latest 300 samples"],
      ["sample", "each second: t, ended, failed, running, queued, workers, slots, free, requests; dispatch_p50_ms, dispatch_p95_ms, run_p50_ms, run_p95_ms, or null"],
      ["tasks", "tasks without results, with throughput: the newest 50 with reset: true, then those that changed"],
      ["workers", "all of them, with busy, runs_ended and runs_per_second; more: how many are left out"],
      ["members", "the members of the cluster: peer, role, host, addresses, meta, age_seconds, slots, free, queued"],
      ["packets", "the latest packets of discovery; for who may admin"],
    ],
    rest: "A comment comes every 15 seconds. A reader may miss states in between, never the last one. Of one task: GET /tasks/{id}/events.",
  },
  {
    id: "grid",
    path: "/tasks/{id}/grid",
    about: "Server-sent events of one task: its runs by number, for tasks of any size. Ends when the task has.",
    head: ["event", "data"],
    rows: [
      ["grid", "position, repeats, per_cell, count, cells: all cells. First, and again when very much changed at once"],
      ["patch", "position, cells: [[first, text], ...] that may have changed"],
      ["task", "the task; last with its final status"],
    ],
    rest: "Cells are counts and letters, 120s4r76q: . scheduled, q queued, r running, s succeeded, f failed, c cancelled. Above 100,000 runs, per_cell runs share one.",
  },
  {
    id: "ws",
    path: "/ws",
    about: "A WebSocket of text messages, one JSON object each, with type and a ref that comes back in the answer.",
    head: ["message", "answer"],
    rows: [
      ['{"type": "submit", "ref", "task": {...}, "watch": true}', '{"type": "accepted", "ref", "created", "task"}'],
      ['{"type": "watch", "ref", "id", "after"}', '{"type": "task", "id", "position", "task"} and {"type": "run", "id", "position", "run"}, up to a final status'],
      ['{"type": "unwatch", "id"}', "none"],
      ['{"type": "cancel", "ref", "id"}', '{"type": "cancelled", "ref", "task"}'],
      ['{"type": "ping", "ref"}', '{"type": "pong", "ref"}'],
    ],
    rest: 'A task has the fields of POST /tasks; bytes are stdin_base64, wasm_base64 and files_base64. What is wrong is answered by {"type": "error", "ref", "problem"}, and the connection goes on.',
  },
  {
    id: "peer",
    path: "/peer",
    about: "A WebSocket by which a peer joins, such as the worker in a browser's tab. No token: its key is proved, and the admission policy decides.",
    head: ["from", "message"],
    rows: [
      ["gateway", '{"type": "challenge", "version": 1, "gateway", "nonce"}'],
      ["peer", '{"type": "proof", "key", "nonce", "purpose": "work", "signature"}'],
      ["gateway", '{"type": "welcome", "signature"}, or {"type": "refused", "reason"} and close 4403'],
    ],
    rest: "Then binary messages alone: one stream of bytes each way, cut anywhere, which is Cap'n Proto of schema/vat.capnp, beginning with hello.",
  },
];

/** The sections, and for each a link to it and the words it is found by. */
export function streamSections(): { element: HTMLElement; link: HTMLLIElement; words: string }[] {
  return STREAMS.map((each) => {
    const id = `about-${each.id}`;
    const rows = each.rows.map(([first, second]) => make("tr", {}, make("th", { scope: "row" }, make("code", {}, first)), make("td", {}, second)));
    const element = make("section", { id, class: "panel stream", tabindex: -1, "aria-labelledby": `${id}-title` },
      make("h3", { id: `${id}-title` }, make("code", {}, each.path)),
      make("p", {}, each.about),
      make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `What goes over ${each.path}` },
        make("table", {}, make("thead", {}, make("tr", {}, ...each.head.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows))),
      make("p", { class: "help" }, each.rest)); // prettier-ignore
    const link = make("li", {}, make("a", { href: `#${id}` }, make("code", {}, each.path)));
    return { element, link, words: JSON.stringify(each).toLowerCase() };
  });
}
