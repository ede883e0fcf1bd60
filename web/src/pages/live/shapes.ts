// What the gateway tells, as types: events of /events and /grid, tasks, results. Described in docs/http.md. What an older
// gateway does not tell is optional here.

export interface Hello {
  gateway: string;
  namespace: string;
  version: string;
  now: number;
  started?: number;
  samples: Sample[];
}

export interface Sample {
  t: number;
  ended: number;
  failed: number;
  running: number;
  queued: number;
  dispatch_p50_ms: number | null;
  dispatch_p95_ms: number | null;
  run_p50_ms: number | null;
  run_p95_ms: number | null;
  workers: number;
  slots: number;
  free: number;
  requests: number;
}

export type RunState = "scheduled" | "queued" | "running" | "succeeded" | "failed" | "cancelled";

export interface Task {
  id: string;
  name: string;
  owner: string | null;
  description: string;
  status: string;
  reason: string | null;
  duration: number;
  start: number;
  delay: number;
  repeats: number;
  priority: number;
  cpus: number | null;
  labels: Record<string, string>;
  retries: number;
  input: number | null;
  difficulty: number | null;
  args: string[];
  kind: string;
  entry: string | null;
  memory: number;
  output: number;
  module: string;
  deterministic: boolean;
  seed: number | null;
  fuel: number | null;
  cpu_seconds: number | null;
  spread: string;
  batch: boolean;
  parent: string | null;
  replicas?: number;
  quorum?: number;
  runs: Record<RunState, number>;
  created_at: string;
  finished_at: string | null;
  throughput?: number;
}

export interface Result {
  run: number;
  state: RunState;
  name?: string;
  result: string | null;
  exit_code: number | null;
  stdout: string;
  stderr: string;
  stdout_bytes: number;
  stderr_bytes: number;
  stdout_truncated: boolean;
  stderr_truncated: boolean;
  stdout_base64?: string;
  stderr_base64?: string;
  reason: string | null;
  detail: string | null;
  worker: string | null;
  attempts: number;
  queued_at: string;
  started_at: string | null;
  finished_at: string;
  wall_seconds: number;
  cpu_seconds: number;
  memory_bytes: number;
  queue_seconds: number;
  compile_seconds: number;
  instantiate_seconds: number;
  fuel: number | null;
  artifacts_url: string | null;
  artifacts_bytes: number;
}

/** A run that has no result yet. */
export interface UnendedRun {
  run: number;
  state: RunState;
}

export interface Worker {
  peer: string;
  kind: string;
  slots: number;
  free: number;
  busy?: number;
  runs_per_second?: number;
  runs_ended?: number;
  labels: Record<string, string>;
  lacks?: string[];
  breaker: string;
  disagreements?: number;
  host: string;
  since: string;
}

export interface Member {
  peer: string;
  role: string;
  host: string;
  addresses: string[];
  meta: Record<string, string>;
  age_seconds: number;
  slots: number | null;
  free: number | null;
  queued: number | null;
}

export interface Packet {
  t: number;
  kind: string;
  size: number;
  namespace: string | null;
  peer: string | null;
  distance: number | null;
  dropped: string | null;
}

export interface GridWhole {
  position: number;
  repeats: number;
  per_cell: number;
  cells: string;
}

export interface GridPatch {
  position: number;
  cells: [number, string][];
}

export const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export function taskTitle(task: Task): string {
  return task.name || task.id;
}

export function endedRuns(task: Task): number {
  return task.runs.succeeded + task.runs.failed + task.runs.cancelled;
}
