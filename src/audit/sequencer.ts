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
  const queue: Waiting[] = []
  let head = 0
  let units = 0
  const drain = (): void => {
    for (let item = queue[head]; item?.ready === true; item = queue[head]) {
      head++
      units -= item.units
      item.write()
    }
    // Shifting an array of thousands once an item would be quadratic.
    if (head === queue.length) {
      queue.length = 0
      head = 0
    } else if (head > 1_000) {
      queue.splice(0, head)
      head = 0
    }
  }
  const push = (item: Waiting): void => {
    queue.push(item)
    units += item.units
    if (queue.length - head <= MAX_WAITING.events && units <= MAX_WAITING.units) return
    for (const each of queue) each.ready = true
    drain()
  }
  return {
    get idle() {
      return queue.length === 0
    },
    add(write, size) {
      if (queue.length === 0) write()
      else push({ ready: true, units: size, write })
    },
    addWhen(ready, write, size) {
      const item = { ready: false, units: size, write }
      push(item)
      ready.then(() => {
        item.ready = true
        drain()
      })
    },
    settled() {
      if (queue.length === 0) return Promise.resolve()
      return new Promise((resolve) => push({ ready: true, units: 0, write: resolve }))
    },
  }
}
