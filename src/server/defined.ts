/** Optional fields of clients are absent, undefined or null; the engine's options are absent. */

/** Without fields that are null or absent: the engine's defaults count there. */
export function defined<T extends object>(options: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined && value !== null),
  ) as never;
}

/** Stop strings without empty ones: front ends send their empty setting along. */
export function nonEmpty(stop: string | readonly string[] | null | undefined): string[] {
  return (typeof stop === 'string' ? [stop] : (stop ?? [])).filter((text) => text !== '');
}
