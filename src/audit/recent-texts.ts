/**
 * Tells texts that come again from those that come once. A client that writes its literals into its SQL sends each text once: to keep
 * what is known of them filled caches of 16 MiB with what nobody asks for, and the collector worked on it longer than the relay on
 * everything else.
 */

/** A power of two. */
const SLOTS = 512
/** Longer texts are taken for such that come again: 512 of them would be much to hold. */
const MAX_UNITS = 2 * 1024
/** Units at the end of a text that make its slot: there the literals stand. */
const TAIL = 24

interface Recent<V> {
  text: string
  value: V
  /** How often it was asked for or put. */
  uses: number
}

export interface RecentTexts<V> {
  /** Counts as a use. */
  get(text: string): Recent<V> | undefined
  /** False where the text is too long. It takes the place of another text. */
  put(text: string, value: V): boolean
}

export function recentTexts<V>(): RecentTexts<V> {
  const slots: (Recent<V> | undefined)[] = new Array<Recent<V> | undefined>(SLOTS).fill(undefined)
  return {
    get(text) {
      if (text.length > MAX_UNITS) return undefined
      const found = slots[slotOf(text)]
      if (found === undefined || found.text !== text) return undefined
      found.uses++
      return found
    },
    put(text, value) {
      if (text.length > MAX_UNITS) return false
      slots[slotOf(text)] = { text, value, uses: 1 }
      return true
    },
  }
}

function slotOf(text: string): number {
  let hash = text.length
  for (let at = Math.max(0, text.length - TAIL); at < text.length; at++) hash = (hash * 31 + text.charCodeAt(at)) | 0
  return (hash ^ (hash >>> 15)) & (SLOTS - 1)
}
