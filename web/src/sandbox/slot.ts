// One slot: the groups that wait for it, its thread, and when a run of it is to stop.
//
// Holds the supervising: deadlines, cancelling, threads that die. A run that does not end by itself takes its thread
// with it; those behind it go on in another. Must not know who asks, nor how a guest runs: executor.ts does.

import { Failure } from "./failure";
import { GROUP_MAX, Room, RunningGroup, type Start } from "./group";
import { checkInvocation, type Invocation, newResult, type Reason, type Result } from "./invocation";
import { limitsOf, type RunLimits, type SandboxConfig } from "./limits";
import type { SpawnSlot } from "./port";
import { Thread } from "./thread";

/** How often it is looked at what a thread does. */
const LOOK_EVERY_MS = 10;
/** How often in turn a thread may die before a run began, or not start. */
const DEATHS_MAX = 3;

/** What a slot does at the moment, for people. */
export interface SlotFigures {
  busy: boolean;
  /** Of the group under way. */
  module?: string;
  sinceMs?: number;
}

/** Runs that a thread has. */
interface Batch {
  group: RunningGroup;
  thread: Thread;
  places: Set<number>;
  beganMs: number;
  resolve: () => void;
  reject: (failure: Failure) => void;
}

export class Slot {
  ended = 0;
  failed = 0;
  readonly #spawn: SpawnSlot;
  readonly #config: SandboxConfig;
  readonly #room: Room;
  readonly #waiting: RunningGroup[] = [];
  readonly #checked = new WeakSet<Invocation>();
  #thread: Thread | null = null;
  #batch: Batch | null = null;
  #current: RunningGroup | null = null;
  #sinceMs = 0;
  #deaths = 0;
  #looking: ReturnType<typeof setInterval> | undefined;
  #isClosed = false;

  constructor(spawn: SpawnSlot, config: SandboxConfig) {
    this.#spawn = spawn;
    this.#config = config;
    this.#room = new Room(config);
    this.#threadNow();
  }

  get figures(): SlotFigures {
    const group = this.#current;
    if (!group) {
      return { busy: false };
    }
    return { busy: true, module: group.program.name, sinceMs: performance.now() - this.#sinceMs };
  }

  get heldBytes(): number {
    return this.#room.inputBytes + this.#room.fetchedBytes + this.#room.outcomeBytes;
  }

  /**
   * Begins runs, which go when those before them have ended. Throws usage when they are none that a guest of this
   * sandbox could be given, overloaded when too many are here.
   */
  start(start: Start): RunningGroup {
    if (this.#isClosed) {
      throw new Failure("closed", "this slot is closed");
    }
    const { task, program } = start;
    if (!this.#checked.has(task)) {
      checkInvocation(task);
      this.#checked.add(task);
    }
    if (task.deterministic && !program.metered) {
      throw new Failure("usage", "deterministic: the module was not loaded as metered");
    }
    if (program.about.isReactor && !task.entry) {
      throw new Failure("usage", "the module is a reactor, which this worker does not run");
    }
    const group = new RunningGroup(start, limitsOf(task.limits, this.#config), this.#room, this.#config);
    this.#waiting.push(group);
    if (!this.#current) {
      void this.#serve();
    }
    return group;
  }

  /** Ends its thread, and all that is on it. */
  close(): void {
    this.#isClosed = true;
    for (const group of [...(this.#current ? [this.#current] : []), ...this.#waiting]) {
      group.cancel();
    }
    this.#thread?.end();
    this.#thread = null;
    this.#endBatch();
  }

  async #serve(): Promise<void> {
    for (let group = this.#waiting.shift(); group; group = this.#waiting.shift()) {
      this.#current = group;
      this.#sinceMs = performance.now();
      try {
        await this.#run(group);
        group.finish();
      } catch (error) {
        group.finish(error instanceof Failure ? error : new Failure("closed", "a run could not be begun"));
      }
    }
    this.#current = null;
  }

  async #run(group: RunningGroup): Promise<void> {
    while (!group.isDone) {
      await group.waitForRoom();
      const places = await group.toRun();
      if (places.length) {
        await this.#runBatch(group, places);
      }
    }
  }

  async #runBatch(group: RunningGroup, places: readonly number[]): Promise<void> {
    const thread = this.#threadNow();
    try {
      await thread.ready;
    } catch (error) {
      this.#countDeath(`a thread for guests does not start: ${(error as Error).message}`);
      return;
    }
    // Some may have been cancelled meanwhile. A thread that shares no memory cannot be told of those that are later.
    const wanted = places.filter((place) => !group.hasEnded(place)).slice(0, thread.control ? GROUP_MAX : 1);
    if (!wanted.length || this.#isClosed) {
      return;
    }
    thread.control?.unmarkAll();
    const waits = { waitedS: (performance.now() - group.cameMs) / 1000, compileS: group.compileS };
    const ended = new Promise<void>((resolve, reject) => {
      this.#batch = { group, thread, places: new Set(wanted), beganMs: performance.now(), resolve, reject };
    });
    group.underWay = {
      has: (place) => this.#batch?.places.has(place) ?? false,
      stop: (stopped) => stopped.forEach((place) => thread.control?.mark(place)),
    };
    this.#looking = setInterval(() => this.#look(), LOOK_EVERY_MS);
    try {
      const records = group.recordsOf(wanted);
      thread.run(group.program, group.task, group.limits, { places: wanted, ...records }, waits);
      await ended;
    } finally {
      clearInterval(this.#looking);
      this.#batch = null;
      group.underWay = null;
      group.withdraw();
    }
  }

  #threadNow(): Thread {
    this.#thread ??= new Thread(this.#spawn, {
      logged: () => this.#drain(),
      outcome: (record) => this.#add(record),
      refused: (message) => this.#batch?.reject(new Failure("usage", message)),
      done: () => {
        this.#drain();
        this.#deaths = 0;
        this.#endBatch();
      },
      died: (reason) => this.#died(reason),
    });
    return this.#thread;
  }

