// The sandbox for tests in Node: one file for its supervisor, one for a slot's thread. Into WW_WEB_OUT.
import { defineConfig } from "vite";

const entry = (name: string) => new URL(`${name}.ts`, import.meta.url).pathname;

export default defineConfig({
  logLevel: "error",
  publicDir: false,
  build: {
    outDir: process.env.WW_WEB_OUT,
    minify: false,
    modulePreload: false,
    target: "es2022",
    rolldownOptions: {
      input: { slot: entry("slot_entry"), same: entry("same") },
      external: [/^node:/],
      output: { entryFileNames: "[name].mjs", chunkFileNames: "[name].mjs" },
    },
  },
} as Parameters<typeof defineConfig>[0]);
