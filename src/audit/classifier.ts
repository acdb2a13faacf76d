/** Classifies SQL texts in a worker thread: one flight a text, a deadline, a bounded queue and a cache. */
import type { Classification } from './classification.ts'
import { generationCache } from './generation-cache.ts'
import type { AuditLog } from './line-sink.ts'
import { recentTexts } from './recent-texts.ts'
import { maySecret } from './sql-redact.ts'
import { isExemplar, sameShape, shapeOf } from './sql-shape.ts'
import { workerSlot } from './worker-slot.ts'

const CACHE_BYTES = 16 * 1024 * 1024
const SHAPES_BYTES = 4 * 1024 * 1024
/** UTF-16 units of text. */
const QUEUE = { texts: 2_000, units: 4 * 1024 * 1024 }
const DEADLINE_MS = 250
/** A statement that is held back until its text is known waits longer than a record does, and is refused behind this. */
const DECISION_MS = 10_000
/** A text that takes longer holds everything up behind it: the worker is replaced. A busy machine takes tens of milliseconds. */
const HANG_MS = 5_000

export interface Classifier {
  /** What is known already. */
  peek(text: string): Classification | undefined
  /** Never rejects; a text that is not classified within the deadline is `unknown`. */
  classify(text: string): Promise<Classification>
  /**
   * As `classify`, for who decides by it whether a statement may run: before the texts that only label records, and with more time.
   * `settled` is false where the queue was full or time ran out. At once where the text is known.
   */
  decide(text: string): Classification | Promise<Classification>
  /** What may be recorded of a text that was not looked into: without its text where that may hold a secret. */
  givenUp(text: string): Classification
  close(): Promise<void>
}

export interface ClassifierOptions {
  log: AuditLog
  /** Milliseconds after which a text's record does without; 250 without it. */
  deadline?: number | undefined
  /** Milliseconds after which a decision does without; 10,000 without it. */
  decideWithin?: number | undefined
}

interface Flight {
  text: string
  /** A statement waits for it. */
  urgent: boolean
  /** For its record, by the deadline of records. */
  promise: Promise<Classification>
  resolve(classification: Classification): void
  /** Of the statements that wait for it. */
  deciders: ((classification: Classification) => void)[]
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
    for (const need of statement.needs ?? []) units += 20 + 2 * need.what.length
  }
  return units * 2
}

/** The texts that wait for the worker, those before the others that statements wait for, and the one that it reads. */
interface Runway {
  /** False when there are too many already. Of one that has joined and became urgent since: puts it before the others. */
  join(flight: Flight): boolean
  readonly started: Promise<void>
  close(): Promise<void>
}

interface Queue {
  flights: Flight[]
  units: number
}

/**
 * False when there are too many already. Of those that statements wait for the short ones go first: 64 KiB can take a second to read, and
 * one job that sends such texts in all its sessions would hold up everybody else's until they are refused.
 */
function enqueue(queue: Queue, flight: Flight): boolean {
  const { flights, units } = queue
  if (flights.length >= QUEUE.texts || units + flight.text.length > QUEUE.units) return false
  const longer = flight.urgent ? flights.findIndex(({ text }) => text.length > flight.text.length) : -1
  flights.splice(longer < 0 ? flights.length : longer, 0, flight)
  queue.units += flight.text.length
  return true
}

function dequeue(queue: Queue): Flight | undefined {
  const flight = queue.flights.shift()
  queue.units -= flight?.text.length ?? 0
  return flight
}

function leave(queue: Queue, flight: Flight): void {
  const at = queue.flights.indexOf(flight)
  if (at < 0) return
  queue.flights.splice(at, 1)
  queue.units -= flight.text.length
}

function runway(log: AuditLog, land: (flight: Flight, classification: Classification) => void): Runway {
  /** Those of one kind do not push out the others: statements wait for the first, at most one of each session. */
  const urgent: Queue = { flights: [], units: 0 }
  const usual: Queue = { flights: [], units: 0 }
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
    current = dequeue(urgent) ?? dequeue(usual)
    if (current === undefined) return
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
      if (flight === current) return true
      if (flight.urgent) leave(usual, flight)
      if (!enqueue(flight.urgent ? urgent : usual, flight)) return false
      next()
      return true
    },
    started: worker.started,
    close() {
      clearTimeout(hang)
      urgent.flights.length = 0
      usual.flights.length = 0
      return worker.close()
    },
  }
}

