import { createHash } from 'node:crypto'
import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openRecorder } from '../../src/audit/open.ts'
import { auditConfig, identity, KIB, readEvents, recorderOn, statement, temporaryFolder } from './support.ts'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

test('invariant 35: a refused token whose end is no date leaves its event too', async () => {
  const path = join(temporaryFolder(), 'audit.jsonl')
  const { recorder } = await recorderOn(path)
  if (identity.principal === undefined) throw new Error('the identity has no principal')
  // What the verifier makes of `exp: 9007199254740991`, which a signature can stand under.
  const principal = { ...identity.principal, expiresAt: Number.MAX_SAFE_INTEGER * 1000 }
  recorder.event({ event: 'session.denied', outcome: 'denied' }, { ...identity, principal })
  await recorder.flush()
  const denied = readEvents(path).at(-1)
  expect(denied?.event).toBe('session.denied')
  expect(denied?.at('pgusher.idp.subject')).toBe(principal.subject)
  expect(denied?.at('pgusher.idp.token_expires_at')).toBeUndefined()
})

describe('the events of a session', () => {
  test('invariant 37: carry the whole identity, in the order of the calls, numbered without gaps', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const session = recorder.session(identity, 'full')
    session.event({
      event: 'session.started',
      outcome: 'success',
      fields: { pgusher: { credential: { kind: 'ephemeral-role' } } },
    })
    session.prefetch('select * from public.orders')
    session.statement(statement('select * from public.orders'))
    session.statement(statement('select 1', { outcome: 'failure', sqlstate: '42P01', affectedRows: undefined }))
    session.event({ event: 'session.ended', outcome: 'success', fields: { pgusher: { duration_s: 1.5 } } })
    recorder.event({ event: 'policy.loaded', outcome: 'success' })
    await recorder.close()

    const events = readEvents(path)
    expect(events.map(({ event }) => event)).toEqual([
      'audit.started',
      'session.started',
      'statement',
      'statement',
      'session.ended',
      'policy.loaded',
      'audit.stopped',
    ])
    expect(events.map((event) => event.at('pgusher.seq'))).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(events.map((event) => event.at('pgusher.session_seq'))).toEqual([
      undefined,
      1,
      2,
      3,
      4,
      undefined,
      undefined,
    ])
    const ids = events.map((event) => String(event.at('pgusher.id')))
    expect(ids).toEqual([...ids].sort())
    for (const event of events.slice(1, 5)) {
      expect(event.raw).toMatchObject({
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
        pgusher: {
          schema: '1.0',
          instance: 'test-1',
          idp: {
            provider: 'github-actions',
            issuer: 'https://token.actions.githubusercontent.com',
            subject: 'repo:acme/shop:environment:production',
            token_sha256: 'ab'.repeat(32),
            token_expires_at: '2026-11-21T12:00:00.000Z',
            claims: { repository: 'acme/shop', repository_id: '784500001' },
          },
          actor: 'octocat',
          db: { alias: 'shop-prod', role: 'shop_migrator', login: 'pgu_x' },
        },
        cicd: {
          pipeline: {
            name: 'deploy',
            run: { id: '123', url: { full: 'https://github.com/acme/shop/actions/runs/123' } },
            task: { name: 'migrate', run: { id: '77' } },
          },
        },
        vcs: {
          repository: { url: { full: 'https://github.com/acme/shop' } },
          ref: { head: { name: 'refs/heads/main', revision: 'c0ffee' } },
          change: { id: '42' },
        },
        deployment: { environment: { name: 'production' } },
        session: { id: '0198-session' },
        client: { address: '10.1.2.3', port: 54321 },
        tls: { protocol: { version: 'TLSv1.3' } },
        db: { system: { name: 'postgresql' }, namespace: 'shop' },
        server: { address: 'pg1.internal', port: 5432 },
        security_rule: { name: 'migrate-production', ruleset: { name: 'policy.yaml' }, version: 'cd'.repeat(32) },
      })
    }
    expect(events[1]?.at('pgusher.credential.kind')).toBe('ephemeral-role')
    expect(events[4]?.at('pgusher.duration_s')).toBe(1.5)
  })

  test('a statement says what it was, what came of it and how long it took', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const session = recorder.session(identity, 'full')
    const sql = 'select * from public.orders'
    session.statement(
      statement(sql, {
        protocol: 'extended',
        statementName: 's1',
        returnedRows: 3,
        tx: 'open',
        parameters: ['x', null],
      }),
    )
    session.statement(
      statement('selec', { outcome: 'failure', sqlstate: '42601', returnedRows: 0, affectedRows: undefined }),
    )
    session.statement(statement(undefined, { protocol: 'function', functionOid: 1234 }))
    session.statement(statement('select 2', { outcome: 'unknown', errorType: 'connection_lost' }))
    await recorder.flush()
    const [good, bad, call, lost] = readEvents(path).slice(1)
    expect(good?.raw['pgusher']).toMatchObject({
      outcome: 'success',
      query: {
        class: 'READ',
        fingerprint: expect.stringMatching(/^[0-9a-f]{16}$/),
        sha256: sha256(sql),
        length_bytes: sql.length,
        truncated: false,
        tables: ['public.orders'],
        tables_complete: true,
      },
      statement_name: 's1',
      protocol: 'extended',
      batch_index: 0,
      tx: 'open',
      duration_s: 0.0025,
      affected_rows: 1,
      request_bytes: 30,
      response_bytes: 60,
      parameters: ['x', null],
    })
    expect(good?.at('db.query')).toEqual({ text: sql, summary: 'SELECT public.orders' })
    expect(good?.at('db.response')).toEqual({ returned_rows: 3 })
    expect(bad?.at('pgusher.query.class')).toBe('unknown')
    expect(bad?.at('db.response.status_code')).toBe('42601')
    expect(bad?.at('error.type')).toBe('42601')
    expect(call?.at('pgusher.query.class')).toBe('FUNCTION')
    expect(call?.at('pgusher.function_oid')).toBe(1234)
    expect(call?.at('db.query')).toBeUndefined()
    expect(lost?.at('pgusher.outcome')).toBe('unknown')
    expect(lost?.at('error.type')).toBe('connection_lost')
  })

  test('an event without identity has none, and fields cannot forge what makes an event', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const cycle: Record<string, unknown> = {}
    cycle['self'] = cycle
    recorder.event(
      {
        event: 'session.denied',
        outcome: 'denied',
        fields: {
          event: 'x',
          time: 'y',
          pgusher: { seq: 99, outcome: 'success', decision: { code: 'token_expired' } },
        },
      },
      { sessionId: 's', client: { address: '::1', port: undefined }, unverifiedTokenSha256: 'ef'.repeat(32) },
    )
    recorder.event({ event: 'policy.rejected', outcome: 'failure', fields: { cycle } })
    await recorder.flush()
    const [denied, rejected] = readEvents(path).slice(1)
    expect(denied?.event).toBe('session.denied')
    expect(denied?.at('pgusher')).toMatchObject({
      seq: 2,
      outcome: 'denied',
      decision: { code: 'token_expired' },
      idp: { token_sha256: 'ef'.repeat(32) },
    })
    expect(Object.keys(denied?.at('pgusher.idp') as object)).toEqual(['token_sha256'])
    for (const absent of [
      'cicd',
      'vcs',
      'deployment',
      'tls',
      'server',
      'security_rule',
      'pgusher.actor',
      'pgusher.db',
      'client.port',
    ]) {
      expect(denied?.at(absent)).toBeUndefined()
    }
    expect(rejected?.event).toBe('policy.rejected')
  })
})

