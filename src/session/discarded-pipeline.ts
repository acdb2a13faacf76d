/**
 * After an error in the extended protocol the backend reads and throws away what comes, until Sync. An execution among it was sent,
 * so it is on record: the Execute of what failed to parse or bind carries that error, the others were not executed.
 */
import { BIND, EXECUTE, PARSE, QUERY } from './answer-queue.ts'
import type { NamedStatement } from './name-map.ts'
import { deniedBy, isExecution, type Pending } from './pending.ts'
import type { SessionNames } from './session-names.ts'
import type { StatementRecords } from './statement-records.ts'

/** A message before an Execute that met an error. */
interface Failed {
  kind: number
  entry: Pending | undefined
  statement: NamedStatement | undefined
  sqlstate: string
}

export class DiscardedPipeline {
  /** What comes is thrown away. */
  active = false

  readonly #records: StatementRecords
  readonly #names: SessionNames
  /** Until an Execute carries its error, or Sync. */
  #failed: Failed | undefined

  constructor(records: StatementRecords, names: SessionNames) {
    this.#records = records
    this.#names = names
  }

  /** `kind` and `entry` met an error. An Execute has its record already. */
  begin(kind: number, entry: Pending | undefined, sqlstate: string): void {
    this.active = true
    if (kind !== EXECUTE) this.#fail(kind, entry, sqlstate)
  }

  #fail(kind: number, entry: Pending | undefined, sqlstate: string): void {
    this.#recordFailed()
    const named = entry !== undefined && (kind === PARSE || kind === BIND)
    this.#failed = { kind, entry, statement: named ? this.#names.statementOf(kind, entry) : undefined, sqlstate }
  }

  add(kind: number, entry: Pending | undefined): void {
    if (entry === undefined) return
    this.#names.nameTentatively(kind, entry)
    // Whether PostgreSQL came as far as to refuse it or not: it was denied, once.
    if (kind === PARSE && entry.refusal !== undefined && this.#failed?.entry !== entry)
      this.#fail(kind, entry, entry.refusal.sqlstate)
    if (!isExecution(kind)) return
    const statement = this.#names.statementOf(kind, entry)
    const failed = this.#failed
    const carries = failed !== undefined && kind === EXECUTE && isOf(failed, statement)
    if (carries) this.#failed = undefined
    else this.#recordFailed()
    const refusal = carries ? failed.entry?.refusal : kind === QUERY ? entry.refusal : undefined
    const end = carries ? { sqlstate: failed.sqlstate } : { errorType: 'not_executed' }
    this.#records.add(
      kind,
      entry,
      statement,
      refusal === undefined ? { outcome: 'failure', ...end } : deniedBy(refusal),
    )
  }

  end(): void {
    this.active = false
    this.#recordFailed()
    this.#names.forgetTentative()
  }

  /** No Execute carried the error: a Parse or Bind on its own, as drivers send to prepare. */
  #recordFailed(): void {
    const { kind, entry, statement, sqlstate } = this.#failed ?? {}
    this.#failed = undefined
    if (kind === undefined || entry === undefined || statement === undefined) return
    const errorType = kind === PARSE ? 'parse_failed' : 'bind_failed'
    const { refusal } = entry
    const end = refusal === undefined ? { outcome: 'failure' as const, sqlstate, errorType } : deniedBy(refusal)
    this.#records.add(kind, entry, statement, end)
  }
}

/** Describe and Close name nothing to compare with: the first Execute behind them carries their error. */
function isOf({ statement }: Failed, executed: NamedStatement): boolean {
  return statement === undefined || statement.text === executed.text
}
