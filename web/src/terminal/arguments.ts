// How the command line of a terminal's worker is read.
//
// Holds the options, and one line for whatever is wrong with them. Must not do anything about them: worker.ts does.

import type { SandboxConfig } from "../sandbox/limits";
import { parseTicket, type Ticket } from "../worker/ticket";

export type Level = "debug" | "info" | "warning" | "error";
const LEVELS: readonly string[] = ["debug", "info", "warning", "error"];
const SLOTS_MAX = 1024;
const LABELS_MAX = 32;

/** What was asked for. */
export interface Options {
  /** http(s)://HOST:PORT of the gateway. */
  gateway: URL;
  slots: number | null;
  /** Peer id that the gateway is expected to have. */
  dial: string | null;
  key: string | null;
  /** Whether who started this has locked the key file already, for as long as this lives. */
  isKeyHeld: boolean;
  ticketFile: string | null;
  labels: Map<string, string>;
  namespace: string;
  graceS: number;
  log: Level;
  logJson: boolean;
  limits: Partial<SandboxConfig>;
}

/** A command line that nothing can be done with, in one line. */
export class WrongUsage extends Error {}

export const HELP = `usage: worker.mjs URL [OPTIONS]

Offer this machine's slots to the gateway at URL, http(s)://HOST:PORT, and run there what it sends. Comes back when the
gateway goes away. The first ctrl-C lets running guests finish, the second stops at once.

  --slots N            runs at once (one per core)
  --dial PEER_ID       the gateway's peer id: nobody else is joined
  --key FILE           file of the key pair (a new key each start)
  --key-held           it is locked already, by a descriptor that this has inherited
  --ticket-file FILE   what ww ticket create printed; or the variable WW_TICKET
  --meta KEY=VALUE     label, what to say of this worker; repeatable
  --ns NAME            namespace (ww)
  --grace N            seconds running guests may take to finish when stopping (30)
  --log LEVEL          debug, info, warning or error (info)
  --log-json           log one JSON object a line
  --module-max N, --memory-max N, --duration-max N, --output-max N, --input-max N, --held-max N
                       as of ww worker: bytes, and seconds of one run
`;

type Read = (value: string, options: Options) => void;

const BYTES: readonly (readonly [string, keyof SandboxConfig])[] = [
  ["--module-max", "moduleBytesMax"],
  ["--memory-max", "memoryBytesMax"],
  ["--output-max", "outputBytesMax"],
  ["--input-max", "inputBytesMax"],
  ["--held-max", "heldBytesMax"],
];

const READ: ReadonlyMap<string, Read> = new Map<string, Read>([
  ["--slots", (value, options) => (options.slots = whole(value, SLOTS_MAX))],
  ["--dial", (value, options) => (options.dial = peerId(value))],
  ["--key", (value, options) => (options.key = value)],
  ["--ticket-file", (value, options) => (options.ticketFile = value)],
  ["--meta", (value, options) => label(value, options.labels)],
  ["--ns", (value, options) => (options.namespace = value)],
  ["--grace", (value, options) => (options.graceS = seconds(value))],
  ["--log", (value, options) => (options.log = level(value))],
  ["--duration-max", (value, options) => (options.limits.durationMaxS = above0(seconds(value)))],
  ...BYTES.map(([flag, name]): [string, Read] => [flag, (value, options) => (options.limits[name] = size(value))]),
]);

/** Reads a command line; null when it asks for help. Throws WrongUsage. */
export function readArguments(argv: readonly string[]): Options | null {
  const words: string[] = [];
  const options = defaults();
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at]!;
    if (word === "--help" || word === "-h") {
      return null;
    }
    if (!word.startsWith("-")) {
      words.push(word);
      continue;
    }
    const equals = word.indexOf("=");
    const flag = equals < 0 ? word : word.slice(0, equals);
    if (flag === "--log-json" && equals < 0) {
      options.logJson = true;
      continue;
    }
    if (flag === "--key-held" && equals < 0) {
      options.isKeyHeld = true;
      continue;
    }
    const read = READ.get(flag);
    const value = equals < 0 ? argv[(at += 1)] : word.slice(equals + 1);
    if (!read) {
      throw new WrongUsage(`unrecognized argument ${shown(flag)}`);
    }
    if (value === undefined) {
      throw new WrongUsage(`argument ${flag}: expected a value`);
    }
    readOne(flag, read, value, options);
  }
  if (words.length !== 1) {
    throw new WrongUsage(`${words.length ? "one address too many" : "which gateway?"}: expected http://HOST:PORT, once`);
  }
  options.gateway = httpUrl(words[0]!);
  return options;
}

