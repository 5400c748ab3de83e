/** Finds what `JSON.parse` hides: a key that comes twice in one object. */

/** The first such key of a *valid* JSON text, at any depth. */
export function duplicateKey(json: string): string | undefined {
  // One entry an open bracket: the keys of an object, or undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  let expectKey = false;
  for (let i = 0; i < json.length; i++) {
    switch (json[i]) {
      case '{':
        open.push(new Set());
        expectKey = true;
        break;
      case '[':
        open.push(undefined);
        expectKey = false;
        break;
      case '}':
      case ']':
        open.pop();
        expectKey = false;
        break;
      case ',':
        expectKey = open.at(-1) !== undefined;
        break;
      case '"': {
        const start = i;
        for (i++; json[i] !== '"'; i++) if (json[i] === '\\') i++;
        if (!expectKey) break;
        expectKey = false;
        const key: string = JSON.parse(json.slice(start, i + 1));
        const keys = open.at(-1)!;
        if (keys.has(key)) return key;
        keys.add(key);
      }
    }
  }
  return undefined;
}
