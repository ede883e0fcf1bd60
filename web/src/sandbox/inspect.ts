// What a module is, from its bytes alone: imports, exports, memory, tables, and where its sections are.
//
// Holds a reader of the binary format, as ww/wasm_inspect.py. It compiles nothing. Whether the code inside is valid is
// for the engine to say; whether a gateway should have sent it, for the gateway. Source: Core Specification 3.0, 5.5.

import { Reader } from "./binary";
import { Failure, oneLine } from "./failure";

const VALUE_TYPES: ReadonlyMap<number, string> = new Map([
  [0x7f, "i32"],
  [0x7e, "i64"],
  [0x7d, "f32"],
  [0x7c, "f64"],
  [0x7b, "v128"],
  [0x70, "funcref"],
  [0x6f, "externref"],
]);
const KINDS = ["function", "table", "memory", "global"] as const;
type Kind = (typeof KINDS)[number];
/** Where each section stands among the others; the numbers were given out in another order. */
const ORDER = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];
const HAVE_MAXIMUM = 1;
const MEMORY_GROW = 0x40;

export const SECTION = { custom: 0, type: 1, import: 2, function: 3, table: 4, memory: 5, export: 7, code: 10 } as const;

export interface FunctionType {
  parameters: readonly string[];
  results: readonly string[];
}

export interface Import {
  module: string;
  name: string;
  kind: Kind;
  /** Of a function. */
  type?: FunctionType;
}

/** Of a memory in pages, of a table in elements. */
export interface Bounds {
  minimum: number;
  maximum: number | null;
}

export interface Section {
  id: number;
  start: number;
  end: number;
}

/** A module, read. */
export class ModuleInfo {
  readonly data: Uint8Array;
  readonly sections: Section[] = [];
  readonly types: FunctionType[] = [];
  readonly imports: Import[] = [];
  /** Of all functions, the imported ones first. */
  readonly functions: FunctionType[] = [];
  readonly exports = new Map<string, { kind: Kind; index: number }>();
  readonly memories: Bounds[] = [];
  readonly tables: Bounds[] = [];
  importedFunctions = 0;
  /** Whether the memory can become larger: false when no instruction of it can be memory.grow. */
  mayGrow = false;

  constructor(data: Uint8Array) {
    this.data = data;
    this.#readHeader();
    this.#readSections();
  }

  /** Returns the signature of an exported function. */
  signature(name: string): FunctionType | undefined {
    const found = this.exports.get(name);
    return found?.kind === "function" ? this.functions[found.index] : undefined;
  }

  #readHeader(): void {
    const head = [...this.data.subarray(0, 8)].join();
    if (head !== "0,97,115,109,1,0,0,0") {
      throw new Failure("bad_module", "wasm: not a WebAssembly module of version 1");
    }
  }

  #readSections(): void {
    const reader = new Reader(this.data, 8, this.data.length, "cut off or damaged: a section");
    let last = -1;
    while (reader.at < reader.end) {
      const id = reader.byte();
      const start = reader.skip(reader.number());
      const end = reader.at;
      if (id === SECTION.custom) {
        continue;
      }
      const place = ORDER.indexOf(id);
      if (place <= last) {
        throw reader.bad(`number ${id} is unknown, there twice or in the wrong place`);
      }
      last = place;
      this.sections.push({ id, start, end });
      this.#readSection(id, new Reader(this.data, start, end, `section ${id}`));
    }
  }

  #readSection(id: number, section: Reader): void {
    const reading: Partial<Record<number, () => void>> = {
      [SECTION.type]: () => this.#readType(section),
      [SECTION.import]: () => this.#readImport(section),
      [SECTION.function]: () => this.functions.push(this.#type(section)),
      [SECTION.table]: () => this.#readTable(section),
      [SECTION.memory]: () => this.#readMemory(section),
      [SECTION.export]: () => this.#readExport(section),
    };
    const read = reading[id];
    if (read) {
      for (let left = section.count(); left; left--) {
        read();
      }
      if (section.at !== section.end) {
        throw section.bad("holds more than its entries");
      }
    }
    if (id === SECTION.code) {
      this.mayGrow = growsIn(this.data, section.at, section.end);
    }
  }

  #readType(section: Reader): void {
    if (section.byte() !== 0x60) {
      throw section.bad("holds a type that is not a function's");
    }
    this.types.push({ parameters: valueTypes(section), results: valueTypes(section) });
  }

  #type(section: Reader): FunctionType {
    const index = section.number();
    const type = this.types[index];
    if (!type) {
      throw section.bad(`names type ${index}, there are ${this.types.length}`);
    }
    return type;
  }

  #readImport(section: Reader): void {
    const wish: Import = { module: section.name(), name: section.name(), kind: kindOf(section) };
    if (wish.kind === "function") {
      wish.type = this.#type(section);
      this.functions.push(wish.type);
      this.importedFunctions++;
    } else if (wish.kind === "table") {
      this.#readTable(section);
    } else if (wish.kind === "memory") {
      this.#readMemory(section);
    } else {
      valueType(section);
      section.byte();
    }
    this.imports.push(wish);
  }

  #readTable(section: Reader): void {
    if (!valueType(section).endsWith("ref")) {
      throw section.bad("holds a table of something else than references");
    }
    this.tables.push(bounds(section));
  }

  #readMemory(section: Reader): void {
    this.memories.push(bounds(section));
    if (this.memories.length > 1) {
      throw section.bad("holds a second memory, which no worker runs");
    }
  }

  #readExport(section: Reader): void {
    const name = section.name();
    const kind = kindOf(section);
    const index = section.number();
    if (this.exports.has(name)) {
      throw section.bad(`holds the name '${oneLine(name, 60)}' twice`);
    }
    if (kind === "function" && !this.functions[index]) {
      throw section.bad(`names function ${index}, there are ${this.functions.length}`);
    }
    this.exports.set(name, { kind, index });
  }
}

/** Reads a value type. What stands behind one that is not known, nobody could say. */
export function valueType(section: Reader): string {
  const byte = section.byte();
  const known = VALUE_TYPES.get(byte);
  if (known === undefined) {
    throw section.bad(`holds a value type that no worker runs: 0x${byte.toString(16)}`);
  }
  return known;
}

function valueTypes(section: Reader): string[] {
  return Array.from({ length: section.count() }, () => valueType(section));
}

function kindOf(section: Reader): Kind {
  const kind = KINDS[section.byte()];
  if (kind === undefined) {
    throw section.bad("holds something of a kind that no worker runs");
  }
  return kind;
}

function bounds(section: Reader): Bounds {
  const flags = section.byte();
  if (flags > HAVE_MAXIMUM) {
    throw section.bad("holds limits of a form that no worker runs: shared, of 64 bits, or of pages of another size");
  }
  return { minimum: section.number(), maximum: flags & HAVE_MAXIMUM ? section.number() : null };
}

/** Looks for the instruction, and the first byte of the number of its memory, which is 0 in one form or another. */
function growsIn(data: Uint8Array, start: number, end: number): boolean {
  for (let at = data.indexOf(MEMORY_GROW, start); at >= 0 && at + 1 < end; at = data.indexOf(MEMORY_GROW, at + 1)) {
    if (data[at + 1] === 0 || data[at + 1] === 0x80) {
      return true;
    }
  }
  return false;
}
