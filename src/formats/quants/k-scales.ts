/** The twelve bytes with eight six-bit scales and eight six-bit mins that q4_k and q5_k share. `j` is the sub-block. */

export function kScale(bytes: Uint8Array, offset: number, j: number): number {
  if (j < 4) return bytes[offset + j] & 63;
  return (bytes[offset + j + 4] & 15) | ((bytes[offset + j - 4] >> 6) << 4);
}

export function kMin(bytes: Uint8Array, offset: number, j: number): number {
  if (j < 4) return bytes[offset + j + 4] & 63;
  return (bytes[offset + j + 4] >> 4) | ((bytes[offset + j] >> 6) << 4);
}
