/** Keeps events in the order in which they were recorded while some of them wait for their text to be classified. */

/** Beyond this nothing waits any longer: memory is bounded, and a record without a class is still a record. `units` of UTF-16 text. */
const MAX_WAITING = { events: 20_000, units: 8 * 1024 * 1024 }

interface Waiting {
  ready: boolean
  units: number
  write: () => void
}

export interface Sequencer {
  /** Nothing waits, so a record that is ready may be written at once. */
  readonly idle: boolean
  /** Writes now or after everything before it. `units`: text that is kept in memory until then. */
  add(write: () => void, units: number): void
  /** Waits for `ready`, which never rejects; `write` then says what is known by then. */
  addWhen(ready: Promise<unknown>, write: () => void, units: number): void
  /** Resolves when everything added so far is written. */
  settled(): Promise<void>
}

export function sequencer(): Sequencer {
  return new Queue()
}

/** A class, since a literal with getters is a dictionary to V8, and every statement asks whether it is idle. */
class Queue implements Sequencer {
  readonly #queue: Waiting[] = []
  #head = 0
  #units = 0

  get idle(): boolean {
    return this.#queue.length === 0
  }

  add(write: () => void, size: number): void {
    if (this.#queue.length === 0) write()
    else this.#push({ ready: true, units: size, write })
  }

  addWhen(ready: Promise<unknown>, write: () => void, size: number): void {
    const item = { ready: false, units: size, write }
    this.#push(item)
    ready.then(() => {
      item.ready = true
      this.#drain()
    })
  }

  settled(): Promise<void> {
    if (this.#queue.length === 0) return Promise.resolve()
    return new Promise((resolve) => this.#push({ ready: true, units: 0, write: resolve }))
  }

  #push(item: Waiting): void {
    const queue = this.#queue
    queue.push(item)
    this.#units += item.units
    if (queue.length - this.#head <= MAX_WAITING.events && this.#units <= MAX_WAITING.units) return
    for (const each of queue) each.ready = true
    this.#drain()
  }

  #drain(): void {
    const queue = this.#queue
    for (let item = queue[this.#head]; item?.ready === true; item = queue[this.#head]) {
      this.#head++
      this.#units -= item.units
      item.write()
    }
    // Shifting an array of thousands once an item would be quadratic.
    if (this.#head === queue.length) {
      queue.length = 0
      this.#head = 0
    } else if (this.#head > 1_000) {
      queue.splice(0, this.#head)
      this.#head = 0
    }
  }
}
