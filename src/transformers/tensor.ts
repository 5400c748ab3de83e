/** The little of that library's Tensor that code around text generation touches: ids as bigints, with their shape. */
export class Tensor {
  readonly type = 'int64' as const;
  readonly dims: readonly number[];
  readonly data: BigInt64Array;

  constructor(data: BigInt64Array, dims: readonly number[]) {
    this.data = data;
    this.dims = dims;
  }

  /** Rows of equal length. */
  static of(rows: readonly (readonly number[])[]): Tensor {
    return new Tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]?.length ?? 0]);
  }

  get size(): number {
    return this.data.length;
  }

  tolist(): bigint[][] {
    const [rows, columns] = this.dims;
    return Array.from({ length: rows }, (_, row) => [...this.data.subarray(row * columns, (row + 1) * columns)]);
  }
}
