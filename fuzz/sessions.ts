/** A hostile client and a hostile PostgreSQL on the two scanners of a session and the tracker between them. */
import { createHistogram } from 'node:perf_hooks'
import { setImmediate as turn } from 'node:timers/promises'
import { createBackendHandler, maxBackendLength } from '../src/session/from-backend.ts'
import { createFrontendHandler, maxFrontendLength } from '../src/session/from-frontend.ts'
import { StatementTracker } from '../src/session/statement-tracker.ts'
import { createFrameScanner, type FrameHandler, type FrameScanner } from '../src/wire/frame-scanner.ts'
import { mutateFrames, slices } from './mutate.ts'
import { type Budget, type Case, type Outcome, playCases, threadMicroseconds } from './part.ts'
import type { Random } from './random.ts'
import { RECORDED } from './recordings.ts'

const MiB = 1024 * 1024
/** Of resident memory, after a million frames each way; the collector is in no hurry. */
const MAX_GROWTH = 256 * MiB
const NOTHING = (): void => {}

interface Counts {
  up: number
  down: number
  records: number
}

/** Counts whole headers that the scanner took for a message. */
function counted(handler: FrameHandler, count: () => void): FrameHandler {
  return {
    ...handler,
    onHeader(type, length) {
      count()
      return handler.onHeader(type, length)
    },
  }
}

function startSession(counts: Counts) {
  const tracker = new StatementTracker(() => void counts.records++)
  let stopped = false
  const stop = (): void => {
    stopped = true
  }
  const decode = (buffer: Buffer, start: number, end: number): string => buffer.toString('utf8', start, end)
  const fromClient = createFrontendHandler(tracker, {
    ...{ functionCall: true, auditAccepts: () => true, decode: () => decode },
    ...{ prefetch: NOTHING, inject: NOTHING, stop, onTerminate: () => false },
  })
  const fromUpstream = createBackendHandler(tracker, {
    ...{ replication: false, inject: NOTHING, stop, onParameter: NOTHING, onFatal: NOTHING },
  })
  const scanners = {
    up: createFrameScanner(
      counted(fromClient, () => void counts.up++),
      maxFrontendLength,
    ),
    down: createFrameScanner(
      counted(fromUpstream, () => void counts.down++),
      maxBackendLength,
    ),
  }
  return { tracker, scanners, isOver: () => stopped }
}

/** Microseconds that a chunk took. */
const times = createHistogram()
let scans = 0

/** What is released is never more than what came, and never anything else but what was held back of it. */
function scan(scanner: FrameScanner, chunk: Buffer, held: { bytes: number }): boolean {
  held.bytes += chunk.length
  // Reading the clock takes longer than most chunks.
  const timed = scans++ % 64 === 0
  const began = timed ? threadMicroseconds() : 0
  const goesOn = scanner.scan(chunk, (released) => {
    held.bytes -= released.length
  })
  if (timed) times.record(1 + threadMicroseconds() - began)
  if (held.bytes < 0) throw new Error(`${-held.bytes} bytes more were released than came`)
  return goesOn
}

/** A long session of several recorded ones, so that what comes late in it is met too. */
function sessionOf(random: Random): { up: Buffer[]; down: Buffer[] } {
  const parts = Array.from({ length: 1 + random.below(6) }, () => random.pick(RECORDED).session)
  // Without Terminate, behind which nothing is read.
  const up = parts.flatMap((part) => part.up.filter((frame) => frame[0] !== 0x58 || random.chance(0.05)))
  return { up, down: parts.flatMap((part) => part.down) }
}

const ALL_UP = RECORDED.flatMap(({ session }) => session.up)
const ALL_DOWN = RECORDED.flatMap(({ session }) => session.down)

function playSession(counts: Counts): Case {
  return async (random, input) => {
    const { up, down } = sessionOf(random)
    const bytes = {
      up: Buffer.concat(mutateFrames(random, up, ALL_UP)),
      down: Buffer.concat(mutateFrames(random, down, ALL_DOWN)),
    }
    input(bytes.up)
    input(bytes.down)
    const { tracker, scanners, isOver } = startSession(counts)
    const chunks = {
      up: slices(random, bytes.up)[Symbol.iterator](),
      down: slices(random, bytes.down)[Symbol.iterator](),
    }
    const held = { up: { bytes: 0 }, down: { bytes: 0 } }
    const open = new Set<'up' | 'down'>(['up', 'down'])
    for (let chunk = 1; open.size > 0 && !isOver(); chunk++) {
      // As sockets would: a chunk is a turn of the event loop, and here a few.
      if (chunk % 256 === 0) await turn()
      const side = open.size === 1 ? [...open][0]! : random.pick(['up', 'down'] as const)
      const next = chunks[side].next()
      if (next.done === true || !scan(scanners[side], next.value, held[side])) open.delete(side)
    }
    tracker.finish('lost')
    if (tracker.running !== 0 || tracker.backlog !== 0) {
      throw new Error(
        `${tracker.running} statements and ${tracker.backlog} characters are left of a session that is over`,
      )
    }
  }
}

export async function fuzzSessions(budget: Budget): Promise<Outcome> {
  const counts: Counts = { up: 0, down: 0, records: 0 }
  const before = process.memoryUsage().rss
  const enough = (): boolean => counts.up >= budget.count && counts.down >= budget.count
  const outcome = await playCases('sessions', budget, enough, playSession(counts))
  const growth = process.memoryUsage().rss - before
  if (growth > MAX_GROWTH) outcome.violations.push(`sessions: resident memory grew by ${Math.round(growth / MiB)} MiB`)
  // A case has several turns of the event loop; a chunk has one.
  outcome.p99 = times.percentile(99) / 1e3
  outcome.figures = {
    'frames from clients': counts.up,
    'frames from PostgreSQL': counts.down,
    records: counts.records,
    'MiB grown': Math.round(growth / MiB),
  }
  return outcome
}
