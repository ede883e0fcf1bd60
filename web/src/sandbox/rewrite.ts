// A module as it is compiled here: its memory comes from outside, so that each run's limit holds; its tables are bounded.
//
// Holds the writing of sections. Must not know instructions: canonical.ts looks at them, and rewrites those of
// deterministic runs. What is hashed is what came. Custom sections go: nothing here tells a function's name.

import { TABLE_ELEMENTS_MAX } from "./about";
import { Writer } from "./binary";
import { canonicalCode, checkCode } from "./canonical";
import { type Bounds, type ModuleInfo, type Section, SECTION } from "./inspect";

/** The module that a guest's memory is imported from, and its name there. */
export const MEMORY_MODULE = "ww";
export const MEMORY_NAME = "memory";
const FUNCREF = 0x70;
const EXTERNREF = 0x6f;

/** Returns the module's bytes for the engine; metered: of a run that ends alike on every machine. */
export async function rewritten(info: ModuleInfo, metered: boolean): Promise<Uint8Array<ArrayBuffer>> {
  const out = new Writer(info.data.length + 1024);
  out.bytes([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
  let imports = needsImport(info) ? importSection(info) : null;
  for (const section of info.sections) {
    if (imports && section.id > SECTION.type) {
      out.section(SECTION.import, imports);
      imports = null;
      if (section.id === SECTION.import) {
        continue;
      }
    }
    await writeSection(out, info, section, metered);
  }
  if (imports) {
    out.section(SECTION.import, imports);
  }
  return out.taken();
}

function needsImport(info: ModuleInfo): boolean {
  return info.memories.length > 0 && !info.imports.some((wish) => wish.kind === "memory");
}

async function writeSection(out: Writer, info: ModuleInfo, section: Section, metered: boolean): Promise<void> {
  const data = info.data.subarray(section.start, section.end);
  if (section.id === SECTION.memory) {
    return;
  }
  if (section.id === SECTION.table) {
    out.section(section.id, tableSection(info, section));
  } else if (section.id === SECTION.code && metered) {
    out.section(section.id, await canonicalCode(info, section));
  } else {
    if (section.id === SECTION.code) {
      await checkCode(info, section);
    }
    out.byte(section.id);
    out.sized(data);
  }
}

/** The imports there are, and the memory. */
function importSection(info: ModuleInfo): Writer {
  const body = new Writer();
  body.number(info.imports.length + 1);
  const section = info.sections.find((each) => each.id === SECTION.import);
  if (section) {
    const start = section.start + numberBytes(info.data, section.start);
    body.bytes(info.data.subarray(start, section.end));
  }
  body.name(MEMORY_MODULE);
  body.name(MEMORY_NAME);
  body.byte(2);
  writeBounds(body, info.memories[0]!);
  return body;
}

function numberBytes(data: Uint8Array, at: number): number {
  let size = 1;
  while (data[at + size - 1]! >= 0x80) {
    size++;
  }
  return size;
}

function tableSection(info: ModuleInfo, section: Section): Writer {
  const body = new Writer();
  const imported = info.imports.filter((wish) => wish.kind === "table").length;
  const tables = info.tables.slice(imported);
  body.number(tables.length);
  // The types of references stand before the bounds, one byte each, in the order in which inspect.ts read them.
  const types = referenceTypes(info.data, section, tables);
  tables.forEach((table, index) => {
    body.byte(types[index]!);
    // What begins with more is never instantiated: see aboutOf.
    writeBounds(body, { minimum: bounded(table.minimum), maximum: bounded(table.maximum) });
  });
  return body;
}

function bounded(elements: number | null): number {
  return Math.min(elements ?? TABLE_ELEMENTS_MAX, TABLE_ELEMENTS_MAX);
}

function referenceTypes(data: Uint8Array, section: Section, tables: readonly Bounds[]): number[] {
  let at = section.start + numberBytes(data, section.start);
  return tables.map((table) => {
    const type = data[at] === EXTERNREF ? EXTERNREF : FUNCREF;
    at += 2;
    at += numberBytes(data, at);
    if (table.maximum !== null) {
      at += numberBytes(data, at);
    }
    return type;
  });
}

function writeBounds(body: Writer, bounds: Bounds): void {
  body.byte(bounds.maximum === null ? 0 : 1);
  body.number(bounds.minimum);
  if (bounds.maximum !== null) {
    body.number(bounds.maximum);
  }
}
