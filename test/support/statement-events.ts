/** What the audit says about one session: its statements as short objects, to be compared with what the client did. */
import { expect } from 'vitest'
import type { Stage, StageEvent } from './pgusher.ts'

export interface Statement {
  sql: string | undefined
  class: string
  protocol: string
  outcome: string
  /** SQLSTATE. */
  code: string | undefined
  /** `error.type` where it is not the SQLSTATE. */
  error: string | undefined
  rows: number
  affected: number | undefined
  batch: number
  tx: string
  name: string | undefined
  requestBytes: number
  responseBytes: number
}

interface StatementEvent extends StageEvent {
  client: { port: number }
  pgusher: StageEvent['pgusher'] & {
    query: { class: string }
    protocol: string
    affected_rows?: number
    batch_index: number
    tx: string
    statement_name?: string
    request_bytes: number
    response_bytes: number
  }
  db: { query?: { text?: string }; response: { returned_rows: number; status_code?: string } }
  error?: { type: string }
}

/** False for the record of a text that was prepared or bound and never executed by the protocol. */
export function wasExecuted(event: StageEvent): boolean {
  const type = (event as StatementEvent).error?.type
  return type !== 'prepared_only' && type !== 'bound_only'
}

const ofPort = (port: number) => (event: StageEvent) => (event as StatementEvent).client?.port === port

/** `session.ended` of the session whose client had this port, once it is there. */
export function endOf(stage: Stage, port: number, timeout?: number): Promise<StageEvent> {
  return stage.waitForEvent((event) => event.event === 'session.ended' && ofPort(port)(event), timeout)
}

/**
 * All executions of a session that has ended or is about to. Checks what must hold of each session: as many events as its totals
 * say, numbers without gaps, and bytes both ways for whatever was answered.
 */
export async function statementsOf(stage: Stage, port: number): Promise<Statement[]> {
  const ended = await endOf(stage, port)
  const events = (await stage.events(ofPort(port))) as StatementEvent[]
  const statements = events.filter(({ event }) => event === 'statement' || event === 'statement.denied')
  const { totals } = ended.pgusher as unknown as { totals: { statements: number; errors: number; rows: number } }
  expect(statements).toHaveLength(totals.statements)
  expect(statements.filter(({ pgusher }) => pgusher.outcome !== 'success')).toHaveLength(totals.errors)
  expect(events.map(({ pgusher }) => pgusher['session_seq'])).toEqual(events.map((_, index) => index + 1))
  return statements.filter(wasExecuted).map(statementOf)
}

function statementOf({ pgusher, db, error }: StatementEvent): Statement {
  const { response } = db
  const statement = {
    sql: db.query?.text,
    class: pgusher.query.class,
    protocol: pgusher.protocol,
    outcome: pgusher.outcome,
    code: response.status_code,
    error: error?.type === response.status_code ? undefined : error?.type,
    rows: response.returned_rows,
    affected: pgusher.affected_rows,
    batch: pgusher.batch_index,
    tx: pgusher.tx,
    name: pgusher.statement_name,
    requestBytes: pgusher.request_bytes,
    responseBytes: pgusher.response_bytes,
  }
  expect(statement.requestBytes, `bytes of ${statement.sql}`).toBeGreaterThan(0)
  if (statement.outcome === 'success') {
    expect(statement.responseBytes, `bytes for ${statement.sql}`).toBeGreaterThan(0)
  }
  return statement
}
