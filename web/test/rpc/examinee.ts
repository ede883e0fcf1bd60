// What tests/gateway/test_peer_scripts.py examines: a peer that does what the gateway's side tells it by calls, as a
// worker would, and says what it saw. Run by Deno and Node.
import process from "node:process";
import { terminalIdentity } from "../../src/identity/terminal";
import {
  Cancelled,
  CapabilityError,
  type CallContext,
  answered,
  cancel,
  capabilitiesOf,
  connectWebSocket,
  initAs,
  isNull,
  keep,
  release,
  serve,
  setCapabilities,
} from "../../src/rpc";
import { Sender } from "../../src/schema/channel";
import { Blob, Group, Offer, Program, Registry, Runs, Worker } from "../../src/schema/worker";
import type { Blob$Client, Program$Client, Runs_Start$Params, Runs_Start$Results } from "../../src/schema/worker";

const PIECE_BYTES = 1 << 20;
const ECHO = new TextEncoder().encode("echo");
const seen: string[] = [];
let kept: Blob$Client | null = null;

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

async function read(blob: Blob$Client): Promise<Uint8Array> {
  const size = Number((await answered(blob.size())).bytes);
  const bytes = new Uint8Array(size);
  const pieces = Array.from({ length: Math.ceil(size / PIECE_BYTES) }, async (_, place) => {
    const answer = await answered(
      blob.read((params) => {
        params.offset = BigInt(place * PIECE_BYTES);
        params.count = PIECE_BYTES;
      }),
    );
    bytes.set(answer.data.toUint8Array(), place * PIECE_BYTES);
  });
  await Promise.all(pieces);
  return bytes;
}

async function digestOf(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
}

function blobOf(bytes: Uint8Array): Blob$Client {
  return serve(Blob, {
    size(_params, results) {
      results.bytes = BigInt(bytes.length);
    },
    read(params, results) {
      const piece = bytes.subarray(Number(params.offset), Number(params.offset) + params.count);
      results._initData(piece.length).copyBuffer(piece);
    },
    released: () => void seen.push("blob released"),
  });
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve());
  });
}

function say(results: Runs_Start$Results, bytes: Uint8Array): void {
  results._initOutcomes(bytes.length).copyBuffer(bytes);
  results.ended = true;
}

type Exercise = (
  params: Runs_Start$Params,
  results: Runs_Start$Results,
  context: CallContext,
  rest: string,
) => void | Promise<void>;

const EXERCISES: Record<string, Exercise> = {
  seen: (_params, results) => say(results, new TextEncoder().encode(JSON.stringify(seen))),
  echo: (_params, results, _context, rest) => say(results, new TextEncoder().encode(rest)),
  note: (_params, _results, _context, rest) => void seen.push(rest),
  nulls: (params, results) => {
    const [first] = capabilitiesOf(params.large, Blob);
    const found = [isNull(params.calls), "large", params.large.length, isNull(first)];
    say(results, new TextEncoder().encode(`calls ${found.join(" ")}`));
  },
  fail: () => {
    throw new CapabilityError("draining", "said on purpose");
  },
  crash: () => {
    throw new Error("a secret of this side");
  },
  digest: async (params, results) => {
    const parts = await Promise.all(capabilitiesOf(params.large, Blob).map(read));
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
    say(results, await digestOf(bytes));
  },
  produce: (_params, results, _context, rest) => {
    const half = new Uint8Array(Number(rest) / 2).map((_, place) => place * 7);
    setCapabilities(results._initLarge(2), [blobOf(half), blobOf(half)]);
  },
  inline: (_params, results, _context, rest) => say(results, new Uint8Array(Number(rest)).fill(7)),
  keep: (params) => {
    kept = keep(capabilitiesOf(params.large, Blob)[0]);
  },
  use: async (_params, results) => say(results, await digestOf(await read(kept!))),
  drop: () => {
    release(kept!);
    kept = null;
  },
  back: (_params, results) => setCapabilities(results._initLarge(1), [kept!]),
  dropped: async (params, results) => {
    const [blob] = capabilitiesOf(params.large, Blob);
    release(blob);
    const failing = answered(blob.size());
    await failing.catch((error: CapabilityError) => say(results, new TextEncoder().encode(error.message)));
  },
  mirror: async (params, results) => {
    const mirror = new Worker.Client(capabilitiesOf(params.large, Blob)[0].client);
    const named = (of: Program$Client, entry: string) =>
      answered(of.task((given) => (given._initInvocation().entry = entry)));
    const loading = mirror.load();
    const early = ["e0", "e1", "e2"].map((entry) => named(loading.getProgram(), entry));
    const answer = await answered(loading);
    const late = ["e3", "e4"].map((entry) => named(answer.program, entry));
    const answers = await Promise.all([...early, ...late]);
    const runs = answers.map((each) => answered(each.runs.start((given) => given._initInputs(4).copyBuffer(ECHO))));
    say(results, new TextEncoder().encode((await Promise.all(runs)).map(({ ended }) => ended).join(" ")));
  },
  stall: async (_params, _results, context) => {
    seen.push("stalled");
    await untilAborted(context.signal);
    seen.push("aborted");
  },
  giveUp: async (params, results) => {
    const asked = capabilitiesOf(params.large, Blob)[0].size();
    setTimeout(() => cancel(asked), 20);
    await answered(asked).catch((error: unknown) => {
      say(results, new TextEncoder().encode(error instanceof Cancelled ? "gave up" : String(error)));
    });
  },
  group: (_params, results) => {
    results.group = serve(Group, {
      async more(_params, more, context) {
        await untilAborted(context.signal);
        more.ended = true;
      },
      cancel(params) {
        seen.push(`cancel ${params.runs.toUint8Array().join(",")}`);
      },
      released: () => void seen.push("group released"),
    });
  },
};

function runs() {
  return serve(Runs, {
    start(params, results, context) {
      const [name, ...rest] = textOf(params.inputs.toUint8Array()).split(" ");
      const exercise = EXERCISES[name];
      if (exercise === undefined) throw new CapabilityError("usage", `no exercise ${name}`);
      return exercise(params, results, context, rest.join(" "));
    },
    released: () => void seen.push("runs released"),
  });
}

const worker = serve(Worker, {
  async load(params, results) {
    seen.push("load");
    if (!isNull(params.blob)) await read(params.blob);
    results.program = serve(Program, {
      async task(params, results) {
        seen.push(`task ${params.invocation.entry}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
        results.runs = runs();
      },
      run() {},
      released: () => void seen.push("program released"),
    });
  },
  released: () => {
    seen.push("worker released");
    console.log("worker released");
  },
});

const link = await connectWebSocket(process.argv.at(-2)!, await terminalIdentity(), { gateway: process.argv.at(-1) });
const registry = await link.connect("registry", Registry);
const sender = await link.connect("channel", Sender);
const registered = answered(
  registry.register((params) => {
    const info = params._initInfo();
    const labels = info._initLabels(2);
    ["kind", "größe"].forEach((key, place) => {
      labels.get(place).key = key;
      labels.get(place).value = `of ${key}`;
    });
    const lacks = info._initLacks(2);
    ["files", "fuel"].forEach((word, place) => lacks.set(place, word));
  }),
);
await answered(
  sender.send((params) => {
    const offer = initAs(Offer, params.value);
    offer.worker = worker;
    offer.depth = 3;
  }),
);
await registered;
await link.connect("nothing", Registry).catch((error: CapabilityError) => void seen.push(error.code));
console.log(`closed: ${await link.closed}`);
process.exit(0);
