// One run's result, in a dialog: facts, what it wrote, its artifacts.
import { copyButton } from "../page/copy";
import { dialog } from "../page/dialog";
import { make, setText } from "../page/element";
import { brief, bytes, milliseconds, quoted, seconds, whole } from "../page/format";
import type { Gateway } from "../page/gateway";
import { problemFrom } from "../page/problem";
import { facts } from "./facts";
import { outputOf, saveFile } from "./output";
import { taskPath } from "./route";
import type { Result, UnendedRun } from "./shapes";
import { StatusMark } from "./status";

export function curlOf(gateway: Gateway, path: string, more = ""): string {
  const token = gateway.hasToken ? ' -H "Authorization: Bearer $WW_TOKEN"' : "";
  return `curl -s${more}${token} ${quoted(new URL(path, location.href.split("#")[0]).href)}`;
}

/** Show a run's result; `closed` is told when the reader is done with it. */
export function showResult(gateway: Gateway, task: string, run: number, closed: () => void): HTMLDialogElement {
  const body = make("div", { class: "result", "aria-busy": "true" }, make("p", { class: "faint" }, "Asking …"));
  const element = dialog(`Run ${whole(run)}`, "wide", body);
  const path = `${taskPath(task)}/runs/${run}`;
  element.addEventListener("close", closed);
  element.showModal();
  gateway.json<Result | UnendedRun>(path).then(
    (result) => {
      body.replaceChildren(...("finished_at" in result ? resultParts(gateway, path, result) : unendedParts(result)));
      body.removeAttribute("aria-busy");
    },
    (error: unknown) => {
      body.replaceChildren(make("p", { class: "problem", role: "alert" }, problemFrom(error).detail));
      body.removeAttribute("aria-busy");
    },
  );
  return element;
}

function unendedParts(run: UnendedRun): HTMLElement[] {
  return [make("p", {}, new StatusMark(run.state).element), make("p", { class: "help" }, "It has no result: open it again when it has ended.")];
}

function resultParts(gateway: Gateway, path: string, result: Result): HTMLElement[] {
  const worker = result.worker && make("span", { class: "id", title: result.worker }, brief(result.worker), copyButton("the worker's peer id", () => result.worker ?? ""));
  const list = facts([
    ["State", new StatusMark(result.state).element],
    ["Name", result.name],
    ["Result", result.result !== null && make("code", {}, result.result)],
    ["Exit code", result.exit_code === null ? null : String(result.exit_code)],
    ["Reason", result.reason],
    ["Detail", result.detail],
    ["Worker", worker],
    ["Attempts", whole(result.attempts)],
    ["Ended", new Date(result.finished_at).toLocaleString()],
    ["Run time", seconds(result.wall_seconds)],
    ["Processor time", seconds(result.cpu_seconds)],
    ["Memory", bytes(result.memory_bytes)],
    ["Fuel", result.fuel === null ? null : whole(result.fuel)],
    ["From due to start", result.started_at && milliseconds(Date.parse(result.started_at) - Date.parse(result.queued_at))],
    ["Compiling", seconds(result.compile_seconds)],
  ]);
  const outputs = [outputOf(result, "stdout"), outputOf(result, "stderr")].filter((each) => each !== null);
  const tools = make("div", { class: "actions" }, result.artifacts_url !== null && artifactsLink(gateway, path, result),
    copyButton("of this run", () => curlOf(gateway, path), "Copy curl")); // prettier-ignore
  return [list, ...outputs, tools];
}

function artifactsLink(gateway: Gateway, path: string, result: Result): HTMLElement {
  const button = make("button", { type: "button", class: "small" }, `Artifacts, ${bytes(result.artifacts_bytes)}`);
  // Not a link: a request that a link makes has no token.
  button.addEventListener("click", () => {
    gateway.request(`${path}/artifacts`).then(
      async (response) => saveFile(await response.blob(), `run-${result.run}.zip`),
      (error: unknown) => setText(button, problemFrom(error).detail),
    );
  });
  return button;
}
