/** Optional fields of clients are absent, undefined or null; the engine's options are absent. */

/** Without fields that are null or absent: the engine's defaults count there. */
export function defined<T extends object>(options: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined && value !== null),
  ) as never;
}
