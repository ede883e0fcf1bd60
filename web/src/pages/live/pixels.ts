// Where the cells of a grid lie, and which pixels they have. Pure: given a size and states, fills an array of pixels. Whole lines of
// pixels are copied, since a hundred thousand rectangles a frame would be too slow.

export interface Layout {
  /** Pixels from one cell to the next, and of those the gap between. */
  pitch: number;
  gap: number;
  columns: number;
  rows: number;
  count: number;
}

export function layout(count: number, width: number, pitch: number, gap: number): Layout {
  const columns = Math.max(1, Math.floor((width + gap) / pitch));
  return { pitch, gap, columns, rows: Math.ceil(count / columns), count };
}

/** The largest of the pitches with which all cells fit in a size; the smallest where none does. */
export function fitting(count: number, width: number, height: number, pitches: readonly number[]): number {
  const fits = (pitch: number) => Math.ceil(count / Math.max(1, Math.floor(width / pitch))) * pitch <= height;
  return [...pitches].sort((a, b) => b - a).find(fits) ?? Math.min(...pitches);
}

/** The cell at a point; -1 where there is none. */
export function cellAt(of: Layout, x: number, y: number): number {
  const column = Math.floor(x / of.pitch);
  const row = Math.floor(y / of.pitch);
  const cell = row * of.columns + column;
  return x < 0 || y < 0 || column >= of.columns || cell >= of.count ? -1 : cell;
}

/** Fill pixels, `width` a line, with the cells that are to be seen when so many pixels lie above. */
export function fill(pixels: Uint32Array, width: number, top: number, of: Layout, states: Uint8Array, colors: Uint32Array): void {
  pixels.fill(0);
  const height = Math.floor(pixels.length / width);
  const size = of.pitch - of.gap;
  const line = new Uint32Array(width);
  const last = Math.min(of.rows - 1, Math.floor((top + height) / of.pitch));
  for (let row = Math.max(0, Math.floor(top / of.pitch)); row <= last; row += 1) {
    line.fill(0);
    const first = row * of.columns;
    const end = Math.min(of.columns, of.count - first);
    for (let column = 0; column < end; column += 1) {
      const at = column * of.pitch;
      line.fill(colors[states[first + column]!]!, at, at + size);
    }
    const begin = row * of.pitch - top;
    for (let y = Math.max(0, begin); y < Math.min(height, begin + size); y += 1) {
      pixels.set(line, y * width);
    }
  }
}
