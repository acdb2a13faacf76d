/**
 * A scripted frontend: sends any bytes over TLS or in the clear and reads messages one by one. It reads only when it is asked to,
 * so that a test which does not ask is a slow reader.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { type TLSSocket, connect as tlsConnect } from 'node:tls'
import { passwordMessage, sslRequest, startupMessage } from '../../src/wire/frontend.ts'
import { cstring } from '../../src/wire/writer.ts'
import type { Job, Stage } from './pgusher.ts'
import { type Message, shown } from './raw-messages.ts'

export * from './raw-messages.ts'

export interface RawOptions {
  /** `request` without it: SSLRequest first. `direct` begins with TLS, `none` stays in the clear. */
  tls?: 'request' | 'direct' | 'none'
  /** Further parameters of the StartupMessage. */
  parameters?: Readonly<Record<string, string>>
  /** Minor version of the protocol; 0 without it. */
  minor?: number
}

/** Messages that went by, counted and not kept. */
export interface Skipped {
  /** By type. */
  counts: Record<string, number>
  /** With headers. */
  bytes: number
}

export interface RawClient extends Disposable {
  readonly socket: Socket
  /** Its own port, which is `client.port` in the events. */
  readonly port: number
  /** ParameterStatus up to the first ReadyForQuery. */
  readonly parameters: Map<string, string>
  /** Everything else up to the first ReadyForQuery, as `shown`. */
  readonly greeting: string[]
  readonly key: { processId: number; secret: Buffer }
  send(...bytes: readonly Buffer[]): void
  /** Sends with respect for backpressure. */
  sendAll(bytes: Iterable<Buffer>): Promise<void>
  /** @throws Error when the connection ends before a whole message came */
  next(): Promise<Message>
  /** Messages up to the `count`th of that type, as `shown`. */
  until(type: string, count?: number): Promise<string[]>
  /** As `until`, for what is too large to keep. */
  skipUntil(type: string): Promise<Skipped>
  /** Sends and reads up to ReadyForQuery. */
  ask(...bytes: readonly Buffer[]): Promise<string[]>
  /** Messages up to the end of the connection, as `shown`; `reset` stands at their end where it broke. Closes this side too. */
  rest(): Promise<string[]>
  /** FIN; reading goes on. */
  finish(): void
  /** RST. */
  reset(): void
}

/** Below the ports that the kernel hands out (ip_local_port_range begins at 32,768). */
const OWN_PORTS = { first: 10_000, count: 22_000 }
let lastPort = Math.floor(Math.random() * OWN_PORTS.count)

/**
 * A socket to the stage's listener, in the clear, that has said nothing. From a port that none before it had: events are looked up
 * by it, and the kernel gives the port of a closed connection again after some thousand connects of anybody on the machine.
 */
export async function dial(stage: Pick<Stage, 'port'>): Promise<Socket> {
  for (;;) {
    lastPort = (lastPort + 1) % OWN_PORTS.count
    const localPort = OWN_PORTS.first + lastPort
    const socket = connect({ port: stage.port, host: '127.0.0.1', localPort, allowHalfOpen: true })
    socket.on('error', () => {}).setNoDelay(true)
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      if (!isTaken(error)) throw error
    }
  }
}

function isTaken(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'EADDRINUSE' || code === 'EADDRNOTAVAIL'
}

/** TLS on a dialled socket, verified. */
export async function secure(stage: Pick<Stage, 'ca'>, socket: Socket): Promise<TLSSocket> {
  const secured = tlsConnect({ socket, ca: stage.ca, servername: 'localhost', ALPNProtocols: ['postgresql'] })
  secured.on('error', () => {})
  await Promise.race([
    once(secured, 'secureConnect'),
    once(secured, 'close').then(() => Promise.reject(new Error('closed within the TLS handshake'))),
  ])
  return secured
}

/** Dialled, with TLS as asked for, before the StartupMessage. */
export async function approach(
  stage: Pick<Stage, 'port' | 'ca'>,
  tls: RawOptions['tls'] = 'request',
): Promise<RawClient> {
  const socket = await dial(stage)
  const port = socket.localPort ?? 0
  if (tls === 'none') return clientOn(socket, socket, port)
  if (tls === 'request') {
    socket.write(sslRequest())
    await once(socket, 'readable')
    const answer: Buffer | null = socket.read(1)
    if (answer?.toString() !== 'S') throw new Error(`SSLRequest was answered by ${answer}`)
  }
  return clientOn(await secure(stage, socket), socket, port)
}

export function startupOf(job: Job, { parameters = {}, minor = 0 }: RawOptions = {}): Buffer {
  const names = { user: job.user ?? 'shop_migrator', database: job.database ?? 'shop-prod', ...parameters }
  return startupMessage(new Map(Object.entries(names)), minor)
}

