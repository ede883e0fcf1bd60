// WASI preview 1 for guests without files: browser_wasi_shim's, with what is wrong or missing there replaced by ours.
//
// Holds the functions, which do what wasmtime's do (and ww/sandbox/wasi.py in its place), to the errno. What ends a
// guest is a GuestEnd or the shim's WASIProcExit; nothing else is thrown. poll_oneoff is in poll.ts, the streams in
// stream.ts. One serves one run after the other. Source: WASI preview 1, witx.

import { type Fd, WASI, WASIProcExit, wasi } from "@bjorn3/browser_wasi_shim";

import { WASI_FUNCTIONS } from "./about";
import { RandomStream, START_NS, STEP_NS, VirtualClock } from "./determinism";
import { GuestMemory } from "./guest_memory";
import { type PollHost, pollOneoff } from "./poll";
import { type Input, type Output, Stream } from "./stream";
import { GuestEnd, isStackOverflow } from "./trap";

export { WASIProcExit };

type HostFunction = (...given: number[]) => number;
/** What is done with a part of the guest's memory; returns an errno. */
type Transfer = (stream: Stream, part: Uint8Array<ArrayBuffer>) => number;

const CLOCKS = 4;
/** Between guest and host in one call. */
const COPIED_BYTES_MAX = 64 << 20;
/** What crypto.getRandomValues gives at a time. */
const RANDOM_PIECE_BYTES = 1 << 16;
const VECTORS_MAX = 1 << 24;
const SIGNALS = 31;
const RIGHTS_MASK = (1n << 30n) - 1n;
const PROGRAM_NAME = "main.wasm";
const ENCODER = new TextEncoder();
const UTF8 = new TextDecoder("utf-8", { fatal: true });

/** What a guest sees through WASI. */
export interface World {
  /** Behind the program's own name. */
  args: readonly string[];
  env: readonly (readonly [string, string])[];
  /** Of a deterministic run's random numbers; null: neither time nor these are the same again. */
  seed: bigint | null;
  memory: WebAssembly.Memory | null;
  /** Descriptors 0, 1 and 2. */
  streams: readonly [Input, Output, Output];
}

export class Preview1 extends WASI implements PollHost {
  readonly memory = new GuestMemory();
  clock: VirtualClock | null = null;
  #random: RandomStream | null = null;
  #texts: { args: Uint8Array[]; env: Uint8Array[] } = { args: [], env: [] };
  #given: { args?: World["args"]; env?: World["env"] } = {};

  constructor() {
    super([], [], []);
    const ours = { ...this.#process(), ...this.#time(), ...this.#streams(), ...this.#descriptors(), ...this.#none() };
    for (const name of Object.keys(WASI_FUNCTIONS)) {
      this.wasiImport[name] = this.#guarded(name, ours[name]);
    }
  }

  /** Begins a run. */
  begin(world: World): void {
    this.fds = [...world.streams];
    this.memory.begin(world.memory);
    this.clock = world.seed === null ? null : new VirtualClock();
    this.#random = world.seed === null ? null : new RandomStream(world.seed);
    // Runs of a group often share them.
    if (this.#given.args !== world.args) {
      this.#texts.args = [PROGRAM_NAME, ...world.args].map((text) => ENCODER.encode(`${text}\0`));
    }
    if (this.#given.env !== world.env) {
      this.#texts.env = world.env.map(([name, value]) => ENCODER.encode(`${name}=${value}\0`));
    }
    this.#given = { args: world.args, env: world.env };
  }

  /** Returns the function as a guest may call it: with unsigned numbers, and with nothing thrown but its end. */
  #guarded(name: string, call: HostFunction | undefined): (...given: (number | bigint)[]) => number {
    if (!call) {
      throw new Error(`no ${name}`);
    }
    const needsMemory = name !== "proc_exit";
    return (...given) => {
      try {
        if (needsMemory && !this.memory.isThere) {
          throw new GuestEnd(name === "poll_oneoff" ? "poll_oneoff: exports no memory" : "missing required memory export");
        }
        for (let index = 0; index < given.length; index++) {
          const value = given[index]!;
          if (typeof value === "number") {
            given[index] = value >>> 0;
          }
        }
        return call(...(given as number[]));
      } catch (error) {
        if (error instanceof GuestEnd || error instanceof WASIProcExit || isStackOverflow(error)) {
          throw error;
        }
        throw new GuestEnd("host function failed");
      }
    };
  }

