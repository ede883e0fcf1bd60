// Which view the address names: the cluster, a task, a run of it. `#task=ID&run=N`. Pure.

export interface Route {
  task: string | null;
  run: number | null;
}

export function routeOf(hash: string): Route {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const task = fields.get("task") || null;
  const run = fields.get("run");
  return { task, run: task !== null && run !== null && /^\d{1,15}$/.test(run) ? Number(run) : null };
}

export function hashOf(route: Route): string {
  if (route.task === null) {
    return "#";
  }
  const run = route.run === null ? "" : `&run=${route.run}`;
  return `#task=${encodeURIComponent(route.task)}${run}`;
}

export function taskPath(id: string): string {
  return `tasks/${encodeURIComponent(id)}`;
}
