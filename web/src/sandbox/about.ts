// What is known of a module besides its code: what a slot needs to run it, as plain data.
//
// Holds what is called first, what may be called, what it imports, and what is wrong with it before it runs. Must not
// know its bytes: inspect.ts reads them.

import { Failure, oneLine } from "./failure";
import type { Reason } from "./invocation";
import type { FunctionType, Import, ModuleInfo } from "./inspect";

export const PAGE_BYTES = 1 << 16;
export const TABLE_ELEMENTS_MAX = 200_000;
const TABLES_MAX = 16;
export const WASI_MODULE = "wasi_snapshot_preview1";
const CALLABLE_MAX = 5_000;
const MEANT = ["_initialize", "_start", "run"];

/** Signatures: i = i32, I = i64; every function returns an errno (i32), but for proc_exit. */
export const WASI_FUNCTIONS: Readonly<Record<string, string>> = {
  args_get: "ii",
  args_sizes_get: "ii",
  clock_res_get: "ii",
  clock_time_get: "iIi",
  environ_get: "ii",
  environ_sizes_get: "ii",
  fd_advise: "iIIi",
  fd_allocate: "iII",
  fd_close: "i",
  fd_datasync: "i",
  fd_fdstat_get: "ii",
  fd_fdstat_set_flags: "ii",
  fd_fdstat_set_rights: "iII",
  fd_filestat_get: "ii",
  fd_filestat_set_size: "iI",
  fd_filestat_set_times: "iIIi",
  fd_pread: "iiiIi",
  fd_prestat_dir_name: "iii",
  fd_prestat_get: "ii",
  fd_pwrite: "iiiIi",
  fd_read: "iiii",
  fd_readdir: "iiiIi",
  fd_renumber: "ii",
  fd_seek: "iIii",
  fd_sync: "i",
  fd_tell: "ii",
  fd_write: "iiii",
  path_create_directory: "iii",
  path_filestat_get: "iiiii",
  path_filestat_set_times: "iiiiIIi",
  path_link: "iiiiiii",
  path_open: "iiiiiIIii",
  path_readlink: "iiiiii",
  path_remove_directory: "iii",
  path_rename: "iiiiii",
  path_symlink: "iiiii",
  path_unlink_file: "iii",
  poll_oneoff: "iiii",
  proc_exit: "i",
  proc_raise: "i",
  random_get: "ii",
  sched_yield: "",
  sock_accept: "iii",
  sock_recv: "iiiiii",
  sock_send: "iiiii",
  sock_shutdown: "ii",
};

/** A function that numbers alone go in and out of. */
export interface Callable {
  parameters: readonly string[];
  result: string | null;
}

export interface About {
  needsWasi: boolean;
  /** Whether it exports its memory, as `memory`. */
  showsMemory: boolean;
  /** In pages; the memory is given to it when it is instantiated. */
  memory: { minimum: number; maximum: number } | null;
  /** How large its memory is at any time, where it cannot grow. */
  memoryBytes: number | null;
  callables: ReadonlyMap<string, Callable>;
  /** The function that is called before any other. */
  initializer: string;
  isReactor: boolean;
  /** Why no run of it can begin. */
  fault: { reason: Reason; detail: string } | null;
}

/** Picks it from what was read. Throws bad_module when what is called first cannot be. */
export function aboutOf(info: ModuleInfo): About {
  for (const name of ["_initialize", "_start"]) {
    const type = info.signature(name);
    if (info.exports.has(name) && (!type || type.parameters.length || type.results.length)) {
      throw new Failure("bad_module", `${name} is no function that takes and returns nothing`);
    }
  }
  const callables = callablesOf(info);
  const [memory] = info.memories;
  return {
    needsWasi: info.imports.length > 0,
    showsMemory: info.exports.get("memory")?.kind === "memory",
    memory: memory ? { minimum: memory.minimum, maximum: memory.maximum ?? PAGE_BYTES } : null,
    memoryBytes: info.mayGrow ? null : (memory?.minimum ?? 0) * PAGE_BYTES,
    callables,
    initializer: ["_initialize", "_start"].find((name) => callables.has(name)) ?? "",
    isReactor: callables.has("ProcessStdio") && callables.has("_start"),
    fault: faultOf(info),
  };
}

function callablesOf(info: ModuleInfo): Map<string, Callable> {
  const found: [string, Callable][] = [];
  for (const name of info.exports.keys()) {
    const type = info.signature(name);
    if (type && type.results.length <= 1 && [...type.parameters, ...type.results].every(isNumber)) {
      found.push([name, { parameters: type.parameters, result: type.results[0] ?? null }]);
    }
  }
  const meant = found.filter(([name]) => MEANT.includes(name));
  return new Map([...meant, ...found.slice(0, CALLABLE_MAX)]);
}

function isNumber(type: string): boolean {
  return /^[if]/.test(type) && type.length === 3;
}

function faultOf(info: ModuleInfo): About["fault"] {
  for (const wish of info.imports) {
    const wrong = wrongWith(wish);
    if (wrong) {
      // What comes behind a line's end in a name is nothing that people should see.
      return { reason: "compile", detail: oneLine(wrong.split(/[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/u)[0]!) };
    }
  }
  if (info.tables.length > TABLES_MAX) {
    return { reason: "memory", detail: `defined tables count of ${info.tables.length} exceeds the per-instance limit of 16` };
  }
  const large = info.tables.find((table) => table.minimum > TABLE_ELEMENTS_MAX);
  if (large) {
    return { reason: "memory", detail: `table minimum size of ${large.minimum} elements exceeds table limits` };
  }
  return null;
}

function wrongWith(wish: Import): string | null {
  const letters = wish.module === WASI_MODULE ? WASI_FUNCTIONS[wish.name] : undefined;
  const said = `\`${wish.module}::${wish.name}\``;
  if (letters === undefined || !wish.type) {
    return `unknown import: ${said} has not been defined`;
  }
  const known: FunctionType = {
    parameters: [...letters].map((letter) => (letter === "i" ? "i32" : "i64")),
    results: wish.name === "proc_exit" ? [] : ["i32"],
  };
  return JSON.stringify(known) === JSON.stringify(wish.type) ? null : `incompatible import type for ${said}`;
}