/** A session of a job. @throws Error with the ErrorResponse, as `shown`, where it is refused */
export async function rawSession(
  stage: Pick<Stage, 'port' | 'ca'>,
  job: Job,
  options: RawOptions = {},
): Promise<RawClient> {
  const client = await approach(stage, options.tls)
  const greeting = client.greeting
  client.send(startupOf(job, options))
  for (;;) {
    const message = await client.next()
    const text = shown(message)
    if (message.type === 'E') {
      client.socket.destroy()
      throw new Error(text)
    }
    if (text === 'R 3') client.send(passwordMessage(job.token))
    else if (message.type === 'S') {
      const [name, value] = cstrings(message.body)
      client.parameters.set(name ?? '', value ?? '')
    } else if (message.type === 'K') {
      client.key.processId = message.body.readInt32BE()
      client.key.secret = message.body.subarray(4)
    } else greeting.push(text)
    if (message.type === 'Z') return client
  }
}

function cstrings(body: Buffer): string[] {
  return body.toString().split('\0')
}

const HEADER = 5

function clientOn(socket: Socket, transport: Socket, port: number): RawClient {
  let pending: Buffer = Buffer.alloc(0)
  let broken = false
  let ended = false
  let wake: (() => void) | undefined
  socket.on('readable', () => wake?.())
  socket.on('end', () => {
    ended = true
    wake?.()
  })
  socket.on('error', () => {
    broken = true
  })
  socket.on('close', () => wake?.())

  /** More bytes; false at the end. */
  async function more(): Promise<boolean> {
    for (;;) {
      const chunk: Buffer | null = socket.destroyed ? null : socket.read()
      if (chunk !== null) {
        pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
        return true
      }
      if (ended || socket.destroyed) return false
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }

  async function header(): Promise<{ type: string; length: number }> {
    while (pending.length < HEADER) {
      if (!(await more())) throw new Error(broken ? 'reset' : 'end')
    }
    return { type: String.fromCharCode(pending[0] ?? 0), length: pending.readInt32BE(1) - 4 }
  }

  async function next(): Promise<Message> {
    const { type, length } = await header()
    const parts: Buffer[] = [pending]
    for (let size = pending.length; size < HEADER + length; ) {
      pending = Buffer.alloc(0)
      if (!(await more())) throw new Error(`${broken ? 'reset' : 'end'} in the middle of ${type}`)
      parts.push(pending)
      size += pending.length
    }
    const whole = parts.length === 1 ? pending : Buffer.concat(parts)
    pending = whole.subarray(HEADER + length)
    return { type, body: whole.subarray(HEADER, HEADER + length) }
  }

  async function until(type: string, count = 1): Promise<string[]> {
    const messages: string[] = []
    for (let seen = 0; seen < count; ) {
      const message = await next()
      messages.push(shown(message))
      if (message.type === type) seen++
    }
    return messages
  }

  async function skipUntil(wanted: string): Promise<Skipped> {
    const skipped: Skipped = { counts: {}, bytes: 0 }
    for (;;) {
      const { type, length } = await header()
      skipped.counts[type] = (skipped.counts[type] ?? 0) + 1
      skipped.bytes += HEADER + length
      let left = HEADER + length
      while (left > pending.length) {
        left -= pending.length
        pending = Buffer.alloc(0)
        if (!(await more())) throw new Error('the connection ended in the middle of a message')
      }
      pending = pending.subarray(left)
      if (type === wanted) return skipped
    }
  }

  const client: RawClient = {
    ...{ socket, port, parameters: new Map(), greeting: [], key: { processId: 0, secret: Buffer.alloc(0) } },
    send: (...bytes) => void socket.write(Buffer.concat(bytes)),
    async sendAll(bytes) {
      for (const part of bytes) if (!socket.write(part)) await once(socket, 'drain')
    },
    ...{ next, until, skipUntil },
    ask(...bytes) {
      client.send(...bytes)
      return until('Z')
    },
    async rest() {
      const messages: string[] = []
      for (;;) {
        try {
          messages.push(shown(await next()))
        } catch (error) {
          const text = error instanceof Error ? error.message : ''
          socket.end()
          return text === 'end' ? messages : [...messages, text]
        }
      }
    },
    finish: () => void socket.end(),
    reset: () => transport.resetAndDestroy(),
    [Symbol.dispose]: () => {
      socket.destroy()
      transport.destroy()
    },
  }
  return client
}

/** For StartupMessages that no builder makes. */
export function startupPacket(code: number, ...fields: readonly (string | Buffer)[]): Buffer {
  const body = Buffer.concat(fields.map((field) => (typeof field === 'string' ? cstring(field) : field)))
  const head = Buffer.alloc(8)
  head.writeInt32BE(body.length + 8)
  head.writeInt32BE(code, 4)
  return Buffer.concat([head, body])
}
