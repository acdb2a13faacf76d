/**
 * What the frontend sent and the backend has still to answer, in order. Two parallel arrays and a head index: a message costs no
 * object of its own unless it has something to remember.
 */
export const QUERY = 1
export const PARSE = 2
export const BIND = 3
export const DESCRIBE = 4
export const EXECUTE = 5
export const CLOSE = 6
export const SYNC = 7
export const FUNCTION_CALL = 8
/** CopyDone or CopyFail: no answer of its own, but where it stands decides which Sync the backend ignores. */
export const COPY_END = 9

export interface AnswerQueue<T> {
  readonly length: number
  push(kind: number, entry: T | undefined): void
  /** Kind of the oldest, 0 when empty. */
  headKind(): number
  head(): T | undefined
  shift(): void
  /** Removes from behind the head all of `kind` that stand before the first of `until`; all of them where none is. Returns how many, and whether `until` was met. */
  removeBehindHead(kind: number, until: number): { removed: number; met: boolean }
}

export function createAnswerQueue<T>(): AnswerQueue<T> {
  let kinds: number[] = []
  let entries: (T | undefined)[] = []
  let first = 0

  function reset(): void {
    kinds.length = 0
    entries.length = 0
    first = 0
  }

  return {
    get length() {
      return kinds.length - first
    },
    push(kind, entry) {
      kinds.push(kind)
      entries.push(entry)
    },
    headKind: () => kinds[first] ?? 0,
    head: () => entries[first],
    shift() {
      entries[first] = undefined
      first++
      if (first === kinds.length) reset()
      else if (first > 4096 && first * 2 > kinds.length) {
        kinds = kinds.slice(first)
        entries = entries.slice(first)
        first = 0
      }
    },
    removeBehindHead(kind, until) {
      let removed = 0
      for (let i = first + 1; i < kinds.length; ) {
        if (kinds[i] === until) return { removed, met: true }
        if (kinds[i] === kind) {
          kinds.splice(i, 1)
          entries.splice(i, 1)
          removed++
        } else i++
      }
      return { removed, met: false }
    },
  }
}
