/** Which bytes of a file have come: half-open intervals [start, end), in order, that neither touch nor overlap. */
export type Range = readonly [start: number, end: number];

export class Ranges {
  #list: Range[] = [];

  get list(): readonly Range[] {
    return this.#list;
  }

  /** Bytes in all of them. */
  get bytes(): number {
    return this.#list.reduce((sum, [start, end]) => sum + end - start, 0);
  }

  /** The end of what has come from byte 0 without a gap. */
  get prefix(): number {
    const [first] = this.#list;
    return first !== undefined && first[0] === 0 ? first[1] : 0;
  }

  add(start: number, end: number): void {
    if (start >= end) return;
    const before = this.#list.filter((range) => range[1] < start);
    const after = this.#list.filter((range) => range[0] > end);
    const touched = this.#list.slice(before.length, this.#list.length - after.length);
    const joined: Range = [Math.min(start, touched[0]?.[0] ?? start), Math.max(end, touched.at(-1)?.[1] ?? end)];
    this.#list = [...before, joined, ...after];
  }

  /** What is missing of [0, size), in pieces of at most `most` bytes. */
  gaps(size: number, most = Number.POSITIVE_INFINITY): Range[] {
    const gaps: Range[] = [];
    const cut = (start: number, end: number) => {
      for (let at = start; at < end; at += most) gaps.push([at, Math.min(end, at + most)]);
    };
    let at = 0;
    for (const [start, end] of this.#list) {
      cut(at, Math.min(start, size));
      at = end;
    }
    cut(at, size);
    return gaps;
  }
}
