/**
 * An upstream connection that no session holds. Queries of ours run on it, and what comes back is read strictly: anything but the
 * expected answers, or a single byte that nobody asked for, and the connection is destroyed.
 */
import type { UpstreamConnection } from '../upstream/connect.ts'
import { BackendMessage as B, FrontendMessage as F } from '../wire/constants.ts'
import { ownBytes } from '../wire/own-bytes.ts'
import { cstring, frame } from '../wire/writer.ts'
import { createChunkReader } from './chunk-reader.ts'

export interface OwnQuery {
  sql: string
  /** What its CommandCompletes begin with, in order. */
  tags: readonly string[]
}

export interface QuietUpstream {
  /**
   * Runs them by the simple protocol, which also drops an unnamed prepared statement. The connection is paused behind the last answer.
   * @param timeout milliseconds over all
   * @returns the bodies of the DataRows, in order; undefined where anything was odd, and then the connection is destroyed
   */
  run(queries: readonly OwnQuery[], timeout: number): Promise<readonly Buffer[] | undefined>
  /** From now on, up to the next `run`, whatever comes means that it is lost. */
  watch(onLost: () => void): void
  /** Lets the paused socket go, without listeners of ours. @returns bytes behind the last answer */
  release(): Buffer
  /** Says goodbye, so that the backend ends at once. Undoes nothing that `release` did. */
  close(): void
}

interface Work {
  /** Tags in order; `Z` for each ReadyForQuery. */
  expected: string[]
  rows: Buffer[]
  bytes: number
  timer: NodeJS.Timeout
  done(rows: readonly Buffer[] | undefined): void
}

const HEADER = 5
const READY = 'Z'
/** Of all answers to one `run`; ours take about 3 KB. */
const MAX_ANSWER = 64 * 1024
/** Milliseconds that a backend has to read Terminate and close. */
const GOODBYE = 1_000
const TERMINATE = Buffer.from('X\0\0\0\x04', 'latin1')
const NOTHING = Buffer.alloc(0)

export function createQuietUpstream({ socket, parameterStatus, rest }: UpstreamConnection): QuietUpstream {
  let pending: Buffer = rest
  let work: Work | undefined
  let onLost: (() => void) | undefined
  let released = false
  const reader = createChunkReader(socket, onChunk)

  function lose(): void {
    socket.destroy()
    finish(undefined)
    const tell = onLost
    onLost = undefined
    tell?.()
  }

  function finish(rows: readonly Buffer[] | undefined): void {
    if (work === undefined) return
    const { timer, done } = work
    work = undefined
    clearTimeout(timer)
    done(rows)
  }

  function onChunk(chunk: Buffer): void {
    // A copy: the chunk is the reader's.
    pending = Buffer.concat([pending, chunk])
    if (onLost !== undefined || pending.length > MAX_ANSWER || (work !== undefined && !takeAnswers(work))) lose()
  }

  /** False where something in it is odd. */
  function takeAnswers(now: Work): boolean {
    while (now.expected.length > 0 && pending.length >= HEADER) {
      const length = pending.readInt32BE(1) + 1
      if (length < HEADER || length > MAX_ANSWER) return false
      if (pending.length < length) return true
      const message = pending.subarray(0, length)
      // An empty view keeps what it is one of.
      pending = pending.length === length ? NOTHING : pending.subarray(length)
      if (!accepts(now, message)) return false
    }
    if (now.expected.length > 0) return true
    // In the same turn as the last answer, so that what comes behind it waits in the kernel for the session.
    socket.pause()
    if (pending.length === 0) finish(now.rows)
    return pending.length === 0
  }

  function accepts(now: Work, message: Buffer): boolean {
    now.bytes += message.length
    if (now.bytes > MAX_ANSWER) return false
    switch (message[0]) {
      case B.RowDescription:
        return true
      case B.DataRow:
        now.rows.push(ownBytes(message.subarray(HEADER)))
        return true
      case B.CommandComplete:
        return message.toString('latin1', HEADER).startsWith(now.expected.shift() ?? READY)
      case B.ReadyForQuery:
        return now.expected.shift() === READY && message.toString('latin1', HEADER) === 'I'
      case B.ParameterStatus:
        return isKnown(message)
      default:
        return false
    }
  }

  /** A value that the session changed and that is back to what a new client is told. */
  function isKnown(message: Buffer): boolean {
    const [name = '', value] = message.toString('utf8', HEADER).split('\0')
    return parameterStatus.get(name) === value
  }

  function onEnd(): void {
    if (work !== undefined || onLost !== undefined) lose()
  }

  socket.on('end', onEnd).on('close', onEnd)
  reader.start()
  return {
    run(queries, timeout) {
      onLost = undefined
      if (pending.length > 0 || socket.destroyed || !socket.writable || work !== undefined || released) {
        socket.destroy()
        return Promise.resolve(undefined)
      }
      return new Promise((done) => {
        const timer = setTimeout(lose, timeout)
        const expected = queries.flatMap(({ tags }) => [...tags, READY])
        work = { expected, rows: [], bytes: 0, timer, done }
        socket.write(Buffer.concat(queries.map(({ sql }) => frame(F.Query, cstring(sql)))))
        socket.resume()
      })
    },
    watch(lost) {
      onLost = lost
      if (socket.destroyed || pending.length > 0) lose()
      else socket.resume()
    },
    release() {
      released = true
      socket.pause()
      reader.stop()
      socket.off('end', onEnd).off('close', onEnd)
      return pending
    },
    close() {
      onLost = undefined
      if (work !== undefined || !socket.writable) {
        lose()
        return
      }
      socket.end(TERMINATE)
      socket.resume()
      setTimeout(() => socket.destroy(), GOODBYE).unref()
    },
  }
}
