// A connection to a gateway, as a worker uses it: proved both ways, greeted, and asked for what it exports by name.
import type * as $ from "capnp-es";
import type { Identity } from "../identity/identity";
import { checkWelcome, prove, readChallenge } from "../identity/proof";
import { type Exports$Client, Vat } from "../schema/vat";
import type { Traffic } from "./bytes";
import { answered } from "./calls";
import { hookOf, release } from "./capability";
import { Connection } from "./connection";
import { CapabilityError, Disconnected, oneLine } from "./errors";
import { clientAt, isNull } from "./values";
import { SocketStream } from "./websocket";

const PROTOCOL_VERSION = 2;
const TIMEOUT_MS = 10_000;

/** How to connect. */
export interface ConnectOptions {
  /** The gateway's peer id, where it is known: another is not talked to. */
  readonly gateway?: string;
  /** What lets this peer in, where the gateway asks for one. */
  readonly ticket?: string;
  readonly namespace?: string;
  /** Gives it up. */
  readonly signal?: AbortSignal;
  /** Milliseconds that the gateway has for the proof and the greeting. */
  readonly timeoutMs?: number;
}

/** A connection that is up. */
export interface Link {
  /** Who is at the other end. */
  readonly peerId: string;
  /** Fulfilled with the reason once it is gone; never rejected. */
  readonly closed: Promise<string>;
  readonly traffic: Traffic;
  /** Return what the gateway exports under a name. Rejects with CapabilityError, `not_found` when there is nothing. */
  connect<Client>(name: string, kind: { readonly Client: new (client: $.Client) => Client }): Promise<Client>;
  close(reason?: string): void;
}

/** Connect to the /peer of a gateway, prove who this is and that it is the gateway, and say hello. */
export async function connectWebSocket(url: string, identity: Identity, options: ConnectOptions = {}): Promise<Link> {
  const limit = AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  const late = () =>
    limit.aborted && !options.signal?.aborted
      ? new CapabilityError("peer", `the gateway at ${url} does not answer in time`)
      : new CapabilityError("cancelled", "connecting was given up");
  let stream: SocketStream;
  try {
    stream = await SocketStream.open(url, signal);
  } catch (error) {
    throw signal.aborted ? late() : error;
  }
  const giveUp = () => stream.close("connecting was given up");
  signal.addEventListener("abort", giveUp);
  if (signal.aborted) giveUp();
  try {
    const gateway = await provedOver(stream, identity, options.gateway);
    const connection = new Connection(stream);
    const exports = await greeted(connection, options);
    return linkOf(gateway, connection, exports, stream);
  } catch (error) {
    stream.close("it was not to be");
    if (signal.aborted) throw late();
    throw error;
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

/** What the browser sends as Origin; programs in a terminal send none. */
function originHere(): string {
  const { location } = globalThis as { location?: { origin?: string; protocol?: string } };
  return location?.protocol?.startsWith("http") && location.origin ? location.origin : "";
}

async function provedOver(stream: SocketStream, identity: Identity, expected?: string): Promise<string> {
  const origin = originHere();
  const challenge = readChallenge(await stream.hear(), expected);
  const proof = await prove(identity, challenge, origin);
  stream.say(JSON.stringify(proof));
  await checkWelcome(await stream.hear(), challenge, proof, origin);
  return challenge.gateway;
}

async function greeted(connection: Connection, options: ConnectOptions): Promise<Exports$Client> {
  const namespace = options.namespace ?? "ww";
  const vat = new Vat.Client(connection.bootstrap());
  const answer = await answered(
    vat.hello((params) => {
      params.version = PROTOCOL_VERSION;
      params.namespace = namespace;
      params.ticket = options.ticket ?? "";
    }),
  ).catch((error: unknown) => {
    if (!(error instanceof Disconnected)) throw error;
    throw new CapabilityError("peer", "the gateway closed the connection at hello");
  });
  release(vat);
  if (answer.version !== PROTOCOL_VERSION) {
    const older = answer.version < PROTOCOL_VERSION ? "the gateway" : "this page or program";
    throw new CapabilityError(
      "protocol_mismatch",
      `the gateway speaks protocol version ${answer.version}, this speaks ${PROTOCOL_VERSION}: update ${older}`,
    );
  }
  if (answer.refused) {
    const isOther = answer.namespace !== namespace;
    throw new CapabilityError(isOther ? "protocol_mismatch" : "not_admitted", oneLine(answer.refused));
  }
  if (isNull(answer.exports)) throw new CapabilityError("protocol_mismatch", "the gateway exports nothing");
  return answer.exports;
}

function linkOf(peerId: string, connection: Connection, exports: Exports$Client, traffic: Traffic): Link {
  return {
    peerId,
    closed: connection.closed,
    traffic,
    async connect(name, kind) {
      const answer = await answered(exports.connect((params) => (params.name = name)));
      const capability = hookOf(clientAt(answer.capability)).keep();
      release(answer);
      return new kind.Client(capability);
    },
    close: (reason) => connection.close(reason),
  };
}