describe('a Query of several statements', () => {
  const sql = "select 'é'; insert into a.b values (1); select * from a.c"

  test('is one record a statement, each with its own text, hash and length', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const session = recorder.session(identity, 'full')
    for (const batchIndex of [0, 1, 2]) session.statement(statement(sql, { batchIndex, inBatch: true }))
    await recorder.flush()
    const events = readEvents(path).slice(1)
    expect(events.map((event) => event.at('db.query.text'))).toEqual([
      "select 'é'",
      'insert into a.b values (1)',
      'select * from a.c',
    ])
    expect(events.map((event) => event.at('pgusher.query.class'))).toEqual(['READ', 'WRITE', 'READ'])
    expect(events.map((event) => event.at('pgusher.query.tables'))).toEqual([[], ['a.b'], ['a.c']])
    for (const event of events) {
      const text = String(event.at('db.query.text'))
      expect(event.at('pgusher.query.sha256')).toBe(sha256(text))
      expect(event.at('pgusher.query.length_bytes')).toBe(Buffer.byteLength(text))
    }
  })

  test('the one that failed carries those that were not executed', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const session = recorder.session(identity, 'full')
    session.statement(statement(sql, { batchIndex: 0, inBatch: true }))
    session.statement(statement(sql, { batchIndex: 1, inBatch: true, outcome: 'failure', sqlstate: '42P01' }))
    session.statement(statement(sql, { outcome: 'failure', sqlstate: '22012' }))
    await recorder.flush()
    const [, second, first] = readEvents(path).slice(1)
    expect(second?.at('db.query.text')).toBe('insert into a.b values (1);\nselect * from a.c')
    expect(second?.at('pgusher.query.class')).toBe('WRITE')
    expect(second?.at('pgusher.query.tables')).toEqual(['a.b', 'a.c'])
    expect(first?.at('db.query.text')).toBe("select 'é';\ninsert into a.b values (1);\nselect * from a.c")
  })

  test('of one statement with semicolons in it is that statement', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const text = "insert into a.b values ('x;y');"
    recorder.session(identity, 'full').statement(statement(text, { inBatch: true }))
    await recorder.flush()
    const event = readEvents(path)[1]
    expect(event?.at('db.query.text')).toBe(text)
    expect(event?.at('pgusher.query')).toMatchObject({
      class: 'WRITE',
      sha256: sha256(text),
      length_bytes: text.length,
    })
  })

  test('that cannot be cut has its text once', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const session = recorder.session(identity, 'full')
    const long = `select '${'x'.repeat(66 * KIB)}'; select 2`
    for (const batchIndex of [0, 1]) session.statement(statement(long, { batchIndex, inBatch: true }))
    await recorder.flush()
    const [first, second] = readEvents(path).slice(1)
    expect(first?.at('pgusher.query.truncated')).toBe(true)
    expect(second?.at('db.query.text')).toBeUndefined()
    expect(second?.at('pgusher.query.sha256')).toBe(sha256(long))
  })
})

