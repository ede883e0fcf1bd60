// What lets a worker in, as `ww ticket create` prints it.

export interface Ticket {
  ticket: string;
  /** Peer id of the gateway that made it, where it says so. */
  gateway: string | null;
}

/** Reads a ticket alone, or .../p2p/PEER_ID/ticket/TICKET; null when it is neither. */
export function parseTicket(text: string): Ticket | null {
  const match = /^(?:(?:\/\S*)?\/p2p\/(\w+)\/ticket\/)?(wwt1-[\w-]+)$/.exec(text.trim());
  return match && { ticket: match[2]!, gateway: match[1] ?? null };
}
