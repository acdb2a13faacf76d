/**
 * `allow.statements` in a session: which Query and Parse may go upstream, by the classes that the rule allows, and what the job is told
 * of one that may not. A second fence: what a function, a trigger or a rule of the schema does, is up to the privileges of the role.
 *
 * Names of prepared statements decide nothing: each text was decided when it was parsed, so Bind, Execute and SQL's EXECUTE pass.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import type { Classification } from '../audit/classification.ts'
import { jsonValue } from '../audit/json.ts'
import { identifier } from '../audit/parse-tree.ts'
import type { Need } from '../audit/sql-needs.ts'
import { type Guard, isPlainEncoding } from '../audit/sql-settings.ts'
import { printable, quote } from '../config/quote.ts'
import { AccessError } from '../errors.ts'
import { errorFrame } from '../frontend/respond.ts'
import type { Grant, StatementLimit } from '../policy/types.ts'
import { FrontendMessage as F } from '../wire/constants.ts'
import { newDenialId } from './denial.ts'
import type { Refusal } from './pending.ts'
import type { Verdict } from './statement-gate.ts'
import { MAX_TEXT_BYTES } from './statement-text.ts'

export interface StatementRules {
  /** @param body of a whole Query or Parse. Never rejects. */
  decide(type: number, body: Buffer): Verdict | Promise<Verdict>
  tooLong(): Refusal
  /** A ParameterStatus in mid-session. */
  follow(name: string, value: string): void
}

export interface StatementRulesOptions {
  grant: Grant
  limit: StatementLimit
  /** As in the ParameterStatus messages of the login. */
  parameters: { clientEncoding: string; standardStrings: string }
  /** What a statement of this text does. Never rejects. */
  read(text: string): Classification | Promise<Classification>
}

/** What a refusal says. */
interface Reason {
  why: string
  sqlstate?: string
  detail?: string
  hint?: string
}

const BACKSLASH = 0x5c
/** Classes whose statements PostgreSQL itself refuses in a read-only transaction, by this SQLSTATE. */
const WRITING = new Set(['WRITE', 'DDL', 'ROLE'])
const READ_ONLY_TRANSACTION = '25006'

