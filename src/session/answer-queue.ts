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

/**
 * A class, as all that is made once a session and read for each message: an object literal with getters gets a hidden class of its own
 * each time, and every access to it is a look-up then.
 */
export class AnswerQueue<T> {
  readonly #weigh: (entry: T) => number
  #kinds: number[] = []
  #entries: (T | undefined)[] = []
  #first = 0
  /** Behind the last. The arrays may be longer: giving their memory back after each answer and taking it again was 2 % of the CPU. */
  #end = 0
  #weight = 0

  /** @param weigh characters that an entry keeps in memory, about; the same whenever it is asked */
  constructor(weigh: (entry: T) => number) {
    this.#weigh = weigh
  }

  get length(): number {
    return this.#end - this.#first
  }

  /** Characters that all of it keeps in memory, about. */
  get weight(): number {
    return this.#weight
  }

  push(kind: number, entry: T | undefined): void {
    this.#kinds[this.#end] = kind
    this.#entries[this.#end] = entry
    this.#end++
    this.#weight += this.#weightOf(entry)
  }

  /** Kind of the oldest, 0 when empty. */
  headKind(): number {
    return this.#first < this.#end ? (this.#kinds[this.#first] ?? 0) : 0
  }

  head(): T | undefined {
    return this.#first < this.#end ? this.#entries[this.#first] : undefined
  }

  shift(): void {
    if (this.#first === this.#end) return
    this.#weight -= this.#weightOf(this.#entries[this.#first])
    this.#entries[this.#first] = undefined
    this.#removeFirst(1)
  }

  /** Removes those of `kind` that stand directly behind the head, at most `most`. Returns how many. In constant time but for counting. */
  dropBehindHead(kind: number, most: number): number {
    const first = this.#first
    let count = 0
    while (count < most && first + 1 + count < this.#end && this.#kinds[first + 1 + count] === kind) {
      this.#weight -= this.#weightOf(this.#entries[first + 1 + count])
      count++
    }
    if (count === 0) return 0
    // The head takes the place of the last of them.
    this.#kinds[first + count] = this.#kinds[first] ?? 0
    this.#entries[first + count] = this.#entries[first]
    this.#entries.fill(undefined, first, first + count)
    this.#removeFirst(count)
    return count
  }

  /** The kind of the first behind the head that is another than this, 0 where none is. */
  kindBehindHead(but: number): number {
    for (let at = this.#first + 1; at < this.#end; at++) {
      const kind = this.#kinds[at] ?? 0
      if (kind !== but) return kind
    }
    return 0
  }

  #weightOf(entry: T | undefined): number {
    return entry === undefined ? BARE_WEIGHT : this.#weigh(entry)
  }

  #removeFirst(count: number): void {
    this.#first += count
    const first = this.#first
    if (first < this.#end && (first <= 4096 || first * 2 <= this.#end)) return
    if (first < this.#end || this.#kinds.length > 64) {
      this.#kinds = this.#kinds.slice(first, this.#end)
      this.#entries = this.#entries.slice(first, this.#end)
    }
    this.#end -= first
    this.#first = 0
  }
}