/** Returns where a gateway takes peers. */
export function peerUrl(gateway: URL): string {
  return `${gateway.protocol === "https:" ? "wss" : "ws"}://${gateway.host}/peer`;
}

/** Reads what `ww ticket create` printed. */
export function readTicket(text: string): Ticket {
  const ticket = parseTicket(text);
  if (!ticket) {
    // What it holds is a secret, and not repeated.
    throw new WrongUsage("that is no ticket: expected one, as ww ticket create prints it");
  }
  return ticket;
}

function defaults(): Options {
  return {
    gateway: new URL("http://127.0.0.1:8080"),
    slots: null,
    dial: null,
    key: null,
    isKeyHeld: false,
    ticketFile: null,
    labels: new Map(),
    namespace: "ww",
    graceS: 30,
    log: "info",
    logJson: false,
    limits: {},
  };
}

function readOne(flag: string, read: Read, value: string, options: Options): void {
  try {
    read(value, options);
  } catch (error) {
    throw error instanceof WrongUsage ? new WrongUsage(`argument ${flag}: ${error.message}`) : error;
  }
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}

function httpUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  const isRight = url && (url.protocol === "http:" || url.protocol === "https:") && url.pathname === "/";
  if (!isRight || url.search || url.hash || url.username || url.password) {
    throw new WrongUsage(`${shown(text)} is no address of a gateway: expected http://HOST:PORT`);
  }
  if (url.protocol === "http:" && !isLoopback(url.hostname)) {
    throw new WrongUsage(`${shown(text)}: another machine is not spoken with in the open: expected https://`);
  }
  return url;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || host.endsWith(".localhost") || /^127(\.\d+){3}$/.test(host);
}

function whole(text: string, most: number): number {
  const number = /^\d{1,15}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > most) {
    throw new WrongUsage(`${shown(text)}: expected a whole number from 1 to ${most}`);
  }
  return number;
}

function seconds(text: string): number {
  const match = /^(\d{1,9}(?:\.\d{1,6})?)([smhd]?)$/.exec(text);
  if (!match) {
    throw new WrongUsage(`${shown(text)} is no time: expected seconds, or a number with s, m, h or d`);
  }
  return Number(match[1]) * { "": 1, s: 1, m: 60, h: 3600, d: 86_400 }[match[2] as "" | "s" | "m" | "h" | "d"];
}

function above0(timeS: number): number {
  if (!timeS) {
    throw new WrongUsage("expected a time above 0");
  }
  return timeS;
}

function size(text: string): number {
  const match = /^(\d{1,15})([KMGT]?)(?:iB|B)?$/.exec(text);
  const bytes = match ? Number(match[1]) * 1024 ** " KMGT".indexOf(match[2] || " ") : 0;
  if (!bytes) {
    throw new WrongUsage(`${shown(text)} is no size: expected bytes, or a number with K, M, G or T`);
  }
  return bytes;
}

function peerId(text: string): string {
  if (!/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/.test(text)) {
    throw new WrongUsage(`${shown(text)} is no peer id: expected 12D3KooW...`);
  }
  return text;
}

function label(text: string, labels: Map<string, string>): void {
  const match = /^([A-Za-z0-9][A-Za-z0-9._/-]{0,63})=([^\p{C}\p{Zl}\p{Zp}]{0,256})$/u.exec(text);
  if (!match) {
    throw new WrongUsage(`${shown(text)} is not KEY=VALUE, with a key of letters, digits and . _ / -`);
  }
  if (match[1] === "kind") {
    throw new WrongUsage(`${shown(text)}: kind is said of every worker already`);
  }
  labels.set(match[1]!, match[2]!);
  if (labels.size > LABELS_MAX) {
    throw new WrongUsage(`at most ${LABELS_MAX} are taken`);
  }
}

function level(text: string): Level {
  if (!LEVELS.includes(text)) {
    throw new WrongUsage(`${shown(text)} is not debug, info, warning or error`);
  }
  return text as Level;
}
