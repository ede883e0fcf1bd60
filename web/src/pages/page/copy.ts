// Buttons that copy. The clipboard is there in secure contexts alone; elsewhere the text is selected for the reader to copy.
import { make } from "./element";

const SHOWN_MS = 1500;

export function copyButton(what: string, text: () => string, label = "Copy"): HTMLButtonElement {
  const button = make("button", { type: "button", class: "quiet small", "aria-label": `${label} ${what}`, title: `${label} ${what}` }, label);
  button.addEventListener("click", () => {
    void copy(text()).then((isDone) => {
      button.textContent = isDone ? "Copied" : "No clipboard";
      setTimeout(() => (button.textContent = label), SHOWN_MS);
    });
  });
  return button;
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text: string): boolean {
  const area = make("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  const before = document.activeElement;
  area.select();
  // Deprecated, and the only way there is over plain HTTP beyond localhost.
  const isDone = document.execCommand("copy");
  area.remove();
  if (before instanceof HTMLElement) {
    before.focus();
  }
  return isDone;
}
