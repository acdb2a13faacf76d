/**
 * PostgreSQL's side of the protocol as far as it matters to what runs and what does not: names, transactions, the part of a pipeline
 * that an error discards, COPY FROM STDIN (src/backend/tcop/postgres.c, src/backend/commands/copyfromparse.c). SQL is a few words:
 * `ok`, `err`, `--empty`, `begin`, `commit`, `copyin`, `copybad` (fails before it reads), `late` (fails at its commit), each with a
 * number to tell texts apart, joined by `;`.
 */
import { readyForQuery } from '../../src/wire/backend.ts'
import { BackendMessage as B, FrontendMessage as F } from '../../src/wire/constants.ts'
import { cstring, frame, int16 } from '../../src/wire/writer.ts'

/** SQLSTATEs of the model: those with X are errors of an execution, those with N of a message before it. */
export const CODES = {
  failed: 'X0001',
  copy: 'X0002',
  commit: 'X0003',
  portal: 'X0004',
  aborted: 'X0005',
  other: 'N0001',
}

export interface Ran {
  /** Undefined where the portal is not there, or belongs to a transaction that is over. */
  text: string | undefined
  /** SQLSTATE, '' for success. */
  code: string
}

export interface BackendModel {
  /** Takes one whole message. */
  take(type: number, body: Buffer): void
  /** Answers so far, oldest first; taken out by the test. */
  readonly answers: Buffer[]
  /** Executions in the order of their ends. */
  readonly ran: Ran[]
  /** Executions that were thrown away. */
  readonly skipped: number
  /** It has closed the connection. */
  readonly dead: boolean
}

interface Copying {
  text: string
  /** What follows in the Query; undefined in the extended protocol. */
  rest: string[] | undefined
}

export function createBackendModel(): BackendModel {
  const answers: Buffer[] = []
  const ran: Ran[] = []
  const statements = new Map<string, string>()
  const portals = new Map<string, string>()
  let status: 'I' | 'T' | 'E' = 'I'
  let skipping = false
  let skipped = 0
  let dead = false
  let late = false
  let copying: Copying | undefined

  const say = (type: number, ...fields: Buffer[]) => void answers.push(frame(type, ...fields))
  const ready = () => void answers.push(readyForQuery(status))

  function error(code: string, severity = 'ERROR'): void {
    say(B.ErrorResponse, cstring(`V${severity}`), cstring(`C${code}`), Buffer.from([0]))
    late = false
    if (status === 'T') status = 'E'
    if (status === 'I') portals.clear()
  }

  function endTransaction(): void {
    if (status === 'I') portals.clear()
    if (status === 'I' && late) {
      const last = ran.at(-1)
      if (last !== undefined) last.code = CODES.commit
      error(CODES.commit)
    }
    late = false
  }

  /** True when the statement is over, false where it failed or became a COPY. */
  function run(text: string, rest: string[] | undefined): boolean {
    const [verb = ''] = text.trim().split(' ')
    const fail = (code: string): false => {
      ran.push({ text, code })
      error(code)
      return false
    }
    if (status === 'E' && verb !== 'commit') return fail(CODES.aborted)
    if (verb === 'err') return fail(CODES.failed)
    if (verb === 'copyin' || verb === 'copybad') {
      say(B.CopyInResponse, Buffer.from([0]), int16(0))
      if (verb === 'copybad') return fail(CODES.copy)
      copying = { text, rest }
      return false
    }
    if (verb === 'begin') status = 'T'
    if (verb === 'commit') {
      status = 'I'
      portals.clear()
    }
    if (verb === 'late' && rest === undefined && status === 'I') late = true
    ran.push({ text, code: '' })
    if (verb === '--empty') say(B.EmptyQueryResponse)
    else say(B.CommandComplete, cstring(verb === 'ok' ? 'SELECT 1' : verb.toUpperCase()))
    return true
  }

  /** A Query from this statement on. */
  function runAll(texts: string[]): void {
    for (let [text, ...rest] = texts; text !== undefined; [text, ...rest] = rest) {
      if (!run(text, rest)) break
    }
    if (copying !== undefined) return
    if (status === 'I') portals.clear()
    ready()
  }

  function endCopy(code: string): void {
    const { text, rest } = copying!
    copying = undefined
    ran.push({ text, code })
    if (code === '') say(B.CommandComplete, cstring('COPY 1'))
    else error(code)
    if (rest === undefined) skipping = code !== ''
    else runAll(code === '' ? rest : [])
  }

  function takeCopy(type: number, body: Buffer): void {
    if (type === F.CopyData) {
      if (body.includes('bad')) endCopy(CODES.copy)
    } else if (type === F.CopyDone) endCopy('')
    else if (type === F.CopyFail) endCopy(CODES.copy)
    else if (type !== F.Sync && type !== F.Flush) {
      ran.push({ text: copying!.text, code: CODES.copy })
      error(CODES.copy)
      error(CODES.other, 'FATAL')
      dead = true
    }
  }

  /** In the extended protocol. @returns the SQLSTATE of what went wrong */
  function takeExtended(type: number, fields: string[]): string | undefined {
    const [first = '', second = ''] = fields
    if (type === F.Parse) {
      if (status === 'E' && !second.startsWith('commit')) return CODES.other
      if (second.startsWith('syntax') || (first !== '' && statements.has(first))) return CODES.other
      statements.set(first, second)
      say(B.ParseComplete)
    } else if (type === F.Bind) {
      const text = statements.get(second)
      if (text === undefined || (status === 'E' && !text.startsWith('commit'))) return CODES.other
      if (first !== '' && portals.has(first)) return CODES.other
      portals.set(first, text)
      say(B.BindComplete)
    } else if (type === F.Describe) {
      if (first[0] === 'P' ? !portals.has(first.slice(1)) : !statements.has(first.slice(1))) return CODES.other
      say(B.NoData)
    } else if (type === F.Close) {
      if (first[0] === 'P') portals.delete(first.slice(1))
      else statements.delete(first.slice(1))
      say(B.CloseComplete)
    }
    return undefined
  }

  function takeExecute(portal: string): void {
    const text = portals.get(portal)
    if (text === undefined) {
      ran.push({ text: undefined, code: CODES.portal })
      error(CODES.portal)
      skipping = true
    } else if (!run(text, undefined) && copying === undefined) skipping = true
  }

  function take(type: number, body: Buffer): void {
    if (dead) return
    if (copying !== undefined) takeCopy(type, body)
    else if (type === F.Terminate) dead = true
    else if (type === F.Sync) {
      skipping = false
      endTransaction()
      ready()
    } else if (!skipping) takeMessage(type, body)
    else if (type === F.Query || type === F.Execute) skipped++
  }

  function takeMessage(type: number, body: Buffer): void {
    const fields = body.toString().split('\0')
    if (type === F.Query) {
      // Its own commit comes first, and what that could fail with is not modelled.
      late = false
      statements.delete('')
      portals.delete('')
      runAll((fields[0] ?? '').split(';'))
    } else if (type === F.Execute) takeExecute(fields[0] ?? '')
    else {
      const code = takeExtended(type, fields)
      if (code === undefined) return
      error(code)
      skipping = true
    }
  }

  return {
    take,
    answers,
    ran,
    get skipped() {
      return skipped
    },
    get dead() {
      return dead
    },
  }
}
