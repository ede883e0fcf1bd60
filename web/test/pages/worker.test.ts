// What the worker page's address asks for, what this tab has done, and whether it works for the gateway.
import { expect, test } from "vitest";
import { askedOf, peerUrl, withoutTicket } from "../../src/pages/worker/address";
import { Membership, type View } from "../../src/pages/worker/membership";
import { Busy, SECONDS_KEPT, Tally } from "../../src/pages/worker/tally";
import type { LoadMessage, PageMessage } from "../../src/worker/messages";

test.each([
  ["", { slots: null, isAutojoin: false, ticket: "", problem: "" }],
  ["#slots=4&autojoin", { slots: 4, isAutojoin: true, ticket: "", problem: "" }],
  ["#autojoin&slots=900&ticket=wwt1-abc", { slots: 8, isAutojoin: true, ticket: "wwt1-abc", problem: "" }],
  ["#slots=0", { slots: null, problem: "slots=0 in the address: expected a number from 1 to 8" }],
  ["#slots=4x", { slots: null, problem: "slots=4x in the address: expected a number from 1 to 8" }],
])("an address asks: %s", (hash, asked) => {
  expect(askedOf(hash, 8)).toMatchObject(asked);
});

test("a ticket is taken out of the address, and the rest stays", () => {
  expect(withoutTicket("#slots=4&ticket=/p2p/12D3/ticket/wwt1-x&autojoin")).toBe("#slots=4&autojoin");
  expect(withoutTicket("#ticket=x")).toBe("");
});

test("peers are let in beside the page, over TLS where it is", () => {
  expect(peerUrl("http://127.0.0.1:8080/worker#slots=1")).toBe("ws://127.0.0.1:8080/peer");
  expect(peerUrl("https://example.org/ww/worker?x#y")).toBe("wss://example.org/ww/peer");
});

function load(ended: number, perSecond: number): LoadMessage {
  return {
    type: "load", slots: [], ended, failed: ended / 2, per_second: perSecond, sent_bytes: ended, received_bytes: ended,
    modules_cached: 0, memory_bytes: 0,
  }; // prettier-ignore
}

test("what was done counts on over leaving and joining, and its line breaks between", () => {
  const tally = new Tally();
  tally.note(load(10, 5), 0);
  tally.note(load(12, 5), 0.2);
  tally.end(1);
  tally.note(load(4, 2), 2);
  expect(tally.totals).toEqual({ ended: 16, failed: 8, sent_bytes: 16, received_bytes: 16 });
  expect(tally.points.map(({ value }) => value)).toEqual([5, null, 2]);
});

test("no more is kept than is shown", () => {
  const tally = new Tally();
  for (let t = 0; t < 1000; t += 1) {
    tally.note(load(t, 1), t);
  }
  expect(tally.points.length).toBeLessThanOrEqual(SECONDS_KEPT + 3);
  expect(tally.points[0]!.t).toBeGreaterThanOrEqual(999 - SECONDS_KEPT - 2);
});

test("how busy a slot was is of the last minute", () => {
  const busy = new Busy();
  expect(busy.share).toBe(0);
  busy.note(true, 0);
  busy.note(false, 59);
  expect(busy.share).toBe(0.5);
  busy.note(false, 61);
  expect(busy.share).toBe(0);
});

class Page {
  readonly told: PageMessage[] = [];
  readonly views: View[] = [];
  readonly membership: Membership;
  answer: () => Promise<string> = () => Promise.resolve("ww");

  constructor() {
    this.membership = new Membership("ws://h/peer", {
      tell: (message) => this.told.push(message),
      namespace: () => this.answer(),
      changed: (view) => this.views.push(view),
      nowMs: () => 7,
    });
  }

  get types(): string[] {
    return this.told.splice(0).map((message) => message.type);
  }

  async joined(): Promise<void> {
    this.membership.join({ slots: 2, ticket: "t" });
    await Promise.resolve();
    this.membership.hear({ type: "state", state: "joined", peer: "P", gateway: "G" });
  }
}

test("a tab that joins says where, how much and by what ticket", async () => {
  const page = new Page();
  await page.joined();
  expect(page.told).toEqual([{ type: "join", url: "ws://h/peer", slots: 2, namespace: "ww", ticket: "t" }]);
  expect(page.membership.view).toMatchObject({ state: "joined", peer: "P", gateway: "G", joinedAtMs: 7, isWanted: true });
});

test("a tab that is put to sleep leaves at once, and joins again once it is back and has left", async () => {
  const page = new Page();
  await page.joined();
  page.membership.away();
  page.membership.away();
  expect(page.types).toEqual(["join", "leave", "leave"]);
  page.membership.back();
  expect(page.types).toEqual([]);
  page.membership.hear({ type: "state", state: "leaving" });
  page.membership.hear({ type: "state", state: "left" });
  await Promise.resolve();
  expect(page.types).toEqual(["join"]);
});

test("who left by hand stays out, whatever the page goes through", async () => {
  const page = new Page();
  await page.joined();
  page.membership.leave();
  expect(page.membership.view.state).toBe("leaving");
  page.membership.hear({ type: "state", state: "left" });
  page.membership.away();
  page.membership.back();
  expect(page.types).toEqual(["join", "leave"]);
  expect(page.membership.view).toMatchObject({ state: "left", isWanted: false });
});

test("a tab that gave up says why until it is asked again", async () => {
  const page = new Page();
  await page.joined();
  page.membership.hear({ type: "state", state: "refused", detail: "no key" });
  page.membership.hear({ type: "state", state: "left" });
  expect(page.membership.view).toMatchObject({ state: "refused", detail: "no key", isWanted: false });
  await page.joined();
  expect(page.types).toEqual(["join", "join"]);
});

test("leaving while the gateway is still asked who it is: nothing joins afterwards", async () => {
  const page = new Page();
  let answer = (_: string): void => undefined;
  page.answer = () => new Promise((resolve) => (answer = resolve));
  page.membership.join({ slots: 1, ticket: "" });
  page.membership.leave();
  answer("ww");
  await Promise.resolve();
  await Promise.resolve();
  expect(page.types).toEqual([]);
  expect(page.membership.view.state).toBe("left");
});
