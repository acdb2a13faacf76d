/**
 * `serve --workers N`: the process that was started carries no connections. It keeps what there is once (credentials, limits, windows,
 * bars, the operator's socket, health) and watches over N workers, which share the port.
 */
import { createServer } from 'node:net'
import { diagnostic } from '../config/diagnostics.ts'
import type { ListenAddress } from '../config/scalars.ts'
import type { AuditConfig } from '../config/schema.ts'
import type { MintedCredential } from '../credentials/minter.ts'
import { AccessError } from '../errors.ts'
import { placeOf } from '../session/cancel-keys.ts'
import type { Front, FrontParts } from '../session/front.ts'
import { bindListener } from '../session/listener.ts'
import type { SnapshotSource } from '../session/snapshot.ts'
import { StartFault } from '../session/start-fault.ts'
import { createCredentialNumbers } from './desk.ts'
import { auditFileOf, instanceOf } from './names.ts'
import type { ToWorker, WorkerSettings } from './protocol.ts'
import { remoteSession } from './remote-session.ts'
import { createSlot, type ForkWorker, type Slot } from './slot.ts'
import { createSpare } from './spare.ts'
import { newTicketKeys, TICKET_KEY_PERIOD } from './tls-tickets.ts'

/** Milliseconds for what costs a worker next to nothing. One that hangs is found out later, and no scrape waits for that. */
const ANSWER = 3_000

type TcpAddress = Extract<ListenAddress, { kind: 'tcp' }>

/**
 * @param count of workers, 2 or more
 * @param instance this pgusher's name; the workers' have their number behind it
 * @throws StartFault for a configuration that cannot be shared
 */
export function openCrew(count: number, instance: string, parts: FrontParts, fork: ForkWorker): Front {
  const { first, shared } = parts
  checkShareable(parts)
  const numbers = createCredentialNumbers()
  const spare = createSpare(fork)
  let source: SnapshotSource = first.source
  let keys = newTicketKeys()
  let address: TcpAddress | undefined
  const settingsOf = (worker: number): WorkerSettings => {
    if (address === undefined) throw new TypeError('a worker is opened before there is a port')
    const own = { worker, instance: instanceOf(instance, worker), audit: auditOf(worker) }
    return { ...own, address, source, keys, bars: shared.bars.list() }
  }
  // Of the start, as that of this process: a reload changes neither.
  const auditOf = (worker: number): AuditConfig => {
    const { file, ...rest } = first.snapshot.config.audit
    return { ...rest, ...(file && { file: { ...file, path: auditFileOf(file.path, worker) } }) }
  }
  const slots = Array.from({ length: count }, (_, index) =>
    createSlot(index + 1, { parts, numbers, fork: spare.fork, settings: () => settingsOf(index + 1) }),
  )
  const open = (): Slot[] => slots.filter((slot) => slot.isOpen)
  parts.metrics.watch({ workers: () => open().length })
  const rotation = setInterval(() => {
    keys = newTicketKeys(keys)
    tellAll('ticketKeys', keys)
  }, TICKET_KEY_PERIOD).unref()

  function tellAll<Name extends keyof ToWorker>(name: Name, argument: Parameters<ToWorker[Name]>[0]): void {
    for (const slot of slots) slot.channel?.tell(name, argument as never)
  }

  return {
    async listen(asked) {
      if (asked.kind === 'unix') throw onlyTcp()
      address = await freePort(asked)
      try {
        await Promise.all(slots.map((slot) => slot.start()))
      } catch (error) {
        await stopAll(slots, 0)
        throw error
      }
      spare.keep()
      return address
    },
    get size() {
      return slots.reduce((sum, slot) => sum + slot.sessions, 0)
    },
    async sessions() {
      const found = await Promise.all(open().map((slot) => sessionsOf(slot)))
      return found.flat()
    },
    cancel: async (request) =>
      (await slotOfKey(slots, request)
        ?.channel?.call('cancel', request, ANSWER)
        .catch(() => false)) ?? false,
    async replaced(previous, next) {
      previous.verifier.close()
      source = next.source
      const ended = await Promise.all(slots.map((slot) => slot.replace({ source, keys })))
      return ended.reduce((sum, count) => sum + count, 0)
    },
    barred(target, why, life) {
      // Nobody waits for a worker that hangs: who comes for a credential behind this is refused here, and who came before is among the
      // sessions that are asked for next, on the same channel.
      tellAll('bar', { target, why, life })
    },
    endWarm(credential?: MintedCredential) {
      if (credential === undefined) return tellAll('endWarm', { credential })
      for (const slot of slots)
        if (slot.told(credential)) slot.channel?.tell('endWarm', { credential: numbers.of(credential) })
    },
    unready: () => [
      ...(open().length === 0 ? ['no worker listens'] : []),
      ...slots.flatMap(({ worker, auditFailure }) =>
        auditFailure === undefined ? [] : [`worker ${worker}: audit: ${auditFailure}`],
      ),
    ],
    metrics: () =>
      Promise.all(
        open().map(async (slot) => (await slot.channel?.call('metrics', undefined, ANSWER).catch(() => [])) ?? []),
      ),
    async rotateAudit() {
      await Promise.all(open().map((slot) => slot.channel?.call('rotateAudit', undefined)))
    },
    async drain(timeout) {
      clearInterval(rotation)
      spare.close()
      await stopAll(slots, timeout)
    },
  }
}

/** @throws StartFault */
function checkShareable({ first }: FrontParts): void {
  const { file, stdout } = first.snapshot.config.audit
  if (file !== undefined && !stdout) return
  const message = 'with --workers the audit goes to files: each worker writes one of its own'
  const hint = 'set audit.file.path, and leave audit.stdout out: lines of several processes would end up in each other'
  throw new StartFault(diagnostic('error', first.locate(['audit']), message, hint), undefined)
}

function onlyTcp(): AccessError {
  return new AccessError('internal_error', 'a Unix socket cannot be shared by workers', {
    hint: 'use a TCP address, or one process',
  })
}

/** Taken by nobody else: with SO_REUSEPORT a second pgusher on it would go unnoticed. @throws the system's error */
async function freePort(asked: TcpAddress): Promise<TcpAddress> {
  const probe = createServer()
  const bound = await bindListener(probe, asked)
  await new Promise((resolve) => probe.close(resolve))
  return bound.kind === 'tcp' ? bound : asked
}

async function sessionsOf(slot: Slot) {
  const { channel } = slot
  if (channel === undefined) return []
  const records = await channel.call('sessions', undefined).catch(() => [])
  return records.map((record) => remoteSession(record, channel))
}

async function stopAll(slots: readonly Slot[], timeout: number): Promise<void> {
  await Promise.all(slots.map((slot) => slot.stop(timeout)))
}

function slotOfKey(slots: readonly Slot[], { processId }: { processId: number }): Slot | undefined {
  const slot = slots[placeOf(processId)]
  return slot?.isOpen === true ? slot : undefined
}
