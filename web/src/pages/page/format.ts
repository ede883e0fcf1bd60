// How figures, times and ids are written on the pages. Pure: knows no element, and asks no clock.

const SPACE = "\u202f"; // narrow, and no line breaks there
const DASH = "–";

/** 1234567 as "1 234 567". */
export function whole(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, SPACE);
}

/** A figure in three digits or so: 0.12, 3.4, 56, 1 234, 12.3k, 4.5M. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) {
    return DASH;
  }
  const size = Math.abs(value);
  if (size >= 1e9) {
    return `${short(value / 1e9)}G`;
  }
  if (size >= 1e6) {
    return `${short(value / 1e6)}M`;
  }
  return size >= 1e4 ? `${short(value / 1e3)}k` : size >= 1e3 ? whole(value) : short(value);
}

function short(value: number): string {
  const size = Math.abs(value);
  const digits = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  const text = value.toFixed(digits);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** Milliseconds as "0.4 ms", "12 ms", "3.2 s", "4 min". */
export function milliseconds(value: number | null | undefined): string {
  if (value === null || value === undefined) {
    return DASH;
  }
  if (value < 1000) {
    return `${short(value)}${SPACE}ms`;
  }
  return value < 120_000 ? `${short(value / 1000)}${SPACE}s` : `${short(value / 60_000)}${SPACE}min`;
}

export function seconds(value: number | null | undefined): string {
  return milliseconds(value === null || value === undefined ? value : value * 1000);
}

/** Bytes in powers of 1024: "512 B", "1.5 KiB". */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) {
    return DASH;
  }
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${short(value)}${SPACE}${units[unit]}`;
}

/** A span of seconds in its two largest units: "3 d 4 h", "5 min 06 s". */
export function span(value: number): string {
  const total = Math.max(0, Math.floor(value));
  const [days, hours, minutes, rest] = [Math.floor(total / 86_400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60, total % 60];
  if (days) {
    return `${days}${SPACE}d ${hours}${SPACE}h`;
  }
  if (hours) {
    return `${hours}${SPACE}h ${minutes}${SPACE}min`;
  }
  return minutes ? `${minutes}${SPACE}min ${String(rest).padStart(2, "0")}${SPACE}s` : `${rest}${SPACE}s`;
}

/** How long something took: "12 ms", "3.2 s", "4 min 05 s". */
export function lasted(value: number): string {
  return value < 60_000 ? milliseconds(Math.max(0, value)) : span(value / 1000);
}

/** How long ago, roughly: "now", "12 s ago", "3 min ago". */
export function ago(secondsAgo: number): string {
  if (secondsAgo < 2) {
    return "now";
  }
  const [value, unit] =
    secondsAgo < 60 ? [secondsAgo, "s"] : secondsAgo < 3600 ? [secondsAgo / 60, "min"] : secondsAgo < 86_400 ? [secondsAgo / 3600, "h"] : [secondsAgo / 86_400, "d"];
  return `${Math.floor(value)}${SPACE}${unit} ago`;
}

/** The time of day of an instant, as this reader's clock shows it. */
export function clock(epochSeconds: number): string {
  const date = new Date(epochSeconds * 1000);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((each) => String(each).padStart(2, "0")).join(":");
}

/** A peer id or digest, short enough for a table and long enough to tell two apart. */
export function brief(id: string): string {
  const text = id.startsWith("sha256:") ? id.slice(7) : id;
  return text.length <= 14 ? text : `${text.slice(0, 4)}…${text.slice(-6)}`;
}

export function percent(part: number, of: number): string {
  if (of <= 0) {
    return "0 %";
  }
  const value = (100 * part) / of;
  // Neither all nor nothing is said of what is not quite that.
  return `${part > 0 && value < 1 ? "<1" : part < of && value > 99 ? ">99" : Math.round(value)}${SPACE}%`;
}

export function pairs(labels: Record<string, string> | undefined): string {
  return Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}

/** A page's title, which others may have named: without what turns the direction of text round, as a window's bar may not isolate it. */
export function titled(text: string): string {
  return `${text.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|\p{Cc}/gu, "")} · ww`;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** A text as one word of a POSIX shell. */
export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
