/** A TCP proxy that misbehaves when it is told to: between jobs and pgusher, or between pgusher and what it depends on. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** `up` is from whoever connects to the server behind the proxy. */
export type Direction = 'up' | 'down'

/** What happens to bytes of one direction. Without any of it they pass. */
export interface Fault {
  /** Milliseconds that each chunk is late. */
  latency?: number
  /** Nothing is read and nothing passes; the kernel's buffers fill up. */
  stall?: boolean
  /** Each byte in a write of its own. */
  byteByByte?: boolean
  /** After so many bytes of a connection more its both ends are reset, or see FIN. Counted from when the fault is set. */
  cut?: { after: number; how: 'reset' | 'finish' }
}

export interface Target {
  host: string
  port: number
}

export interface FaultProxy extends AsyncDisposable {
  readonly port: number
  /** Connections that are open now. */
  readonly open: number
  /** In place of what was set before, on running connections too. */
  set(direction: Direction | 'both', fault: Fault): void
  /** No faults from here on; running connections go on. */
  heal(): void
  /** Where new connections go from here on. */
  retarget(target: Target): void
  /** New connections are refused by the kernel, until `listen`. */
  refuse(): Promise<void>
  /** On the same port again. */
  listen(): Promise<void>
  /** RST to both sides of each connection. */
  resetAll(): void
  /** FIN to the receivers of a direction, as if its senders had said it; the other direction goes on. */
  halfClose(direction: Direction): void
}

interface Link {
  client: Socket
  server: Socket
  /** Bytes that passed since the fault was set. */
  passed: Record<Direction, number>
}

export async function startFaultProxy(target: Target): Promise<FaultProxy> {
  const links = new Set<Link>()
  const faults: Record<Direction, Fault> = { up: {}, down: {} }
  let changed = Promise.withResolvers<void>()
  let listener: Server | undefined
  let port = 0
  let behind = target

  const reset = (link: Link): void => {
    link.client.resetAndDestroy()
    link.server.resetAndDestroy()
  }
  const flowing = async (direction: Direction): Promise<void> => {
    while (faults[direction].stall === true) await changed.promise
  }
  const linkTo = (client: Socket): Link => ({
    client,
    server: connect({ ...behind, allowHalfOpen: true }),
    passed: { up: 0, down: 0 },
  })

  /** Writes what the fault lets through. False where the link was cut. */
  async function pass(link: Link, direction: Direction, chunk: Buffer): Promise<boolean> {
    const to = direction === 'up' ? link.server : link.client
    const { latency = 0, byteByByte = false, cut } = faults[direction]
    if (latency > 0) await delay(latency)
    const allowed = cut === undefined ? chunk : chunk.subarray(0, Math.max(0, cut.after - link.passed[direction]))
    for (const part of byteByByte ? bytesOf(allowed) : [allowed]) {
      if (to.destroyed) return false
      if (!to.write(part)) await Promise.race([once(to, 'drain'), once(to, 'close')]).catch(() => {})
      if (byteByByte) await new Promise(setImmediate)
    }
    link.passed[direction] += allowed.length
    if (cut === undefined || link.passed[direction] < cut.after) return true
    if (cut.how === 'reset') reset(link)
    else {
      link.client.end()
      link.server.end()
    }
    return false
  }

  async function carry(link: Link, direction: Direction): Promise<void> {
    const [from, to] = direction === 'up' ? [link.client, link.server] : [link.server, link.client]
    const chunks = from.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Buffer>
    for (;;) {
      await flowing(direction)
      const next = await chunks.next()
      await flowing(direction)
      if (next.done === true) break
      if (!(await pass(link, direction, next.value))) return
    }
    to.end()
  }

  function accept(client: Socket): void {
    const link = linkTo(client)
    links.add(link)
    for (const socket of [link.client, link.server]) {
      socket.setNoDelay(true)
      // RST on one side is RST on the other: whoever stalls must not hide it.
      socket.on('error', () => reset(link))
    }
    const closed = Promise.all([closing(link.client), closing(link.server)])
    closed.then(() => links.delete(link))
    for (const direction of ['up', 'down'] as const) carry(link, direction).catch(() => reset(link))
  }

  async function listen(): Promise<void> {
    if (listener !== undefined) return
    listener = createServer({ allowHalfOpen: true }, accept)
    listener.listen(port, '127.0.0.1')
    await once(listener, 'listening')
    port = (listener.address() as AddressInfo).port
  }
  const refuse = async (): Promise<void> => {
    listener?.close()
    listener = undefined
  }
  const apply = (directions: readonly Direction[], fault: Fault): void => {
    for (const direction of directions) {
      faults[direction] = fault
      for (const link of links) link.passed[direction] = 0
    }
    changed.resolve()
    changed = Promise.withResolvers()
  }

  await listen()
  return {
    get port() {
      return port
    },
    get open() {
      return links.size
    },
    set: (direction, fault) => apply(direction === 'both' ? ['up', 'down'] : [direction], fault),
    heal: () => apply(['up', 'down'], {}),
    retarget(next) {
      behind = next
    },
    refuse,
    listen,
    resetAll() {
      for (const link of links) reset(link)
    },
    halfClose(direction) {
      for (const { client, server } of links) (direction === 'up' ? server : client).end()
    },
    async [Symbol.asyncDispose]() {
      await refuse()
      for (const link of links) reset(link)
      // Whoever waits in a stall must see that its link is gone.
      apply(['up', 'down'], {})
    },
  }
}

function* bytesOf(chunk: Buffer): Iterable<Buffer> {
  for (let at = 0; at < chunk.length; at++) yield chunk.subarray(at, at + 1)
}

function closing(socket: Socket): Promise<void> {
  return new Promise((closed) => socket.once('close', () => closed()))
}
