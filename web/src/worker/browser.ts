// What a browser calls itself, in a word or two.

const KNOWN: readonly (readonly [RegExp, string])[] = [
  [/Edg\/(\d+)/, "Edge"],
  [/OPR\/(\d+)/, "Opera"],
  [/Firefox\/(\d+)/, "Firefox"],
  [/(?:Headless)?Chrome\/(\d+)/, "Chrome"],
  [/Version\/(\d+).*Safari\//, "Safari"],
];

/** Returns "Firefox 140" of such a text, "browser" of one that nobody knows. */
export function browserName(userAgent: string): string {
  for (const [pattern, name] of KNOWN) {
    const match = pattern.exec(userAgent);
    if (match) {
      return `${name} ${match[1]}`;
    }
  }
  return "browser";
}
