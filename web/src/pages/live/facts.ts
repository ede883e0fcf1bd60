// A list of names and values, those that do not apply left out.
import { make } from "../page/element";

export type Fact = [name: string, value: string | Node | null | undefined | false];

export function facts(list: readonly Fact[], look = ""): HTMLDListElement {
  const shown = list.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "");
  return make("dl", { class: `facts ${look}`.trim() },
    ...shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value as string | Node)))); // prettier-ignore
}
