// What a run wrote, shown as text, or offered as a file where it is not UTF-8.
import { copyButton } from "../page/copy";
import { make } from "../page/element";
import { bytes } from "../page/format";
import type { Result } from "./shapes";

const SHOWN_CHARACTERS_MAX = 200_000;

export function outputOf(result: Result, stream: "stdout" | "stderr"): HTMLElement | null {
  const size = result[`${stream}_bytes`];
  const base64 = result[`${stream}_base64`];
  const text = result[stream];
  if (!size && !base64) {
    return null;
  }
  const cut = result[`${stream}_truncated`] ? ", cut at the task's limit" : "";
  const save = make("button", { type: "button", class: "quiet small" }, "Save");
  save.addEventListener("click", () => {
    const content = base64 === undefined ? text : Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    saveFile(new Blob([content]), `run-${result.run}.${stream}`);
  });
  const tools = make("span", { class: "actions" }, base64 === undefined && copyButton(stream, () => text), save);
  const head = make("header", {}, make("h3", {}, stream, " ", make("span", { class: "badge" }, `${bytes(size)}${cut}`)), tools);
  const isLong = text.length > SHOWN_CHARACTERS_MAX;
  const body = base64 === undefined
    ? make("pre", { tabindex: 0, "aria-label": stream }, isLong ? text.slice(0, SHOWN_CHARACTERS_MAX) : text)
    : make("p", { class: "help" }, "This is not UTF-8 text: save it to look at it."); // prettier-ignore
  const more = isLong && make("p", { class: "help" }, "The rest is not shown: save it.");
  return make("section", { class: "output" }, head, body, more);
}

/** Have the browser save a file. */
export function saveFile(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  const link = make("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