/** Resolves when the worker is there or did not come up in time; texts are then `unknown` until it does. */
export async function createClassifier(options: ClassifierOptions): Promise<Classifier> {
  const { log, deadline = DEADLINE_MS, decideWithin = DECISION_MS } = options
  const known = knownTexts()
  const flights = new Map<string, Flight>()
  let closed = false

  function end(flight: Flight, classification: Classification): void {
    flights.delete(flight.text)
    flight.resolve(classification)
    for (const decide of flight.deciders) decide(classification)
  }

  const waiting = runway(log, (flight, classification) => {
    known.add(flight.text, classification)
    end(flight, classification)
  })

  /** Undefined when too many wait already. */
  function depart(text: string, urgent: boolean): Flight | undefined {
    const { promise, resolve } = Promise.withResolvers<Classification>()
    const flight: Flight = { text, urgent, promise, resolve, deciders: [] }
    // Before it joins: an answer may come at once.
    flights.set(text, flight)
    if (!waiting.join(flight)) {
      flights.delete(text)
      return undefined
    }
    const timer = setTimeout(() => resolve(givenUp(text, false)), deadline)
    timer.unref()
    void promise.then(() => clearTimeout(timer))
    return flight
  }

  /** The flight of a text that a statement waits for. One that only a record waited for goes to the front. */
  function hurry(text: string): Flight | undefined {
    const flight = flights.get(text)
    if (flight === undefined) return depart(text, true)
    if (flight.urgent) return flight
    flight.urgent = true
    if (waiting.join(flight)) return flight
    end(flight, givenUp(text, false))
    return undefined
  }

  await waiting.started
  return {
    peek: known.peek,
    classify(text) {
      const found = known.peek(text)
      if (found !== undefined) return Promise.resolve(found)
      if (closed) return Promise.resolve(givenUp(text, false))
      return (flights.get(text) ?? depart(text, false))?.promise ?? Promise.resolve(givenUp(text, false))
    },
    decide(text) {
      const found = known.peek(text)
      if (found !== undefined) return found
      const flight = closed ? undefined : hurry(text)
      if (flight === undefined) return givenUp(text, false)
      return new Promise((resolve) => {
        const timer = setTimeout(() => resolve(givenUp(text, false)), decideWithin)
        timer.unref()
        flight.deciders.push((classification) => {
          clearTimeout(timer)
          resolve(classification)
        })
      })
    },
    givenUp: (text) => givenUp(text, false),
    async close() {
      closed = true
      for (const flight of [...flights.values()]) end(flight, givenUp(flight.text, false))
      await waiting.close()
    },
  }
}

/** One execution asks when its text comes and when its record is made: who asks more often has sent it again. */
const USES_OF_ONE = 2

/** Classifications that were made, by text and by shape. */
function knownTexts(): {
  peek(text: string): Classification | undefined
  add(text: string, made: Classification): void
} {
  const cache = generationCache<Classification>(CACHE_BYTES)
  const shapes = generationCache<Classification>(SHAPES_BYTES)
  const recent = recentTexts<Classification>()
  return {
    peek(text) {
      const known = cache.get(text)
      if (known !== undefined) return known
      const before = recent.get(text)
      if (before !== undefined) {
        if (before.uses > USES_OF_ONE) cache.set(text, before.value, costOf(text, before.value))
        return before.value
      }
      const shape = shapeOf(text)
      const exemplar = shape === undefined ? undefined : shapes.get(shape)
      if (exemplar === undefined) return undefined
      const classification = sameShape(text, exemplar)
      if (!recent.put(text, classification)) cache.set(text, classification, costOf(text, classification))
      return classification
    },
    add(text, made) {
      const cost = costOf(text, made)
      cache.set(text, made, cost)
      const shape = isExemplar(text, made) ? shapeOf(text) : undefined
      if (shape !== undefined) shapes.set(shape, made, cost + shape.length * 2)
    },
  }
}