export function createStatementRules({ grant, limit, parameters, read }: StatementRulesOptions): StatementRules {
  const rule = `rule ${quote(grant.rule)}`
  const allowed = limit.explain ? `${rule} allows ${list(limit.classes, 'and')}` : `${rule} does not allow that`
  const limits = `${rule} lets only such statements pass as pgusher can read`
  const guarded: Readonly<Record<Guard, string>> = {
    read_only: `it switches read-only transactions off, and ${rule} is read-only`,
    encoding: `it sets a client_encoding in which a quote can be part of a character, and ${limits}`,
    strings: `it switches standard_conforming_strings off, and ${limits}`,
  }
  // RESET and ROLLBACK come back to what was at the beginning, and are known of only later: that counts for as long as the session.
  let encoding = parameters.clientEncoding
  const unplainAtFirst = isPlainEncoding(encoding) ? undefined : encoding
  let strings = parameters.standardStrings === 'on'
  const stringsAtFirst = strings

  function refusal({ why, sqlstate, detail, hint }: Reason): Refusal {
    const words = [limit.message, limit.contact === undefined ? undefined : `Contact: ${limit.contact}.`]
    const own = words.filter((word) => word !== undefined).map(printable)
    const error = new AccessError('statement_not_allowed', `statement refused: ${why}`, {
      hint:
        [hint ?? '', ...own].filter(Boolean).join(' ') || 'Ask the operator of this pgusher for a rule that allows it.',
      ...(detail === undefined ? {} : { detail }),
      ...(sqlstate === undefined ? {} : { sqlstate }),
    })
    const id = newDenialId()
    const { code, message } = error
    const decision = jsonValue({ stage: 'session', code, id, message })
    return { sqlstate: error.sqlstate, decision, frame: errorFrame(error, id, 'ERROR') }
  }

  function unreadable(settled: boolean): Reason {
    return settled
      ? {
          why: `pgusher could not read it as SQL, and ${limits}`,
          hint: 'Is there a syntax error in it? SQL that only a newer PostgreSQL knows is not read either.',
        }
      : { why: `pgusher could not read it in time, and ${limits}`, hint: 'Nothing is wrong with it: send it again.' }
  }

  function reasonAgainst(known: Classification): Reason | undefined {
    if (!known.parsed) return unreadable(known.settled)
    const { statements } = known
    const detail =
      statements.length > 1 ? `None of the ${statements.length} statements of this text was executed.` : undefined
    const more = detail === undefined ? {} : { detail }
    for (const { needs, guards } of statements) {
      if (needs === undefined) return { ...unreadable(true), ...more }
      const unmet = needs.find(
        ({ classes, role }) => role !== grant.role && !classes.some((one) => limit.classes.includes(one)),
      )
      if (unmet !== undefined) {
        const why = `${printable(unmet.what)} needs ${list(unmet.classes, 'or')}, and ${allowed}`
        const writes = limit.readOnly && unmet.classes.every((one) => WRITING.has(one))
        const hint = unmet.field === undefined ? {} : { hint: fieldHint(unmet.field, unmet.classes) }
        return { why, ...hint, ...more, ...(writes ? { sqlstate: READ_ONLY_TRANSACTION } : {}) }
      }
      const guard = guards.find((one) => one !== 'read_only' || limit.readOnly)
      if (guard !== undefined) return { why: guarded[guard], ...more }
    }
    return undefined
  }

  const verdictOn = (known: Classification): Verdict => {
    const reason = reasonAgainst(known)
    return reason && refusal(reason)
  }

  /** Bytes whose meaning is not certain. */
  function uncertain(text: Buffer): Reason | undefined {
    if (text.length > MAX_TEXT_BYTES) return tooLong(limits)
    const unplain = unplainAtFirst ?? (isPlainEncoding(encoding) ? undefined : encoding)
    if (unplain !== undefined && !isAscii(text)) {
      const hint = 'Begin the session with client_encoding UTF8.'
      return { why: `in client_encoding ${unplain} a quote can be part of a character, and ${limits}`, hint }
    }
    if (encoding === 'UTF8' && !isUtf8(text)) {
      return { why: 'it is not valid UTF-8, which is the client_encoding of this session', sqlstate: '22021' }
    }
    if ((strings && stringsAtFirst) || !text.includes(BACKSLASH)) return undefined
    const hint = 'Set it on, or write the string without a backslash.'
    return { why: `with standard_conforming_strings off a backslash changes what it means, and ${limits}`, hint }
  }

  return {
    decide(type, body) {
      const text = textOf(type, body)
      if (text === undefined) return refusal({ why: 'it is no message of the protocol' })
      const doubt = uncertain(text)
      if (doubt !== undefined) return refusal(doubt)
      // In the other encodings each byte above ASCII is part of a letter or a string, whatever the character.
      const known = read(text.toString(encoding === 'UTF8' ? 'utf8' : 'latin1'))
      return known instanceof Promise ? known.then(verdictOn) : verdictOn(known)
    },
    tooLong: () => refusal(tooLong(limits)),
    follow(name, value) {
      if (name === 'client_encoding') encoding = value
      else if (name === 'standard_conforming_strings') strings = value === 'on'
    },
  }
}

function tooLong(limits: string): Reason {
  return {
    why: `it is longer than ${MAX_TEXT_BYTES / 1024} KiB, and ${limits}`,
    hint: 'Send data by COPY or as parameters, or several statements one by one.',
  }
}

/**
 * `(x).*` passes: all columns of x, and never a call. The name alone is a column too, while `it.city` would call `city(address)` where there is
 * none (tried, 15 and 18); in quotes because `user` would be a call.
 */
function fieldHint({ of, name }: NonNullable<Need['field']>, classes: readonly string[]): string {
  const instead = `(SELECT "${name.replaceAll('"', '""')}" FROM (SELECT (${of}).*) AS it)`
  return printable(
    `(${of}).${identifier(name)} is a column of a composite value, or a call where there is no such column; its text does not tell which. ` +
      `For the column, write ${instead} in its place. For the call, ask the operator for a rule that allows ${list(classes, 'or')}.`,
  )
}

function list(words: readonly string[], last: 'and' | 'or'): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} ${last} ${words.at(-1)}`
}

/** Without its NUL. Undefined where there is none, or another one before it. */
function textOf(type: number, body: Buffer): Buffer | undefined {
  const start = type === F.Parse ? body.indexOf(0) + 1 : 0
  if (type === F.Parse && start === 0) return undefined
  const end = body.indexOf(0, start)
  if (end < 0 || (type === F.Query && end !== body.length - 1)) return undefined
  return body.subarray(start, end)
}
