/** The operational log: JSON lines on stderr. It is not the audit log, and nothing may depend on it. */
import { type DestinationStream, destination as fileDestination, type Logger, pino, stdTimeFunctions } from 'pino'
import { maskSecrets, maskValue } from './mask.ts'

export type { Logger } from 'pino'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

export interface LogOptions {
  level: LogLevel
  /** stderr without it. */
  destination?: DestinationStream
}

/** What of an error reaches the log. Errors of drivers and TLS carry configuration, buffers and keys as members: those never do. */
export interface SerializedError {
  name: string
  message: string
  code?: string
  stack?: string
  cause?: SerializedError
  /** Of an AggregateError, e.g. one for each address that was tried. */
  errors?: SerializedError[]
}

const MAX_CAUSES = 8
const MAX_AGGREGATED = 8
const MAX_TEXT = 8192

const text = (value: unknown): string => maskSecrets(String(value).slice(0, MAX_TEXT))

/** Any thrown value; cause chains are cut after 8, so that a cycle ends. */
export function serializeError(thrown: unknown, depth = 0): SerializedError {
  if (!(thrown instanceof Error)) return { name: 'NonError', message: text(describe(thrown)) }
  const serialized: SerializedError = { name: text(thrown.name), message: text(thrown.message) }
  const code: unknown = 'code' in thrown ? thrown.code : undefined
  if (typeof code === 'string' || typeof code === 'number') serialized.code = text(code)
  if (typeof thrown.stack === 'string') serialized.stack = text(thrown.stack)
  if (depth >= MAX_CAUSES) return serialized
  if (thrown.cause !== undefined) serialized.cause = serializeError(thrown.cause, depth + 1)
  if (thrown instanceof AggregateError) {
    serialized.errors = thrown.errors
      .slice(0, MAX_AGGREGATED)
      .map((error: unknown) => serializeError(error, MAX_CAUSES))
  }
  return serialized
}

/** Objects that are no errors may hold anything, so only their kind is told. */
function describe(thrown: unknown): unknown {
  return typeof thrown === 'object' && thrown !== null ? Object.prototype.toString.call(thrown) : thrown
}

const errorSerialized = (value: unknown): unknown => (value instanceof Error ? serializeError(value) : value)

const errorsSerialized = (record: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [name, errorSerialized(value)]))

/** Every line is masked as a whole when it is written: messages, bindings of children and members alike. */
function maskLine(line: string): string {
  try {
    return `${JSON.stringify(maskValue(JSON.parse(line)))}\n`
  } catch {
    return maskSecrets(line)
  }
}

/** JSON lines with ISO time and the level's name. The file is written synchronously: the line before a crash is the one that counts. */
export function createLog(options: LogOptions): Logger {
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      serializers: { err: errorSerialized },
      formatters: { level: (label) => ({ level: label }), log: errorsSerialized },
      hooks: { streamWrite: maskLine },
    },
    options.destination ?? fileDestination({ fd: 2, sync: true }),
  )
}
