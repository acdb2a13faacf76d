/**
 * Puts a session's frontend handler behind a gate that refuses statements. A refused Query or Parse goes upstream as one that fails, so
 * that transaction, pipeline, COPY and Sync are what PostgreSQL makes of a statement that fails in that place.
 */

import { quote } from '../config/quote.ts'
import { AccessError } from '../errors.ts'
import type { Grant } from '../policy/types.ts'
import { FrontendMessage as F } from '../wire/constants.ts'
import { createFrameScanner, DROP, type FrameHandler, STOP } from '../wire/frame-scanner.ts'
import { cstring, frame, int16 } from '../wire/writer.ts'
import { maxFrontendLength } from './from-frontend.ts'
import type { Pump } from './pump.ts'
import { createStatementGate, type StatementGate } from './statement-gate.ts'
import { createStatementRules, type StatementRulesOptions } from './statement-rules.ts'
import type { StatementTracker } from './statement-tracker.ts'

/** A syntax error, whatever the state of the session; PostgreSQL's log shows it. */
const FAILING_TEXT = cstring('pgusher refused a statement')
const FAILING_QUERY = frame(F.Query, FAILING_TEXT)

export interface LimitedStatements {
  scanner: StatementGate
  /** A ParameterStatus. */
  follow(name: string, value: string): void
}

export interface LimitOptions {
  grant: Grant
  read: StatementRulesOptions['read']
  parameters: StatementRulesOptions['parameters']
  /** From the client. */
  pump(): Pick<Pump, 'inject' | 'hold' | 'again'>
  /** The session must end. */
  end(error: AccessError): void
}

/** Undefined where the grant does not limit statements. */
export function limitStatements(
  handler: FrameHandler,
  tracker: StatementTracker,
  options: LimitOptions,
): LimitedStatements | undefined {
  const { grant, read, parameters, pump, end } = options
  const limit = grant.statements
  if (limit === undefined) return undefined
  const rules = createStatementRules({ grant, limit, parameters, read })
  const inner = createFrameScanner(
    refusing(handler, tracker, (bytes) => pump().inject(bytes)),
    maxFrontendLength,
  )
  const refuse = (refusal: StatementTracker['refusal']): void => {
    tracker.refusal = refusal
  }
  return {
    scanner: createStatementGate(inner, {
      ...{ decide: rules.decide, tooLong: rules.tooLong, refuse },
      ...{ hold: () => pump().hold(), resume: () => pump().again() },
    }),
    follow(name, value) {
      rules.follow(name, value)
      // Told from PostgreSQL 14 on. Behind the messages of this chunk, so that the job sees how the statement ended that did it.
      if (limit.readOnly && name === 'default_transaction_read_only' && value !== 'on')
        queueMicrotask(() => end(writable(grant)))
    },
  }
}

function writable({ rule }: Grant): AccessError {
  return new AccessError(
    'session_policy',
    `session ended: default_transaction_read_only was switched off out of pgusher's sight, and rule ${quote(rule)} is read-only`,
    { hint: 'A function can do that. Ask the operator of this pgusher for a rule that allows WRITE.' },
  )
}

/** As `handler`; while a refusal is set, the message at hand goes through it and not upstream. */
function refusing(handler: FrameHandler, tracker: StatementTracker, inject: (bytes: Buffer) => void): FrameHandler {
  /** Of a refused Parse, with its NUL. */
  let name: Buffer = Buffer.alloc(1)
  return {
    ...handler,
    onHeader(type, length) {
      const answer = handler.onHeader(type, length)
      return tracker.refusal === undefined || answer === STOP || answer >= DROP ? answer : DROP + answer
    },
    onBody(type, buffer, start, end, length) {
      if (tracker.refusal !== undefined && type === F.Parse) {
        name = Buffer.from(buffer.subarray(start, Math.min(end, buffer.indexOf(0, start) + 1)))
      }
      return handler.onBody(type, buffer, start, end, length)
    },
    onRest: (type, buffer, start, end, last) => handler.onRest?.(type, buffer, start, end, last) ?? true,
    onDropped(type) {
      if (tracker.refusal === undefined) handler.onDropped(type)
      else inject(type === F.Parse ? frame(F.Parse, name, FAILING_TEXT, int16(0)) : FAILING_QUERY)
    },
  }
}
