/** A cache that is bounded by the size of what it holds and forgets what was not used for longest, roughly. */

export interface GenerationCache<V> {
  get(key: string): V | undefined
  /** `cost` in bytes, the key included. A value that costs more than half of the bound is not kept. */
  set(key: string, value: V, cost: number): void
  readonly bytes: number
}

/**
 * Two generations instead of a list in order of use: a hit costs one look-up and no write, which matters once a statement.
 * When the young one holds half of `maxBytes` it becomes the old one, and the old one's entries that nobody asked for are gone.
 */
export function generationCache<V>(maxBytes: number): GenerationCache<V> {
  type Entry = { value: V; cost: number }
  const half = maxBytes / 2
  let young = new Map<string, Entry>()
  let old = new Map<string, Entry>()
  let youngBytes = 0
  let oldBytes = 0
  const add = (key: string, entry: Entry): void => {
    if (entry.cost > half) return
    if (youngBytes + entry.cost > half) {
      old = young
      oldBytes = youngBytes
      young = new Map()
      youngBytes = 0
    }
    youngBytes += entry.cost - (young.get(key)?.cost ?? 0)
    young.set(key, entry)
  }
  return {
    get(key) {
      const entry = young.get(key)
      if (entry !== undefined) return entry.value
      const aged = old.get(key)
      if (aged === undefined) return undefined
      add(key, aged)
      return aged.value
    },
    set(key, value, cost) {
      add(key, { value, cost })
    },
    get bytes() {
      return youngBytes + oldBytes
    },
  }
}
