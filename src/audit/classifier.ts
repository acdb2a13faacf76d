/** Classifies SQL texts in a worker thread: one flight a text, a deadline, a bounded queue and a cache. */
import type { Classification } from './classification.ts'
import { generationCache } from './generation-cache.ts'
import type { AuditLog } from './line-sink.ts'
import { maySecret } from './sql-redact.ts'
import { isExemplar, sameShape, shapeOf } from './sql-shape.ts'
import { workerSlot } from './worker-slot.ts'

const CACHE_BYTES = 16 * 1024 * 1024
const SHAPES_BYTES = 4 * 1024 * 1024
/** UTF-16 units of text. */
const QUEUE = { texts: 2_000, units: 4 * 1024 * 1024 }
const DEADLINE_MS = 250
/** A text that takes longer holds everything up behind it: the worker is replaced. A busy machine takes tens of milliseconds. */
const HANG_MS = 5_000

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
  /** Milliseconds after which a text's record does without; 250 without it. */
  deadline?: number | undefined
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

/** The texts that wait for the worker, oldest first, and the one that it reads. */
interface Runway {
  /** False when there are too many already. */
  join(flight: Flight): boolean
  readonly started: Promise<void>
  close(): Promise<void>
}

function runway(log: AuditLog, land: (flight: Flight, classification: Classification) => void): Runway {
  const queue: Flight[] = []
  let queuedUnits = 0
  let current: Flight | undefined
  let hang: NodeJS.Timeout | undefined

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

  const next = (): void => {
    if (current !== undefined || !worker.ready) return
    current = queue.shift()
    if (current === undefined) return
    queuedUnits -= current.text.length
    worker.send(current.text)
    hang = setTimeout(() => {
      log('warn', 'classifying a statement took too long; the worker is replaced', { milliseconds: HANG_MS })
      abandon()
    }, HANG_MS)
    hang.unref()
  }

  const worker = workerSlot({
    log,
    onReady: next,
    onClassified(classification) {
      const flight = takeCurrent()
      if (flight !== undefined) land(flight, classification)
      next()
    },
    onCrash: abandon,
  })

  return {
    join(flight) {
      if (queue.length >= QUEUE.texts || queuedUnits + flight.text.length > QUEUE.units) return false
      queue.push(flight)
      queuedUnits += flight.text.length
      next()
      return true
    },
    started: worker.started,
    close() {
      clearTimeout(hang)
      queue.length = 0
      return worker.close()
    },
  }
}

/** Resolves when the worker is there or did not come up in time; texts are then `unknown` until it does. */
export async function createClassifier({ log, deadline = DEADLINE_MS }: ClassifierOptions): Promise<Classifier> {
  const cache = generationCache<Classification>(CACHE_BYTES)
  const shapes = generationCache<Classification>(SHAPES_BYTES)
  const flights = new Map<string, Flight>()
  let closed = false
  const waiting = runway(log, (flight, classification) => {
    flights.delete(flight.text)
    const cost = costOf(flight.text, classification)
    cache.set(flight.text, classification, cost)
    const shape = isExemplar(flight.text, classification) ? shapeOf(flight.text) : undefined
    if (shape !== undefined) shapes.set(shape, classification, cost + shape.length * 2)
    flight.resolve(classification)
  })

  const depart = (text: string): Promise<Classification> => {
    const { promise, resolve } = Promise.withResolvers<Classification>()
    const flight = { text, promise, resolve }
    // Before it joins: an answer may come at once.
    flights.set(text, flight)
    if (!waiting.join(flight)) {
      flights.delete(text)
      return Promise.resolve(givenUp(text, false))
    }
    const timer = setTimeout(() => resolve(givenUp(text, false)), deadline)
    timer.unref()
    void promise.then(() => clearTimeout(timer))
    return promise
  }

  const peek = (text: string): Classification | undefined => {
    const known = cache.get(text)
    if (known !== undefined) return known
    const shape = shapeOf(text)
    const exemplar = shape === undefined ? undefined : shapes.get(shape)
    if (exemplar === undefined) return undefined
    const classification = sameShape(text, exemplar)
    cache.set(text, classification, costOf(text, classification))
    return classification
  }

  await waiting.started
  return {
    peek,
    classify(text) {
      const known = peek(text)
      if (known !== undefined) return Promise.resolve(known)
      if (closed) return Promise.resolve(givenUp(text, false))
      return flights.get(text)?.promise ?? depart(text)
    },
    givenUp: (text) => givenUp(text, false),
    async close() {
      closed = true
      for (const { text, resolve } of flights.values()) resolve(givenUp(text, false))
      flights.clear()
      await waiting.close()
    },
  }
}
