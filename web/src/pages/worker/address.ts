// What the worker page's address asks for: #slots=4&autojoin&ticket=... Pure: knows no element.

export interface Asked {
  /** Within 1 and what the browser has; null when the address says none, or none that can be. */
  slots: number | null;
  isAutojoin: boolean;
  ticket: string;
  /** What is wrong with it, in one line; empty when nothing is. */
  problem: string;
}

/** Read the part of an address from # on. */
export function askedOf(hash: string, slotsMax: number): Asked {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const text = words.get("slots");
  const isNumber = text !== null && /^[1-9]\d{0,5}$/.test(text);
  return {
    slots: isNumber ? Math.min(Number(text), slotsMax) : null,
    isAutojoin: words.has("autojoin"),
    ticket: (words.get("ticket") ?? "").trim(),
    problem: text === null || isNumber ? "" : `slots=${text.slice(0, 20)} in the address: expected a number from 1 to ${slotsMax}`,
  };
}

/** The same without the ticket, which is nobody's who looks at the address or keeps it. */
export function withoutTicket(hash: string): string {
  const kept = hash.replace(/^#/, "").split("&").filter((word) => !/^ticket(=|$)/.test(word)); // prettier-ignore
  const rest = kept.join("&");
  return rest ? `#${rest}` : "";
}

/** Where peers are let in, of the gateway that served the page at that address. */
export function peerUrl(page: string): string {
  const url = new URL("./peer", page);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  url.search = "";
  return url.href;
}
