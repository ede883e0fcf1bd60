// A worker at a terminal: `deno run --allow-net worker.mjs http://HOST:PORT`, or the same with node.
//
// Holds the program: its options, log lines, signals and exit codes, all of them as those of `ww worker`. What it does:
// ../worker/join.ts.

import { readFileSync, statSync } from "node:fs";
import process from "node:process";
import { terminalIdentity } from "../identity/terminal";
import { DEFAULTS } from "../sandbox/limits";
import { Sandbox } from "../sandbox/sandbox";
import { MemoryStore } from "../sandbox/store";
import { type Hear, type JoinConfig, Joining } from "../worker/join";
import type { Ticket } from "../worker/ticket";
import { HELP, type Options, peerUrl, readArguments, readTicket, WrongUsage } from "./arguments";
import { Log } from "./log";
import { cores, hostName, KIND, memoryBytes, slotSpawner, variable } from "./machine";

const NAME = "worker.mjs";
const FILE_BYTES_MAX = 4096;

async function main(argv: readonly string[]): Promise<number> {
  const options = readArguments(argv);
  if (!options) {
    console.log(HELP.trimEnd());
    return 0;
  }
  if (typeof WebSocket === "undefined") {
    throw new Error("this Node has no WebSocket: expected Node 22, or node --experimental-websocket");
  }
  const log = new Log(options.log, options.logJson);
  const limits = { ...DEFAULTS, ...options.limits };
  const config = configOf(options, limits);
  const identity = await terminalIdentity(options.key ?? undefined, options.isKeyHeld);
  const sandbox = new Sandbox(await slotSpawner(), new MemoryStore(), limits);
  log.info(`worker ${identity.peerId}`);
  const joining: Joining = new Joining(identity, sandbox, config, said(log, config, () => joining.gateway));
  onStopSignals([() => joining.drain(), () => process.exit(130)]);
  await joining.serve();
  identity.close();
  return 0;
}

function configOf(options: Options, limits: JoinConfig["limits"]): JoinConfig {
  const ticket = ticketOf(options);
  if (ticket?.gateway && options.dial && ticket.gateway !== options.dial) {
    throw new WrongUsage(`argument --dial: the ticket is of ${ticket.gateway}`);
  }
  const slots = options.slots ?? cores();
  return {
    url: peerUrl(options.gateway),
    slots,
    ticket: ticket?.ticket,
    gateway: options.dial ?? ticket?.gateway ?? undefined,
    namespace: options.namespace,
    kind: KIND,
    labels: options.labels,
    cpus: Math.max(slots, cores()),
    memoryBytes: memoryBytes(),
    host: hostName(),
    limits,
    graceS: options.graceS,
  };
}

function ticketOf(options: Options): Ticket | null {
  const path = options.ticketFile;
  if (path === null) {
    const text = variable("WW_TICKET");
    return text ? readTicket(text) : null;
  }
  let text: string;
  try {
    const { mode, size } = statSync(path);
    if (mode & 0o077 || size > FILE_BYTES_MAX) {
      throw new WrongUsage("argument --ticket-file: expected a file of mode 0600 that holds one ticket");
    }
    text = readFileSync(path, "utf-8");
  } catch (error) {
    throw error instanceof WrongUsage ? error : new WrongUsage("argument --ticket-file: that file cannot be read");
  }
  return readTicket(text);
}

/** Logs what becomes of the worker; what was said last is not said again. */
function said(log: Log, config: JoinConfig, gateway: () => string | undefined): Hear {
  let last = "";
  return (state, detail) => {
    if (state === "joined" && detail === undefined) {
      last = "";
      log.info(`joined gateway ${gateway() ?? ""} with ${config.slots} slots`);
    } else if (state === "leaving") {
      log.info(detail ? `stopping: ${detail}, waiting up to ${config.graceS} s` : "stopping");
    } else if (detail !== undefined && detail !== last) {
      last = detail;
      log.warning(state === "joined" ? detail : `${detail}; trying again`);
    }
  };
}

/** Does the first thing at the first SIGINT or SIGTERM, and the next one at the next. */
function onStopSignals(steps: (() => void)[]): void {
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => steps.shift()?.());
  }
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  const line = error instanceof Error ? error.message : String(error);
  console.error(error instanceof WrongUsage ? `${NAME}: ${line} (see ${NAME} --help)` : `${NAME}: ${line}`);
  process.exit(error instanceof WrongUsage ? 2 : 1);
}
