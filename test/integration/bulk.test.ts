/** Much data in one direction, which the relay reads in larger pieces: nothing of it is lost, and what comes behind it is in its place. */
import { pipeline } from 'node:stream/promises'
import { Client } from 'pg'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'
import { describe, expect, test } from 'vitest'
import { createCa } from '../support/certificates.ts'
import { onEachPostgres } from '../support/each-postgres.ts'
import type { ConfigInput, Stage } from '../support/pgusher.ts'
import { withClient } from '../support/postgres.ts'
import { statementsOf } from '../support/statement-events.ts'

/** Some 130 bytes a row. */
const rows = (count: number): string =>
  `(select g, repeat(md5(g::text), 3) as text, g / 7.0 as n from generate_series(1, ${count}) g) t`
const digest = (from: string): string =>
  `select count(*)::int as n, md5(string_agg(t::text, '|' order by g)) as md5 from ${from}`

function moves(stage: () => Stage): void {
  const job = async (tls: boolean) => {
    const config = stage().client({ token: await stage().token() })
    return tls ? config : { ...config, ssl: false as const }
  }

  test.each([true, false])('COPY out and in of 12 MB, TLS: %s', async (tls) => {
    await withClient(await job(tls), async (from) =>
      withClient(await job(tls), async (to) => {
        await to.query(`create temp table t as select * from ${rows(0)}`)
        const out = from.query(copyTo(`copy (select * from ${rows(100_000)}) to stdout`))
        await pipeline(out, to.query(copyFrom('copy t from stdin')))
        const [expected, got] = await Promise.all([from.query(digest(rows(100_000))), to.query(digest('t'))])
        expect(got.rows).toEqual(expected.rows)
        expect(got.rows[0].n).toBe(100_000)
      }),
    )
  })

  test.each([true, false])('large results and small ones by turns, TLS: %s', async (tls) => {
    const client = new Client(await job(tls))
    await client.connect()
    const sql = `select g, repeat('0123456789', 20) as text from generate_series(1, 15000) g`
    for (let turn = 0; turn < 8; turn++) {
      const large = await client.query<{ g: number; text: string }>(sql)
      expect(large.rows.every(({ g, text }, at) => g === at + 1 && text.length === 200)).toBe(true)
      expect((await client.query('select $1::int as turn', [turn])).rows).toEqual([{ turn }])
    }
    const { localPort } = (client as unknown as { connection: { stream: { localPort: number } } }).connection.stream
    await client.end()
    expect((await statementsOf(stage(), localPort)).map(({ rows: told }) => told)).toEqual(
      Array.from({ length: 8 }, () => [15_000, 1]).flat(),
    )
  })

  test('a cancel in the midst of a large result', async () => {
    const client = new Client(await job(false))
    await client.connect()
    let cancelled: Promise<unknown> | undefined
    const out = client.query(copyTo(`copy (select repeat('0123456789', 12), generate_series(1, 100000000)) to stdout`))
    let bytes = 0
    await expect(async () => {
      for await (const chunk of out as AsyncIterable<Buffer>) {
        bytes += chunk.length
        if (bytes < 4_000_000 || cancelled !== undefined) continue
        cancelled = stage().admin(
          `select pg_cancel_backend(pid) from pg_stat_activity where query like 'copy (select repeat%' and pid <> pg_backend_pid()`,
        )
      }
    }).rejects.toThrow('canceling statement')
    await cancelled
    expect((await client.query('select 1 as one')).rows).toEqual([{ one: 1 }])
    await client.end()
  })
}

const listen = { plaintext: 'allow' } as const
const certificate = await (await createCa()).issue({ cn: 'pg', ips: ['127.0.0.1'] })

function overTls(config: ConfigInput): ConfigInput {
  const entries = Object.entries(config.databases).map(([name, entry]) => [
    name,
    { ...entry, tls: { mode: 'require' } },
  ])
  return { ...config, databases: Object.fromEntries(entries) }
}

describe('plain to PostgreSQL', () => onEachPostgres(moves, { listen }))
describe('TLS to PostgreSQL', () => onEachPostgres(moves, { listen, config: overTls }, { tls: certificate }))
