/** Two ends of a channel within one process, for tests of what goes over it: structured clones, in order, later. */
import type { Port } from '../../src/workers/channel.ts'

export interface PortPair {
  ports: [Port, Port]
  /** Both sides see the other one go. */
  cut(): void
}

export function portPair(): PortPair {
  const listeners: ((message: unknown) => void)[] = []
  const closing: (() => void)[] = []
  let open = true
  const side = (own: 0 | 1): Port => ({
    send(message) {
      const copy: unknown = structuredClone(message)
      setImmediate(() => {
        if (open) listeners[1 - own]?.(copy)
      })
    },
    onMessage(listener) {
      listeners[own] = listener
    },
    onClose: (listener) => void closing.push(listener),
  })
  return {
    ports: [side(0), side(1)],
    cut() {
      if (!open) return
      open = false
      for (const close of closing) close()
    },
  }
}
