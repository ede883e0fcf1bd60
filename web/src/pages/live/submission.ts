// What a form of a task says, as what POST /tasks takes. Pure: given texts, returns the request's fields. What a field may hold is
// the gateway's to say: here nothing is checked that it checks.

export interface Draft {
  module: string;
  name: string;
  description: string;
  entry: string;
  input: string;
  difficulty: string;
  /** One a line. */
  args: string;
  env: string;
  labels: string;
  stdin: string;
  stdinFile: Blob | null;
  repeats: string;
  duration: string;
  memory: string;
  priority: string;
  deterministic: boolean;
  seed: string;
  replicas: string;
  quorum: string;
}

const TEXTS = ["name", "description", "entry", "input", "difficulty", "repeats", "duration", "priority", "replicas", "quorum"] as const;
const LISTS = ["args", "env", "labels"] as const;

/** Return a form without what was left empty: that is the gateway's default. RangeError where memory is no size. */
export function formOf(draft: Draft): FormData {
  const form = new FormData();
  form.append("module", draft.module);
  for (const name of TEXTS) {
    if (draft[name].trim()) {
      form.append(name, draft[name].trim());
    }
  }
  for (const name of LISTS) {
    for (const line of linesOf(draft[name])) {
      // An argument may be empty; neither of the others can.
      if (line.trim() || name === "args") {
        form.append(name, line);
      }
    }
  }
  if (draft.memory.trim()) {
    form.append("memory", String(sizeOf(draft.memory)));
  }
  if (draft.deterministic) {
    form.append("deterministic", "true");
    if (draft.seed.trim()) {
      form.append("seed", draft.seed.trim());
    }
  }
  if (draft.stdinFile) {
    form.append("stdin", draft.stdinFile, "stdin");
  } else if (draft.stdin) {
    form.append("stdin", draft.stdin);
  }
  return form;
}

/** The lines of a text, but the empty one at its end; blanks are kept, since an argument may be blank. */
export function linesOf(text: string): string[] {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  while (lines.length && lines[lines.length - 1] === "") {
    lines.pop();
  }
  return lines;
}

/** Read a size in bytes: 1048576, 64M, 64 MiB, 1.5 GiB. */
export function sizeOf(text: string): number {
  const found = /^(\d+(?:\.\d+)?)\s*(?:([kmg])(?:i?b)?|b)?$/i.exec(text.trim());
  if (!found) {
    throw new RangeError(`memory: ${JSON.stringify(text.trim())} is no size; expected bytes, or such as 64 MiB`);
  }
  const powers: Record<string, number> = { k: 10, m: 20, g: 30 };
  return Math.round(Number(found[1]) * 2 ** (powers[(found[2] ?? "").toLowerCase()] ?? 0));
}
