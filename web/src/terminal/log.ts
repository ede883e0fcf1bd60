// Log lines on stderr, as the Python worker writes them.
//
// Holds their two forms. Must not know who logs.

import type { Level } from "./arguments";

const ORDER: readonly Level[] = ["debug", "info", "warning", "error"];

export class Log {
  readonly #least: number;
  readonly #asJson: boolean;
  readonly #write: (line: string) => void;

  constructor(least: Level, asJson: boolean, write: (line: string) => void = console.error) {
    this.#least = ORDER.indexOf(least);
    this.#asJson = asJson;
    this.#write = write;
  }

  info(message: string): void {
    this.#log("info", message);
  }

  warning(message: string): void {
    this.#log("warning", message);
  }

  #log(level: Level, message: string): void {
    if (ORDER.indexOf(level) < this.#least) {
      return;
    }
    // Whatever strangers put into it stays on one line.
    const line = message.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ");
    this.#write(this.#asJson ? asJson(level, line) : `${clock(new Date())} ${level.toUpperCase().padEnd(7)} ${line}`);
  }
}

function asJson(level: Level, message: string): string {
  const time = new Date().toISOString().replace("Z", "+00:00");
  return JSON.stringify({ time, level, logger: "ww.worker", message });
}

function clock(now: Date): string {
  return [now.getHours(), now.getMinutes(), now.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}