  #process(): Record<string, HostFunction> {
    const write = (which: "args" | "env", pointers: number, data: number) => {
      for (const text of this.#texts[which]) {
        this.memory.setUint32(pointers, data);
        // The text and its end, one after the other, as wasmtime writes them.
        this.memory.check(data, text.length - 1);
        this.memory.check(data + text.length - 1, 1);
        this.memory.part(data, text.length).set(text);
        pointers += 4;
        data += text.length;
      }
      return wasi.ERRNO_SUCCESS;
    };
    // In bytes of UTF-8: the shim counts UTF-16, and then writes beyond what the guest has for it.
    const sizes = (which: "args" | "env", count: number, size: number) => {
      const texts = this.#texts[which];
      this.memory.setUint32(count, texts.length);
      this.memory.setUint32(size, texts.reduce((sum, text) => sum + text.length, 0));
      return wasi.ERRNO_SUCCESS;
    };
    return {
      args_get: (pointers, data) => write("args", pointers!, data!),
      args_sizes_get: (count, size) => sizes("args", count!, size!),
      environ_get: (pointers, data) => write("env", pointers!, data!),
      environ_sizes_get: (count, size) => sizes("env", count!, size!),
      proc_exit: (code) => {
        throw new WASIProcExit(code!);
      },
      proc_raise: (signal) => known("enum", "Signal", signal! < SIGNALS, wasi.ERRNO_NOTSUP),
      sched_yield: () => wasi.ERRNO_SUCCESS,
    };
  }

  #time(): Record<string, HostFunction> {
    return {
      clock_res_get: (id, at) => this.#tell("clock_res_get", id!, at!, () => (this.clock ? STEP_NS : 1000n)),
      clock_time_get: (id, _precision, at) => {
        const read = () => (this.clock ? this.clock.readNs() + this.#startNs(id!) : this.guestNowNs(id!));
        return this.#tell("clock_time_get", id!, at!, read);
      },
      poll_oneoff: (given, out, count, result) => pollOneoff(this, given!, out!, count!, result!),
      random_get: (at, size) => this.#randomGet(at!, size!),
    };
  }

  #tell(name: string, id: number, at: number, read: () => bigint): number {
    if (this.clock) {
      this.memory.checkFor(name, at, 8, 8);
    } else {
      known("enum", "Clockid", id < CLOCKS);
    }
    if (id > wasi.CLOCKID_MONOTONIC) {
      return id < CLOCKS ? wasi.ERRNO_BADF : wasi.ERRNO_INVAL;
    }
    this.memory.setUint64(at, read());
    return wasi.ERRNO_SUCCESS;
  }

  #startNs(id: number): bigint {
    return id === wasi.CLOCKID_REALTIME ? START_NS : 0n;
  }

  guestNowNs(id: number): bigint {
    if (this.clock) {
      return this.clock.elapsedNs + this.#startNs(id);
    }
    const now = performance.now();
    if (id === wasi.CLOCKID_MONOTONIC) {
      return BigInt(Math.round(now * 1e6));
    }
    return BigInt(Date.now()) * 1_000_000n;
  }

  #randomGet(at: number, size: number): number {
    if (this.#random) {
      this.memory.checkFor("random_get", at, size);
      this.#random.fill(this.memory.part(at, size));
      return wasi.ERRNO_SUCCESS;
    }
    if (size > COPIED_BYTES_MAX) {
      throw new GuestEnd(`requested len ${size} exceeds limit ${COPIED_BYTES_MAX}`);
    }
    const target = this.memory.part(at, size);
    for (let done = 0; done < size; done += RANDOM_PIECE_BYTES) {
      crypto.getRandomValues(target.subarray(done, done + RANDOM_PIECE_BYTES));
    }
    return wasi.ERRNO_SUCCESS;
  }

  #stream(fd: number): Stream | undefined {
    const found: Fd | undefined = this.fds[fd];
    return found instanceof Stream ? found : undefined;
  }

  isOpen(fd: number, isInput: boolean): boolean {
    return this.#stream(fd)?.isInput === isInput;
  }

  /** Returns what the shim does with a descriptor that there is, and the errno of none otherwise. */
  #of(fd: number | undefined, use: (stream: Stream) => number): number {
    const stream = this.#stream(fd!);
    return stream ? use(stream) : wasi.ERRNO_BADF;
  }

  #streams(): Record<string, HostFunction> {
    return {
      fd_read: (fd, at, count, result) => this.#read(fd!, at!, count!, result!),
      fd_write: (fd, at, count, result) => this.#write(fd!, at!, count!, result!),
      fd_pread: (fd, at, count) => this.#transfer(fd!, true, at!, count!, () => wasi.ERRNO_SPIPE),
      fd_pwrite: (fd, at, count) => this.#transfer(fd!, false, at!, count!, () => wasi.ERRNO_SPIPE),
      fd_seek: (fd, _offset, whence) => {
        known("enum", "Whence", whence! < 3);
        return this.#of(fd, () => wasi.ERRNO_SPIPE);
      },
      fd_tell: (fd) => this.#of(fd, () => wasi.ERRNO_SPIPE),
    };
  }

  /** Uses the first part that is not empty, as wasmtime has it, of a stream that is the right way round. */
  #transfer(fd: number, isInput: boolean, at: number, count: number, use: Transfer): number {
    if (count > VECTORS_MAX) {
      return wasi.ERRNO_NOMEM;
    }
    const [start, size] = this.memory.firstVector(at, count);
    const stream = this.#stream(fd);
    if (stream?.isInput !== isInput) {
      return wasi.ERRNO_BADF;
    }
    return size > COPIED_BYTES_MAX ? wasi.ERRNO_NOMEM : use(stream, this.memory.part(start, size));
  }

  #read(fd: number, at: number, count: number, result: number): number {
    return this.#transfer(fd, true, at, count, (stream, into) => {
      if (count === 0) {
        return wasi.ERRNO_INTR;
      }
      const { data } = stream.fd_read(into.length);
      into.set(data);
      this.memory.setUint32(result, data.length);
      return wasi.ERRNO_SUCCESS;
    });
  }

  #write(fd: number, at: number, count: number, result: number): number {
    return this.#transfer(fd, false, at, count, (stream, data) => {
      this.memory.setUint32(result, data.length ? stream.fd_write(data).nwritten : 0);
      return wasi.ERRNO_SUCCESS;
    });
  }

  #descriptors(): Record<string, HostFunction> {
    const isNoSocket = (fd: number | undefined) => this.#of(fd, () => wasi.ERRNO_NOTSOCK);
    return {
      fd_close: (fd) => this.#of(fd, () => (delete this.fds[fd!], wasi.ERRNO_SUCCESS)),
      fd_fdstat_get: (fd, at) =>
        this.#of(fd, (stream) => {
          this.memory.check(at!, 1);
          this.memory.check(at! + 2, 2, 2);
          this.memory.part(at!, 24, 8).fill(0);
          stream.fd_fdstat_get().fdstat.write_bytes(this.memory.view, at!);
          return wasi.ERRNO_SUCCESS;
        }),
      fd_filestat_get: (fd, at) => {
        this.#checkFirst("fd_filestat_get", [at!, 64, 8]);
        return this.#of(fd, () => {
          this.memory.check(at!, 8, 8);
          // All of it is zero; the shim writes parts of it in the wrong places.
          this.memory.part(at!, 64, 8).fill(0);
          return wasi.ERRNO_SUCCESS;
        });
      },
      fd_prestat_dir_name: (fd) => this.#of(fd, () => wasi.ERRNO_NOTDIR),
      fd_renumber: (from, to) =>
        this.#of(from, (stream) => {
          if (!this.#stream(to!)) {
            return wasi.ERRNO_BADF;
          }
          delete this.fds[from!];
          this.fds[to!] = stream;
          return wasi.ERRNO_SUCCESS;
        }),
      sock_accept: (fd, flags) => known("flag", "Fdflags", flags! < 32, isNoSocket(fd)),
      sock_recv: (fd, _at, _count, flags) => known("flag", "Riflags", flags! < 4, isNoSocket(fd)),
      sock_send: isNoSocket,
      sock_shutdown: (fd, how) => known("flag", "Sdflags", how! < 4, isNoSocket(fd)),
    };
  }

  /** Looks at pointers before all else where a deterministic run's functions are not wasmtime's own. */
  #checkFirst(name: string, ...regions: [start: number, size: number, alignment?: number][]): void {
    if (this.clock) {
      regions.forEach((region) => this.memory.checkFor(name, ...region));
    }
  }

  #pathError(at: number, size: number): number {
    const path = this.memory.part(at, size);
    try {
      UTF8.decode(path);
      return wasi.ERRNO_SUCCESS;
    } catch {
      return wasi.ERRNO_ILSEQ;
    }
  }

  /** What is of files alone, of which there is none: nothing that a descriptor is can do it. */
  #none(): Record<string, HostFunction> {
    const none = () => wasi.ERRNO_BADF;
    const flagged = (kind: string, at: number, most: number) => (given: number[]) =>
      known("flag", kind, given[at]! < most);
    const lookup = (at: number) => flagged("Lookupflags", at, 2);
    // All but path_open look at the descriptor before they do at the path.
    const path = (given: number[]) => this.#pathError(given[2]!, given[3]!);
    // A time that is given, and now, both.
    const times = (at: number) => (given: number[]) => (given[at]! & (given[at]! >> 1) & 5 ? wasi.ERRNO_INVAL : 0);
    const checked =
      (...checks: ((given: number[]) => number)[]): HostFunction =>
      (...given) => {
        for (const check of checks) {
          const error = check(given);
          if (error) {
            return error;
          }
        }
        return wasi.ERRNO_BADF;
      };
    const rights = (at: number) => (given: number[]) =>
      known("flag", "Rights", (BigInt(given[at]!) & ~RIGHTS_MASK & (2n ** 64n - 1n)) === 0n);
    return {
      fd_advise: checked((given) => known("enum", "Advice", given[3]! < 6)),
      fd_allocate: none,
      fd_datasync: none,
      fd_fdstat_set_flags: checked(flagged("Fdflags", 1, 32)),
      fd_fdstat_set_rights: checked(rights(1), rights(2)),
      fd_filestat_set_size: none,
      fd_filestat_set_times: checked(flagged("Fstflags", 3, 16)),
      fd_prestat_get: none,
      fd_readdir: (_fd, at, size, _cookie, result) => {
        this.#checkFirst("fd_readdir", [at!, size!], [result!, 4, 4]);
        return wasi.ERRNO_BADF;
      },
      fd_sync: none,
      path_create_directory: none,
      path_filestat_get: checked((given) => {
        this.#checkFirst("path_filestat_get", [given[2]!, given[3]!], [given[4]!, 64, 8]);
        return wasi.ERRNO_SUCCESS;
      }, lookup(1)),
      path_filestat_set_times: checked(lookup(1), flagged("Fstflags", 6, 16), times(6)),
      path_link: checked(lookup(1)),
      path_open: checked(lookup(1), flagged("Oflags", 4, 16), rights(5), rights(6), flagged("Fdflags", 7, 32), path),
      path_readlink: none,
      path_remove_directory: (_fd, at, size) => {
        this.memory.checkFor("path_remove_directory", at!, size!);
        return wasi.ERRNO_BADF;
      },
      path_rename: none,
      path_symlink: none,
      path_unlink_file: none,
    };
  }
}

/** Ends the guest when a number is not one of those that there are; returns result otherwise. */
function known(form: "enum" | "flag", what: string, isKnown: boolean, result = 0): number {
  if (!isKnown) {
    throw new GuestEnd(`Invalid ${form} value ${what}`);
  }
  return result;
}
