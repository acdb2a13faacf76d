/** Keeps events in the order in which they were recorded while some of them wait for their text to be classified. */

/** Beyond this many waiting events nothing waits any longer: memory is bounded, and a record without a class is still a record. */
const MAX_WAITING = 20_000

interface Waiting {
  ready: boolean
  write: () => void
}

export interface Sequencer {
  /** Nothing waits, so a record that is ready may be written at once. */
  readonly idle: boolean
  /** Writes now or after everything before it. */
  add(write: () => void): void
  /** Waits for `ready`, which never rejects; `write` then says what is known by then. */
  addWhen(ready: Promise<unknown>, write: () => void): void
  /** Resolves when everything added so far is written. */
  settled(): Promise<void>
}

export function sequencer(): Sequencer {
  const queue: Waiting[] = []
  let head = 0
  const drain = (): void => {
    for (let item = queue[head]; item?.ready === true; item = queue[head]) {
      head++
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
  const idle = (): boolean => queue.length === 0
  return {
    get idle() {
      return idle()
    },
    add(write) {
      if (idle()) write()
      else queue.push({ ready: true, write })
    },
    addWhen(ready, write) {
      const item = { ready: false, write }
      queue.push(item)
      const release = (): void => {
        item.ready = true
        drain()
      }
      ready.then(release)
      if (queue.length - head > MAX_WAITING) {
        for (const each of queue) each.ready = true
        drain()
      }
    },
    settled() {
      if (idle()) return Promise.resolve()
      return new Promise((resolve) => {
        queue.push({ ready: true, write: resolve })
      })
    },
  }
}
