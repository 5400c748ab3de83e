/**
 * Memory modules as the firmware lists them: SMBIOS structures of type 17 in the table that Linux shows at
 * /sys/firmware/dmi/tables/DMI (root may read it; most virtual machines have none). Source: DMTF DSP0134, 7.18.
 */
export interface Dimm {
  /** `DIMM_A1`, as printed on the board. */
  readonly slot: string;
  /** 0: the slot is empty. */
  readonly bytes: number;
  /** Transfers per second as configured; 0 where it is not known. */
  readonly transfersPerSecond: number;
}

const MEMORY_DEVICE = 17;
const END = 127;

/** Slots in the order of the table; empty where the table is cut or of another kind. */
export function parseDimms(table: Uint8Array): Dimm[] {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
  const dimms: Dimm[] = [];
  for (let at = 0; at + 4 <= table.length; ) {
    const [type, length] = [table[at], table[at + 1]];
    if (length < 4 || at + length > table.length || type === END) break;
    const { strings, end } = stringsAfter(table, at + length);
    if (type === MEMORY_DEVICE && length >= 0x15) {
      const field = (offset: number) => (length >= offset + 2 ? view.getUint16(at + offset, true) : 0);
      const speed = field(0x20) || field(0x15);
      dimms.push({
        slot: strings[table[at + 0x10] - 1] ?? '',
        bytes: sizeOf(view, at, length),
        transfersPerSecond: speed === 0xffff ? 0 : speed * 1e6,
      });
    }
    at = end;
  }
  return dimms;
}

/** Megabytes, or kilobytes with the top bit; 0x7fff: in the extended field, megabytes. */
function sizeOf(view: DataView, at: number, length: number): number {
  const size = view.getUint16(at + 0x0c, true);
  if (size === 0 || size === 0xffff) return 0;
  if (size === 0x7fff) return length >= 0x20 ? (view.getUint32(at + 0x1c, true) & 0x7fffffff) * 2 ** 20 : 0;
  return (size & 0x7fff) * (size & 0x8000 ? 2 ** 10 : 2 ** 20);
}

/** Zero-terminated strings up to an empty one. */
function stringsAfter(table: Uint8Array, start: number): { strings: string[]; end: number } {
  const strings: string[] = [];
  let at = start;
  while (at < table.length && table[at] !== 0) {
    const stop = table.indexOf(0, at);
    const end = stop < 0 ? table.length : stop;
    strings.push(new TextDecoder('latin1').decode(table.subarray(at, end)).trim());
    at = end + 1;
  }
  return { strings, end: at + (strings.length === 0 ? 2 : 1) };
}
