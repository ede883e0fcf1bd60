// The last five minutes in samples of a second, oldest first. Bounded: what is older is forgotten.
import type { Sample } from "./shapes";

export const SECONDS_KEPT = 300;

export class History {
  samples: Sample[] = [];

  /** Begin again with what the gateway remembers. */
  restart(samples: Sample[]): void {
    this.samples = samples.slice(-SECONDS_KEPT);
  }

  add(sample: Sample): void {
    const last = this.latest;
    if (last && sample.t <= last.t) {
      return; // told twice, around a reconnect
    }
    this.samples.push(sample);
    while (this.samples.length > SECONDS_KEPT || this.samples[0]!.t <= sample.t - SECONDS_KEPT) {
      this.samples.shift();
    }
  }

  get latest(): Sample | undefined {
    return this.samples[this.samples.length - 1];
  }

  /** Samples in spans of so many seconds, newest first, each as one: counts are sums, levels the last, latencies the worst. */
  spans(seconds: number): Sample[] {
    const found: Sample[] = [];
    let key = NaN;
    for (const sample of this.samples) {
      const of = Math.floor(sample.t / seconds);
      const last = found[found.length - 1];
      if (of === key && last) {
        found[found.length - 1] = merged(last, sample);
      } else {
        found.push({ ...sample, t: of * seconds });
        key = of;
      }
    }
    return found.reverse();
  }
}

function merged(one: Sample, next: Sample): Sample {
  const worst = (a: number | null, b: number | null) => (a === null ? b : b === null ? a : Math.max(a, b));
  return {
    ...next,
    t: one.t,
    ended: one.ended + next.ended,
    failed: one.failed + next.failed,
    requests: one.requests + next.requests,
    dispatch_p50_ms: worst(one.dispatch_p50_ms, next.dispatch_p50_ms),
    dispatch_p95_ms: worst(one.dispatch_p95_ms, next.dispatch_p95_ms),
    run_p50_ms: worst(one.run_p50_ms, next.run_p50_ms),
    run_p95_ms: worst(one.run_p95_ms, next.run_p95_ms),
  };
}
