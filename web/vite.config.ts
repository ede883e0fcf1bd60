// The pages: live.html at /, worker.html at /worker, api.html at /api, and what they load, under /assets.
import { defineConfig } from "vite";

const page = (name: string) => new URL(`${name}.html`, import.meta.url).pathname;

export default defineConfig({
  base: "./",
  build: {
    outDir: process.env.WW_WEB_OUT ?? "../ww/web",
    emptyOutDir: true,
    target: "es2022",
    // Everything is a file of its own: the pages' Content-Security-Policy allows nothing inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: { live: page("live"), worker: page("worker"), api: page("api") } },
  },
  worker: { format: "es" },
  test: { include: ["test/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
