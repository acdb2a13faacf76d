/** What the tracker remembers of a message until it is answered. */

import type { StatementRecord } from '../audit/recorder.ts'
import { tokens } from '../audit/sql-tokens.ts'
import { EXECUTE, FUNCTION_CALL, QUERY } from './answer-queue.ts'
import type { CommandTag } from './command-tag.ts'
import type { StatementText } from './name-map.ts'

/** Why a Query, Parse or FunctionCall goes upstream as one that fails in its place. */
export interface Refusal {
  sqlstate: string
  /** For the record, as JSON: an object. */
  decision: string
  /** The ErrorResponse that the job gets. */
  frame: Buffer
}

export interface Pending {
  text: StatementText | undefined
  /** Statement name of Parse, Bind and Close. */
  name: string
  /** Portal name of Bind, Execute and Close. */
  portal: string
  bytes: number
  sentAt: number
  oid: number
  parameters: string[] | undefined
  /** It went upstream as something that fails, because the rule does not allow it. */
  refusal: Refusal | undefined
  /** At least one record was made of it. */
  recorded: boolean
  /** It met an error: nothing more of it runs. A FATAL that follows an ERROR is no second execution. */
  failed: boolean
}

/** How an execution ended. */
export interface Ending {
  outcome: StatementRecord['outcome']
  sqlstate?: string | undefined
  errorType?: string | undefined
  tag?: CommandTag | undefined
  decision?: string | undefined
}

export function deniedBy({ sqlstate, decision }: Refusal): Ending {
  return { outcome: 'denied', sqlstate, decision }
}

export function pendingOf(
  text: StatementText | undefined,
  name: string,
  portal: string,
  bytes: number,
  sentAt: number,
): Pending {
  return {
    text,
    name,
    portal,
    bytes,
    sentAt,
    oid: 0,
    parameters: undefined,
    refusal: undefined,
    recorded: false,
    failed: false,
  }
}

export function isExecution(kind: number): boolean {
  return kind === QUERY || kind === EXECUTE || kind === FUNCTION_CALL
}

/** Characters that it keeps in memory, about. */
export function weightOf({ text, name, portal }: Pending): number {
  return 128 + (text?.text?.length ?? 0) + name.length + portal.length
}

export function mayHoldMore(text: StatementText | undefined): boolean {
  return text?.truncated === true || hasInnerSemicolon(text?.text)
}

/** Whether a text holds no statement: comments, white space and semicolons. One that was not kept does not count. */
export function isBlank(text: string | undefined): boolean {
  if (text === undefined) return false
  return tokens(text).every(({ kind, start }) => kind === 'comment' || text[start] === ';')
}

/** Whether a Query's text may hold more than one statement; the classifier knows for certain. */
export function hasInnerSemicolon(text: string | undefined): boolean {
  if (text === undefined) return false
  const at = text.indexOf(';')
  return at >= 0 && at < text.length - 1
}