test('a statement whose text was not kept has what is known of it', async () => {
  const path = join(temporaryFolder(), 'audit.jsonl')
  const { recorder } = await recorderOn(path)
  const session = recorder.session(identity, 'full')
  const known = { textBytes: 2 ** 20, textSha256: 'aa'.repeat(32), truncated: true }
  session.statement(statement(undefined, { protocol: 'extended', ...known }))
  session.statement(statement(undefined, { protocol: 'extended' }))
  await recorder.flush()
  const queries = readEvents(path)
    .slice(1)
    .map((event) => event.at('pgusher.query'))
  const nothing = { class: 'unknown', tables: [], tables_complete: false }
  expect(queries).toEqual([
    { ...nothing, sha256: 'aa'.repeat(32), length_bytes: 2 ** 20, truncated: true },
    { ...nothing, truncated: false },
  ])
})

describe('opening and closing', () => {
  test('the file is for its owner and group only, and a second run goes on in it', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    await recorder.close()
    await recorder.close()
    expect(statSync(path).mode & 0o777 & ~0o640).toBe(0)
    const again = await recorderOn(path)
    await again.recorder.close()
    await again.recorder.flush()
    await again.recorder.rotate()
    again.recorder.event({ event: 'policy.loaded', outcome: 'success' })
    again.recorder.session(identity, 'full').statement(statement('select 1'))
    expect(readEvents(path).map(({ event }) => event)).toEqual([
      'audit.started',
      'audit.stopped',
      'audit.started',
      'audit.stopped',
    ])
    expect(again.log.map(({ message }) => message)).toEqual(['something was to be recorded after the audit was closed'])
  })

  test('a line that a crash tore stays alone', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    writeFileSync(path, '{"event":"statement","time"')
    const { recorder, log } = await recorderOn(path)
    await recorder.close()
    appendFileSync(path, '')
    const lines = readFileSync(path, 'utf8').split('\n')
    expect(lines[0]).toBe('{"event":"statement","time"')
    expect(lines.slice(1, 3).map((line) => JSON.parse(line).event)).toEqual(['audit.started', 'audit.stopped'])
    expect(log[0]?.message).toBe('the audit file ends in the middle of a line; it stays, and ours begin on a new one')
  })

  test.each([
    ['no/such/folder/audit.jsonl', /the audit file .* cannot be opened: ENOENT/],
    ['.', /the audit file .* cannot be opened: EISDIR/],
  ])('a path that cannot be: %s', async (name, message) => {
    const path = join(temporaryFolder(), name)
    await expect(openRecorder(auditConfig(path), { instance: 'i', log: () => {} })).rejects.toThrow(message)
  })

  test('events of many sessions keep their order while texts wait to be classified', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const sessions = Array.from({ length: 5 }, (_, n) => recorder.session({ ...identity, sessionId: `s${n}` }, 'full'))
    const expected: string[] = []
    for (let n = 0; n < 400; n++) {
      const session = sessions[n % 5]
      // New texts, known ones and events without text, mixed.
      const text = n % 3 === 0 ? `select ${n} from a.b` : 'select 1'
      if (n % 7 === 0) session?.event({ event: 'session.note', outcome: 'success', fields: { n } })
      else session?.statement(statement(text))
      expected.push(n % 7 === 0 ? `note ${n}` : text)
    }
    await recorder.flush()
    const events = readEvents(path).slice(1)
    expect(
      events.map((event) => (event.event === 'session.note' ? `note ${event.at('n')}` : event.at('db.query.text'))),
    ).toEqual(expected)
    expect(events.map((event) => event.at('pgusher.seq'))).toEqual(expected.map((_, n) => n + 2))
    const times = events.map((event) => String(event.at('time')))
    expect(times).toEqual([...times].sort())
  })
})
