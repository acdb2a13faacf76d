/** The place of one worker: starts it, looks whether it lives, and starts another when it does not. */
import type { MintedCredential } from '../credentials/minter.ts'
import { AccessError } from '../errors.ts'
import type { FrontParts } from '../session/front.ts'
import type { SnapshotSource } from '../session/snapshot.ts'
import { type Channel, createChannel, type Port } from './channel.ts'
import { type CredentialNumbers, createDesk, type Desk } from './desk.ts'
import type { ToPrimary, ToWorker, WorkerSettings } from './protocol.ts'
import type { TicketKeys } from './tls-tickets.ts'

/** A process that was forked. */
export interface WorkerProcess {
  readonly pid: number | undefined
  readonly port: Port
  /** At once. */
  kill(): void
  /** Resolves when it is gone, with how it went. */
  readonly exited: Promise<string>
}

export type ForkWorker = () => WorkerProcess

export interface Slot {
  /** From 1. */
  readonly worker: number
  /** Undefined between two workers. */
  readonly channel: Channel<ToWorker> | undefined
  /** It listens. */
  readonly isOpen: boolean
  /** Sessions, and connections that wait for their credential. */
  readonly sessions: number
  /** Why the worker's audit cannot be written; undefined where it can. */
  readonly auditFailure: string | undefined
  /** Its worker has been told this credential, and may have a connection that was made with it. */
  told(credential: MintedCredential): boolean
  /** @throws AccessError with what keeps the first worker from listening */
  start(): Promise<void>
  /** A worker that cannot take it is replaced by one that begins with it. @returns how many sessions were ended */
  replace(argument: { source: SnapshotSource; keys: TicketKeys }): Promise<number>
  /** Resolves when the worker is gone; no other follows. @param timeout milliseconds for what runs */
  stop(timeout: number): Promise<void>
}

export interface SlotOptions {
  parts: FrontParts
  numbers: CredentialNumbers
  fork: ForkWorker
  /** Those of now. */
  settings(): WorkerSettings
}

/** Milliseconds between the end of a worker and the start of the next: none at first, then longer while they do not last. */
const BACKOFF = { first: 250, last: 10_000, lasts: 30_000 }
/** A worker that has not answered for so long hangs: it holds jobs and is of no use to any. */
const PING = { interval: 5_000, misses: 6 }
/** Milliseconds in which a worker takes a new configuration; longer, and jobs would go on by the old one. */
const REPLACE = 10_000
/** Milliseconds beyond the time that sessions have, for connections to hang up and the audit to be written. */
const GRACE = 5_000

interface Running {
  process: WorkerProcess
  channel: Channel<ToWorker>
  desk: Desk
  open: boolean
  startedAt: number
  watch: NodeJS.Timeout
}

export function createSlot(worker: number, { parts, numbers, fork, settings }: SlotOptions): Slot {
  const { log } = parts
  let running: Running | undefined
  let stopping = false
  let wait = 0
  let retry: NodeJS.Timeout | undefined

  function begin(): Running {
    const desk = createDesk(parts, numbers)
    const process = fork()
    const channel = createChannel<ToWorker, ToPrimary>(process.port, desk.handlers, (call, err) =>
      log.error({ err, call, worker }, 'what a worker asked for failed'),
    )
    const watch = watchOver(channel, () => {
      log.error({ worker, pid: process.pid }, 'a worker does not answer any more: it is ended')
      process.kill()
    })
    const begun: Running = { process, channel, desk, open: false, startedAt: performance.now(), watch }
    running = begun
    // Without its channel it would carry jobs that nobody can end.
    process.port.onClose(() => process.kill())
    process.exited.then((how) => gone(begun, how))
    return begun
  }

  async function open(begun: Running): Promise<void> {
    await begun.channel.call('open', settings())
    begun.open = true
  }

  function gone(ended: Running, how: string): void {
    clearInterval(ended.watch)
    ended.desk.clear()
    if (running === ended) running = undefined
    if (stopping) return
    const lasted = performance.now() - ended.startedAt
    wait = lasted >= BACKOFF.lasts ? 0 : wait
    log.error({ worker, pid: ended.process.pid, how, restart_ms: wait }, 'a worker has ended; another takes its place')
    retry = setTimeout(restart, wait)
    wait = Math.min(Math.max(wait * 2, BACKOFF.first), BACKOFF.last)
  }

  function restart(): void {
    const begun = begin()
    open(begun).then(
      () => log.info({ worker, pid: begun.process.pid }, 'a worker listens again'),
      (err: unknown) => {
        if (!stopping) log.error({ err, worker }, 'a worker could not begin')
        begun.process.kill()
      },
    )
  }

  return {
    worker,
    get channel() {
      return running?.channel
    },
    get isOpen() {
      return running?.open === true
    },
    get sessions() {
      return running?.desk.size ?? 0
    },
    get auditFailure() {
      return running?.desk.auditFailure
    },
    told: (credential) => running?.desk.told(credential) === true,
    async start() {
      const begun = begin()
      const ended = begun.process.exited.then((how) => Promise.reject(endedEarly(worker, how)))
      // Its channel closes before it is gone, which tells less.
      const opened = open(begun).catch((error: AccessError) =>
        error.code === 'draining' ? ended : Promise.reject(error),
      )
      await Promise.race([opened, ended])
    },
    async replace(argument) {
      const { channel, process, open: isOpen } = running ?? {}
      if (channel === undefined || isOpen !== true) {
        // What is being opened was given the configuration of before.
        process?.kill()
        return 0
      }
      return channel.call('replace', argument, REPLACE).catch((err: unknown) => {
        if (!stopping) log.error({ err, worker }, 'a worker could not take the new configuration: it is replaced')
        process?.kill()
        return 0
      })
    },
    async stop(timeout) {
      stopping = true
      clearTimeout(retry)
      if (running === undefined) return
      const { process, channel, open: isOpen } = running
      if (isOpen) channel.tell('drain', { timeout })
      else process.kill()
      const overdue = setTimeout(() => {
        log.error({ worker, pid: process.pid }, 'a worker did not end in its time: it is ended')
        process.kill()
      }, timeout + GRACE)
      await process.exited
      clearTimeout(overdue)
    },
  }
}

function endedEarly(worker: number, how: string): AccessError {
  return new AccessError('internal_error', `worker ${worker} ended before it listened: ${how}`, {
    hint: 'What it said itself stands above.',
  })
}

function watchOver(channel: Channel<ToWorker>, onSilent: () => void): NodeJS.Timeout {
  let unanswered = 0
  const ping = (): void => {
    if (unanswered === PING.misses) onSilent()
    unanswered++
    channel.call('ping', undefined).then(
      () => {
        unanswered = 0
      },
      () => {},
    )
  }
  return setInterval(ping, PING.interval).unref()
}
