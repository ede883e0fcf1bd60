// The worker for terminals: one file for Deno and Node, and the one that each of its slots runs.
import { defineConfig } from "vite";

const entry = (name: string) => new URL(`src/terminal/${name}.ts`, import.meta.url).pathname;

export default defineConfig({
  publicDir: false,
  build: {
    outDir: `${process.env.WW_WEB_OUT ?? "../ww/web"}/terminal`,
    emptyOutDir: true,
    target: "es2022",
    minify: false,
    modulePreload: false,
    rolldownOptions: {
      input: { worker: entry("worker"), slot: entry("slot") },
      external: [/^node:/],
      output: { entryFileNames: "[name].mjs", chunkFileNames: "[name].mjs" },
      preserveEntrySignatures: false,
    },
  },
});
