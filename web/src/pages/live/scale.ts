// Where the points of a chart lie. Pure: given samples and a size, returns numbers and paths.

/** The smallest of 1, 2, 2.5 or 5 times a power of ten that is not below the value; `least` where it is smaller than that. */
export function ceiling(value: number, least: number): number {
  if (!(value > least)) {
    return least;
  }
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= value * (1 - 1e-9));
  return (step ?? 10) * power;
}

export interface Area {
  width: number;
  height: number;
  /** The seconds that its left and right ends stand for. */
  from: number;
  to: number;
  /** The value at its top; the bottom is 0. */
  top: number;
}

export function x(area: Area, t: number): number {
  return (area.width * (t - area.from)) / (area.to - area.from || 1);
}

export function y(area: Area, value: number): number {
  return area.height * (1 - Math.min(value, area.top) / area.top);
}

/** A line through points, broken where there is none. */
export function line(area: Area, points: readonly (readonly [t: number, value: number | null])[]): string {
  let path = "";
  let isDown = false;
  for (const [t, value] of points) {
    if (value === null || t < area.from) {
      isDown = false;
      continue;
    }
    path += `${isDown ? "L" : "M"}${x(area, t).toFixed(1)} ${y(area, value).toFixed(1)}`;
    isDown = true;
  }
  return path;
}

/** What lies under a line without breaks. */
export function under(area: Area, points: readonly (readonly [t: number, value: number | null])[]): string {
  const whole = points.filter(([t]) => t >= area.from).map(([t, value]) => [t, value ?? 0] as const);
  if (whole.length < 2) {
    return "";
  }
  const [first, last] = [whole[0]!, whole[whole.length - 1]!];
  const bottom = area.height.toFixed(1);
  return `M${x(area, first[0]).toFixed(1)} ${bottom}${line(area, whole).replace(/^M/, "L")}L${x(area, last[0]).toFixed(1)} ${bottom}Z`;
}

/** The index of the sample that is nearest to a time; -1 when there are none. */
export function nearest(times: readonly number[], t: number): number {
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle]! < t) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low > 0 && t - times[low - 1]! < times[low]! - t ? low - 1 : times.length ? low : -1;
}
