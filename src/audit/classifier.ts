/** Classifies SQL texts in a worker thread: one flight a text, a deadline, a bounded queue and a cache. */
import type { Classification } from './classification.ts'
import { generationCache } from './generation-cache.ts'
import type { AuditLog } from './line-sink.ts'
import { maySecret } from './sql-redact.ts'
import { workerSlot } from './worker-slot.ts'

const CACHE_BYTES = 16 * 1024 * 1024
const QUEUE = { texts: 2_000, bytes: 8 * 1024 * 1024 }
/** Milliseconds after which a text's record does without. */
const DEADLINE_MS = 250
/** A text that takes longer holds everything up behind it: the worker is replaced. */
const HANG_MS = 1_000

export interface Classifier {
  /** What is known already. */
  peek(text: string): Classification | undefined
  /** Never rejects; a text that is not classified within the deadline is `unknown`. */
  classify(text: string): Promise<Classification>
  /** What may be recorded of a text that was not looked into: without its text where that may hold a secret. */
  givenUp(text: string): Classification
  close(): Promise<void>
}

export interface ClassifierOptions {
  log: AuditLog
  /** Milliseconds; for tests. */
  deadline?: number
}

interface Flight {
  text: string
  promise: Promise<Classification>
  resolve(classification: Classification): void
}

function givenUp(text: string, settled: boolean): Classification {
  const secret = maySecret(text)
  return { settled, parsed: false, statements: [], text: secret ? undefined : text, normalized: undefined, secret }
}

/** Roughly what a classification takes in memory, in bytes. */
function costOf(text: string, { statements, text: shown, normalized }: Classification): number {
  let units = text.length + (normalized?.length ?? 0) + (shown === text ? 0 : (shown?.length ?? 0))
  for (const statement of statements) {
    units += 200 + (statement.text?.length ?? 0) + (statement.normalized?.length ?? 0)
    for (const table of statement.tables) units += table.length
  }
  return units * 2
}

/** Resolves when the worker is there or did not come up in time; texts are then `unknown` until it does. */
export async function createClassifier(options: ClassifierOptions): Promise<Classifier> {
  const deadline = options.deadline ?? DEADLINE_MS
  const cache = generationCache<Classification>(CACHE_BYTES)
  const flights = new Map<string, Flight>()
  /** Waiting for the worker, oldest first. */
  const queue: Flight[] = []
  let queuedBytes = 0
  let current: Flight | undefined
  let hang: NodeJS.Timeout | undefined
  let closed = false

  const land = (flight: Flight, classification: Classification): void => {
    flights.delete(flight.text)
    cache.set(flight.text, classification, costOf(flight.text, classification))
    flight.resolve(classification)
  }

  const next = (): void => {
    if (current !== undefined || !worker.ready) return
    const flight = queue.shift()
    if (flight === undefined) return
    queuedBytes -= flight.text.length
    current = flight
    worker.send(flight.text)
    hang = setTimeout(() => {
      options.log('warn', 'classifying a statement took too long; the worker is replaced', { milliseconds: HANG_MS })
      abandon()
    }, HANG_MS)
    hang.unref()
  }

  const takeCurrent = (): Flight | undefined => {
    clearTimeout(hang)
    const flight = current
    current = undefined
    return flight
  }

  /** The text that the worker failed on is not tried again: it would fail again, and cost a worker again. */
  const abandon = (): void => {
    const flight = takeCurrent()
    if (flight !== undefined) land(flight, givenUp(flight.text, true))
    worker.replace()
  }

  const worker = workerSlot({
    log: options.log,
    onReady: next,
    onClassified(classification) {
      const flight = takeCurrent()
      if (flight !== undefined) land(flight, classification)
      next()
    },
    onCrash: abandon,
  })

  const depart = (text: string): Flight => {
    let resolve: Flight['resolve'] = () => {}
    const promise = new Promise<Classification>((fulfil) => {
      resolve = fulfil
    })
    const flight = { text, promise, resolve }
    flights.set(text, flight)
    queue.push(flight)
    queuedBytes += text.length
    const timer = setTimeout(() => resolve(givenUp(text, false)), deadline)
    timer.unref()
    void promise.then(() => clearTimeout(timer))
    next()
    return flight
  }

  await worker.started
  return {
    peek: (text) => cache.get(text),
    classify(text) {
      const known = cache.get(text)
      if (known !== undefined) return Promise.resolve(known)
      const flight = flights.get(text)
      if (flight !== undefined) return flight.promise
      const crowded = queue.length >= QUEUE.texts || queuedBytes + text.length > QUEUE.bytes
      if (closed || crowded) return Promise.resolve(givenUp(text, false))
      return depart(text).promise
    },
    givenUp: (text) => givenUp(text, false),
    async close() {
      closed = true
      clearTimeout(hang)
      for (const { text, resolve } of flights.values()) resolve(givenUp(text, false))
      flights.clear()
      queue.length = 0
      await worker.close()
    },
  }
}
