// Dark or light: as the system prefers, or as the reader chose, which is kept. The stylesheet goes by data-theme alone.
import { make, setAttribute } from "./element";

type Choice = "auto" | "light" | "dark";

const KEPT_AS = "ww theme";
const NEXT: Record<Choice, Choice> = { auto: "light", light: "dark", dark: "auto" };
const SIGNS: Record<Choice, string> = { auto: "◐", light: "☀", dark: "☾" };
const system = matchMedia("(prefers-color-scheme: dark)");

let choice = kept();

function kept(): Choice {
  try {
    const value = localStorage.getItem(KEPT_AS);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto"; // storage may be forbidden
  }
}

function applyTheme(): void {
  const isDark = choice === "dark" || (choice === "auto" && system.matches);
  setAttribute(document.documentElement, "data-theme", isDark ? "dark" : "light");
  document.dispatchEvent(new Event("theme"));
}

export function themeButton(): HTMLButtonElement {
  const button = make("button", { type: "button", class: "quiet icon" });
  const show = () => {
    button.textContent = SIGNS[choice];
    const name = choice === "auto" ? "as the system" : choice;
    setAttribute(button, "aria-label", `Colours: ${name}. Change to ${NEXT[choice] === "auto" ? "as the system" : NEXT[choice]}`);
    setAttribute(button, "title", `Colours: ${name}`);
  };
  button.addEventListener("click", () => {
    choice = NEXT[choice];
    try {
      localStorage.setItem(KEPT_AS, choice);
    } catch {
      // Then it holds until the page is left.
    }
    applyTheme();
    show();
  });
  show();
  return button;
}

system.addEventListener("change", applyTheme);
applyTheme();
