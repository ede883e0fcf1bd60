// Dialogs: the browser's own, which keep the focus inside and close by Escape. Holds how they look alike, one that asks yes or no,
// and the one that asks for a token.
import { make, type Child } from "./element";

let made = 0;

/** Make a dialog that removes itself when it is closed; the caller shows it. */
export function dialog(title: string, kind: string, ...children: Child[]): HTMLDialogElement {
  const id = `dialog-${++made}`;
  const close = make("button", { type: "button", class: "quiet icon", "aria-label": "Close", onclick: () => element.close() }, "✕");
  const head = make("header", { class: "dialog-head" }, make("h2", { id }, title), close);
  const element = make("dialog", { class: `dialog ${kind}`, "aria-labelledby": id }, head, ...children);
  const before = document.activeElement;
  element.addEventListener("close", () => {
    element.remove();
    if (before instanceof HTMLElement && before.isConnected) {
      before.focus();
    }
  });
  document.body.append(element);
  return element;
}

/** Ask whether to do something. False when the dialog is closed in another way. */
export function confirm(title: string, text: string, yes: string): Promise<boolean> {
  return new Promise((resolve) => {
    let isYes = false;
    const no = make("button", { type: "button", onclick: () => element.close() }, "Keep it");
    const button = make("button", { type: "button", class: "danger", onclick: () => ((isYes = true), element.close()) }, yes);
    const element = dialog(title, "small", make("p", {}, text), make("div", { class: "actions" }, no, button));
    element.addEventListener("close", () => resolve(isYes));
    element.showModal();
    no.focus();
  });
}

export function askToken(wrong: boolean): Promise<string | null> {
  return new Promise((resolve) => {
    let token: string | null = null;
    const input = make("input", {
      id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
      "aria-describedby": "token-help", "aria-invalid": wrong ? "true" : null,
    }); // prettier-ignore
    const help = wrong
      ? "That token is not known here, or has expired."
      : "This gateway asks for a token (ww token create NAME). It is kept until this tab is closed.";
    const form = make(
      "form",
      { method: "dialog", class: "form", onsubmit: () => (token = input.value.trim() || null) },
      make("div", { class: "field" }, make("label", { for: "token" }, "Token"), input,
        make("p", { id: "token-help", class: wrong ? "problem" : "help" }, help)),
      make("div", { class: "actions" }, make("button", { class: "primary" }, "Use this token")),
    ); // prettier-ignore
    const element = dialog("Token", "small", form);
    element.addEventListener("close", () => resolve(token));
    element.showModal();
    input.focus();
  });
}
