// What all pages have: a way past the head, the head with the pages' names, the one main part, and what screen readers are told by.
import { Announcer } from "./announcer";
import { make, type Child } from "./element";
import { themeButton } from "./theme";

export interface Frame {
  readonly main: HTMLElement;
  readonly announcer: Announcer;
}

const PAGES = [
  ["Live", "./"],
  ["Worker", "./worker"],
  ["API", "./api"],
] as const;

/** Build a page: `current` is its name in the head, `status` what the head says beside the names. */
export function frame(current: (typeof PAGES)[number][0], ...status: Child[]): Frame {
  const announcer = new Announcer();
  const main = make("main", { id: "main", tabindex: "-1" });
  const links = PAGES.map(([name, href]) =>
    make("li", {}, make("a", { href, "aria-current": name === current ? "page" : null }, name)),
  );
  const skip = make("a", { class: "skip", href: "#main" }, "Skip to the content");
  // The address is what the live page's views go by: the link moves the focus and leaves it alone.
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
    main.scrollIntoView();
  });
  document.body.replaceChildren(
    skip,
    make("header", { class: "head" },
      make("a", { class: "brand", href: "./", "aria-label": "ww, live page" }, "ww"),
      make("nav", { "aria-label": "Pages" }, make("ul", {}, ...links)),
      make("div", { class: "head-status" }, ...status),
      themeButton()),
    main,
    announcer.element,
  ); // prettier-ignore
  return { main, announcer };
}
