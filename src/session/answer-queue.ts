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

/** Characters that a message without an entry counts for. */
const BARE_WEIGHT = 32

export interface AnswerQueue<T> {
  readonly length: number
  /** Characters that all of it keeps in memory, about. */
  readonly weight: number
  push(kind: number, entry: T | undefined): void
  /** Kind of the oldest, 0 when empty. */
  headKind(): number
  head(): T | undefined
  shift(): void
  /** Removes those of `kind` that stand directly behind the head, at most `most`. Returns how many. In constant time but for counting. */
  dropBehindHead(kind: number, most: number): number
  /** The kind of the first behind the head that is another than this, 0 where none is. */
  kindBehindHead(but: number): number
}

/** @param weigh characters that an entry keeps in memory, about; the same whenever it is asked */
export function createAnswerQueue<T>(weigh: (entry: T) => number): AnswerQueue<T> {
  let kinds: number[] = []
  let entries: (T | undefined)[] = []
  let first = 0
  /** Behind the last. The arrays may be longer: giving their memory back after each answer and taking it again was 2 % of the CPU. */
  let end = 0
  let weight = 0

  const weightOf = (entry: T | undefined): number => (entry === undefined ? BARE_WEIGHT : weigh(entry))

  function removeFirst(count: number): void {
    first += count
    if (first < end && (first <= 4096 || first * 2 <= end)) return
    const few = kinds.length <= 64
    if (first < end || !few) {
      kinds = kinds.slice(first, end)
      entries = entries.slice(first, end)
    }
    end -= first
    first = 0
  }

  return {
    get length() {
      return end - first
    },
    get weight() {
      return weight
    },
    push(kind, entry) {
      kinds[end] = kind
      entries[end] = entry
      end++
      weight += weightOf(entry)
    },
    headKind: () => (first < end ? (kinds[first] ?? 0) : 0),
    head: () => (first < end ? entries[first] : undefined),
    shift() {
      if (first === end) return
      weight -= weightOf(entries[first])
      entries[first] = undefined
      removeFirst(1)
    },
    dropBehindHead(kind, most) {
      let count = 0
      while (count < most && first + 1 + count < end && kinds[first + 1 + count] === kind) {
        weight -= weightOf(entries[first + 1 + count])
        count++
      }
      if (count === 0) return 0
      // The head takes the place of the last of them.
      kinds[first + count] = kinds[first] ?? 0
      entries[first + count] = entries[first]
      entries.fill(undefined, first, first + count)
      removeFirst(count)
      return count
    },
    kindBehindHead(but) {
      for (let at = first + 1; at < end; at++) {
        const kind = kinds[at] ?? 0
        if (kind !== but) return kind
      }
      return 0
    },
  }
}