  #endBatch(): void {
    this.#batch?.resolve();
  }

  #drain(): void {
    const data = this.#batch?.thread.control?.drain();
    if (data?.length) {
      this.#add(data);
    }
  }

  #add(records: Uint8Array): void {
    const batch = this.#batch;
    if (batch) {
      const { ended, failed } = batch.group.add(records);
      this.ended += ended;
      this.failed += failed;
      batch.group.compileS = 0;
    }
  }

  /** Sees to what takes too long. */
  #look(): void {
    this.#drain();
    const batch = this.#batch;
    if (!batch) {
      return;
    }
    const { group, thread } = batch;
    if (thread.control) {
      thread.control.isPaused = group.isFull;
    }
    const running = this.#running(batch);
    if (!running || group.hasEnded(running.place)) {
      return;
    }
    const nowMs = performance.now();
    const wallS = (nowMs - running.startedMs) / 1000;
    const stoppedMs = group.stopping.get(running.place);
    if (stoppedMs !== undefined && nowMs - stoppedMs > 1000 * this.#config.graceS) {
      this.#stop(batch, running.place, "cancelled", "", wallS);
    } else if (wallS > group.limits.durationS) {
      const detail = `ran for ${wallS.toFixed(3)} s, it may for ${group.limits.durationS} s`;
      this.#stop(batch, running.place, "deadline", detail, wallS);
    }
  }

  #running(batch: Batch): { place: number; startedMs: number } | null {
    if (batch.thread.control) {
      return batch.thread.running;
    }
    const [place] = batch.places;
    return place === undefined ? null : { place, startedMs: batch.beganMs };
  }

  /** Ends the thread for the run that is under way, unless that has ended by now. */
  #stop(batch: Batch, place: number, reason: Reason, detail: string, wallS: number): void {
    batch.thread.end();
    this.#thread = null;
    this.#giveLast(batch, place, reason, detail, wallS);
    // For those that are left, or the next group.
    if (!this.#isClosed) {
      this.#threadNow();
    }
    this.#endBatch();
  }

  #giveLast(batch: Batch, place: number, reason: Reason, detail: string, wallS: number): void {
    this.#drain();
    const { group, thread } = batch;
    if (group.hasEnded(place)) {
      return;
    }
    const isCancelled = reason === "cancelled";
    const result = newResult(reason, detail);
    if (!isCancelled) {
      result.wallS = result.cpuS = wallS;
      writtenBy(thread, group.limits, group.program.about.needsWasi, result);
    }
    const queueS = isCancelled ? 0 : Math.max(0, (performance.now() - group.cameMs) / 1000 - wallS);
    group.give(place, result, queueS);
    this.ended += isCancelled ? 0 : 1;
    this.failed += isCancelled ? 0 : 1;
  }

  #died(reason: string): void {
    const batch = this.#batch;
    this.#thread = null;
    if (!batch) {
      return;
    }
    const running = this.#running(batch);
    if (running && !batch.group.hasEnded(running.place)) {
      const wallS = (performance.now() - running.startedMs) / 1000;
      this.#giveLast(batch, running.place, "crash", `the thread that ran it ended: ${reason}`.slice(0, 300), wallS);
      this.#endBatch();
      return;
    }
    this.#drain();
    try {
      this.#countDeath(`the thread for guests ended: ${reason}`);
      this.#endBatch();
    } catch (error) {
      batch.reject(error as Failure);
    }
  }

  #countDeath(said: string): void {
    this.#thread = null;
    if (++this.#deaths >= DEATHS_MAX) {
      this.#deaths = 0;
      throw new Failure("overloaded", said.slice(0, 300));
    }
  }
}

/** Fills in what a run had written when it was ended from outside. */
function writtenBy(thread: Thread, limits: RunLimits, needsWasi: boolean, result: Result): void {
  const outputs = needsWasi ? thread.outputs(limits) : null;
  if (outputs) {
    result.stdout = outputs.stdout.taken();
    result.stderr = outputs.stderr.taken();
    result.stdoutCut = outputs.stdout.isCut;
    result.stderrCut = outputs.stderr.isCut;
  }
}
