import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseUpstream, upstreamClient } from '../../../src/cli/demo/upstream-url.ts'

test('each part of a URL, whatever it holds', async () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
  const parts = fc.record({
    user: text,
    password: text,
    database: text.map((name) => `d${name}`),
    port: fc.integer({ min: 1, max: 65_535 }),
  })
  await fc.assert(
    fc.asyncProperty(parts, async ({ user, password, database, port }) => {
      const part = encodeURIComponent
      const url = `postgres://${part(user)}:${part(password)}@db.internal:${port}/${part(database)}?sslmode=require`
      expect(await parseUpstream(url)).toEqual({
        ...{ host: 'db.internal', port, user, password, database },
        tls: { mode: 'require', caFile: undefined, ca: undefined },
      })
    }),
  )
})

test.each([
  ['postgres://', { host: 'localhost', port: 5432, user: 'postgres', database: 'postgres', mode: 'disable' }],
  ['postgresql://dba@[::1]/', { host: '::1', port: 5432, user: 'dba', database: 'dba', mode: 'disable' }],
  ['postgres://pg1.internal', { host: 'pg1.internal', user: 'postgres', mode: 'verify-full' }],
  [
    'postgres:///shop?host=/run/postgresql&port=5433&user=dba',
    { host: '/run/postgresql', port: 5433, user: 'dba', database: 'shop', mode: 'disable' },
  ],
  ['postgres://127.0.0.1/?sslmode=verify-ca', { host: '127.0.0.1', mode: 'verify-ca' }],
])('%s', async (url, { mode, ...wanted }) => {
  expect(await parseUpstream(url)).toMatchObject({ ...wanted, tls: { mode } })
})

test.each([
  ['5432', 'wants a URL such as'],
  ['mysql://localhost/', 'wants a URL such as'],
  ['postgres://db.internal/?sslmode=prefer', 'sslmode prefer is not one of'],
  ['postgres://db.internal/?sslrootcert=/nowhere/ca.crt', 'ENOENT'],
])('%s is refused, and says why', async (url, reason) => {
  await expect(parseUpstream(url)).rejects.toThrow(reason)
})

test('TLS of the client is what sslmode says', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'pgusher-upstream-'))
  try {
    const ca = join(directory, 'ca.crt')
    writeFileSync(ca, 'PEM')
    const ssl = async (sslmode: string) =>
      upstreamClient(await parseUpstream(`postgres://h/?sslmode=${sslmode}&sslrootcert=${ca}`)).ssl
    expect(await ssl('disable')).toBe(false)
    expect(await ssl('require')).toEqual({ ca: 'PEM', rejectUnauthorized: false })
    expect(await ssl('verify-full')).toEqual({ ca: 'PEM', rejectUnauthorized: true })
    expect(await ssl('verify-ca')).toMatchObject({
      rejectUnauthorized: true,
      checkServerIdentity: expect.any(Function),
    })
  } finally {
    rmSync(directory, { recursive: true })
  }
})
