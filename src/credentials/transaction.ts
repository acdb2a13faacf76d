/** Transactions on the catalog, which other transactions write to as well. */
import type pg from 'pg'
import { isCollision, sqlstateOf } from './failure.ts'
import { lastRows } from './sql.ts'

/** COMMITs what `work` did, or rolls it back; a connection that cannot roll back is given up. */
export async function inTransaction<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('BEGIN')
  try {
    const result = await work()
    await client.query('COMMIT')
    return result
  } catch (error) {
    await client.query('ROLLBACK').catch(() => client.end().catch(() => {}))
    throw error
  }
}

const ATTEMPTS = 8

/** Runs `work` again while it loses against other transactions on the same catalog rows, or as `isPassing` says. */
export async function retryCollisions<T>(work: () => Promise<T>, isPassing = isCollision): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (!isPassing(error) || attempt === ATTEMPTS) throw error
      await new Promise((next) => setTimeout(next, Math.random() * 10 * 2 ** attempt))
    }
  }
}

/** For statements in one message that say BEGIN and COMMIT themselves: none of them, where one fails. @returns the rows of the last one */
export async function inOneMessage<Row extends pg.QueryResultRow>(
  client: pg.Client,
  statements: readonly string[],
): Promise<Row[]> {
  try {
    return await lastRows<Row>(client, statements)
  } catch (error) {
    if (sqlstateOf(error) !== undefined) await client.query('ROLLBACK').catch(() => client.end().catch(() => {}))
    throw error
  }
}
