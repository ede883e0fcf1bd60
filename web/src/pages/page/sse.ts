// Reads text/event-stream. Holds the parser alone, fed with text as it comes, cut anywhere; bounded: an event that grows beyond
// the limit is an error, not memory. Source: WHATWG HTML, 9.2.6 (interpreting an event stream).

export interface ServerEvent {
  readonly type: string;
  readonly data: string;
  /** The stream's last event id as of this event; empty when none was told. */
  readonly id: string;
}

const EVENT_CHARACTERS_MAX = 8 << 20;

export class EventParser {
  #rest = "";
  #sawReturn = false;
  #isFirst = true;
  #type = "";
  #data: string[] = [];
  #size = 0;
  #id = "";
  readonly #limit: number;

  constructor(limit = EVENT_CHARACTERS_MAX) {
    this.#limit = limit;
  }

  /** Return the events that this piece of text completes. RangeError where one is longer than the limit. */
  feed(text: string): ServerEvent[] {
    if (this.#isFirst && text) {
      this.#isFirst = false;
      text = text.startsWith("\ufeff") ? text.slice(1) : text;
    }
    // A line may end with both, and the piece between them.
    const begin = this.#sawReturn && text.startsWith("\n") ? 1 : 0;
    this.#sawReturn = text === "" ? this.#sawReturn : text.endsWith("\r");
    const lines = (this.#rest + text.slice(begin)).split(/\r\n|\r|\n/);
    this.#rest = lines.pop() ?? "";
    const found: ServerEvent[] = [];
    for (const line of lines) {
      const event = this.#line(line);
      if (event) {
        found.push(event);
      }
    }
    if (this.#rest.length + this.#size > this.#limit) {
      throw new RangeError(`an event of more than ${this.#limit} characters`);
    }
    return found;
  }

  #line(line: string): ServerEvent | null {
    if (line === "") {
      return this.#dispatch();
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") {
      this.#type = value;
    } else if (field === "data") {
      this.#data.push(value);
      this.#size += value.length;
    } else if (field === "id" && !value.includes("\0")) {
      this.#id = value;
    }
    return null;
  }

  #dispatch(): ServerEvent | null {
    const event = this.#data.length ? { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id } : null;
    this.#type = "";
    this.#data = [];
    this.#size = 0;
    return event;
  }
}
