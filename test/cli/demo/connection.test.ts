import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { databaseUrl, type JobConnection, writeEnvironment } from '../../../src/cli/demo/connection.ts'

let directory: string

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'pgusher-connection-'))
})

afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** No NUL: neither a variable nor a PostgreSQL name can hold one. */
const anyText = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }).filter((text) => !text.includes('\0'))
const job: fc.Arbitrary<JobConnection> = fc.record({
  host: fc.constant('localhost'),
  port: fc.integer({ min: 1, max: 65_535 }),
  user: anyText,
  // A path of dots alone means something else to whoever reads a URL.
  database: anyText.map((text) => `d${text}`),
  password: anyText,
  caFile: anyText.map((name) => `/tmp/${name}`),
})

test('a URL gives back each part of the connection', () => {
  fc.assert(
    fc.property(job, (one) => {
      const url = new URL(databaseUrl(one))
      expect({
        user: decodeURIComponent(url.username),
        password: decodeURIComponent(url.password),
        database: decodeURIComponent(url.pathname.slice(1)),
        port: Number(url.port),
        caFile: url.searchParams.get('sslrootcert'),
        mode: url.searchParams.get('sslmode'),
      }).toEqual({
        user: one.user,
        password: one.password,
        database: one.database,
        port: one.port,
        caFile: one.caFile,
        mode: 'verify-full',
      })
    }),
  )
})

test('a shell reads from the file what was meant, whatever the values hold', async () => {
  const file = join(directory, 'job.env')
  const print =
    '. "$0"; printf "%s\\0" "$DATABASE_URL" "$PGUSER" "$PGDATABASE" "$PGPASSWORD" "$PGSSLROOTCERT" "$PGUSHER_AUDIT_LOG"'
  await fc.assert(
    fc.asyncProperty(job, anyText, async (one, log) => {
      await writeEnvironment(file, one, log)
      const read = execFileSync('sh', ['-c', print, file], { encoding: 'utf8', env: {} }).split('\0').slice(0, -1)
      expect(read).toEqual([databaseUrl(one), one.user, one.database, one.password, one.caFile, log])
    }),
    { numRuns: 30, examples: [[{ ...EXAMPLE, password: `'; rm -rf / #` }, '$(id) `id` "$HOME" \\ \n']] },
  )
})

const EXAMPLE: JobConnection = {
  host: 'localhost',
  port: 6432,
  user: 'shop_migrator',
  database: 'shop-prod',
  password: 'token',
  caFile: '/tmp/ca.crt',
}

test('the file is its owner’s alone, takes the place of an older one at once, and a failure leaves no half of it', async () => {
  const file = join(directory, 'older.env')
  writeFileSync(file, 'old', { mode: 0o644 })
  await writeEnvironment(file, EXAMPLE, '/tmp/audit.jsonl')
  expect(statSync(file).mode & 0o777).toBe(0o600)
  expect(readFileSync(file, 'utf8')).toContain("export PGPORT='6432'\n")
  const nowhere = join(directory, 'missing', 'job.env')
  await expect(writeEnvironment(nowhere, EXAMPLE, '/tmp/audit.jsonl')).rejects.toThrow('ENOENT')
  expect(readdirSync(directory).sort()).toEqual(['job.env', 'older.env'])
})
