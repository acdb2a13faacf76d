/** Text that is made to be read in two ways: what goes upstream, what is on record, and what the record looks like. */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Stage, startStage } from '../support/pgusher.ts'
import { bind, execute, parse, query, type RawClient, rawSession, sync, terminate } from '../support/raw-client.ts'
import { statementsOf } from '../support/statement-events.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
})
afterAll(() => stage.close())

async function record(work: (client: RawClient) => Promise<void>) {
  using client = await rawSession(stage, { token: await stage.token() })
  await work(client)
  client.send(terminate)
  await client.rest()
  return { port: client.port, statements: await statementsOf(stage, client.port) }
}

test('invariant 22: bytes that are no UTF-8 are refused by PostgreSQL and on record as refused', async () => {
  const bytes = Buffer.concat([Buffer.from("select '"), Buffer.from([0xc0, 0xaf, 0xff]), Buffer.from("'")])
  const { port, statements } = await record(async (client) => {
    expect(await client.ask(query(bytes))).toContainEqual(expect.stringMatching(/^E 22021 /))
    expect(await client.ask(parse('', bytes), bind('', ''), execute(''), sync)).toContainEqual(
      expect.stringMatching(/^E 22021 /),
    )
    expect(await client.ask(query("select 'still here'"))).toContain('D still here')
  })
  expect(statements.map(({ outcome, code }) => [outcome, code])).toEqual([
    ...[
      ['failure', '22021'],
      ['failure', '22021'],
      ['success', undefined],
    ],
  ])
  const events = await stage.events(
    (event) => event.event === 'statement' && (event['client'] as { port: number }).port === port,
  )
  const recorded = events.map((event) => (event.pgusher['query'] as { length_bytes: number }).length_bytes)
  expect(recorded.slice(0, 2)).toEqual([bytes.length, bytes.length])
})

test('the hash on record is that of the bytes that were sent, also of texts that read alike, and of another encoding', async () => {
  const select = (...bytes: number[]): Buffer =>
    Buffer.concat([Buffer.from("select '"), Buffer.from(bytes), Buffer.from("'")])
  // The first two read alike, since neither is text.
  const texts = [select(0xff), select(0xfe), select(0xff), Buffer.from("select 'Zürich'")]
  const latin = [select(0xfc), Buffer.concat([select(0xe9), Buffer.from('; select 2')])]
  const { port } = await record(async (client) => {
    for (const text of texts) await client.ask(query(text))
    await client.ask(query(`set client_encoding to 'LATIN1'`))
    for (const text of latin) await client.ask(query(text))
  })
  const events = await stage.events(
    (event) => event.event === 'statement' && (event['client'] as { port: number }).port === port,
  )
  const recorded = events.map(({ pgusher }) => pgusher['query'] as { sha256: string; length_bytes: number })
  // Of a Query with several statements in another encoding than UTF-8 each has the hash of all of it.
  const sent = [...texts, Buffer.from(`set client_encoding to 'LATIN1'`), ...latin, latin[1]!]
  expect(recorded.map(({ sha256, length_bytes }) => [sha256, length_bytes])).toEqual(
    sent.map((text) => [hash('sha256', text, 'hex'), text.length]),
  )
})

test('invariant 22: an encoding that changes inside of a function is followed by what PostgreSQL reports', async () => {
  const { statements } = await record(async (client) => {
    await client.ask(query(`do $$ begin perform set_config('client_encoding', 'SJIS', false); end $$`))
    // 表'; its second byte is a backslash for whoever takes it for ASCII, and would then hide the quote behind it.
    const text = Buffer.concat([Buffer.from("select '"), Buffer.from([0x95, 0x5c]), Buffer.from("' as a; select 2")])
    expect((await client.ask(query(text))).filter((message) => message.startsWith('C'))).toEqual([
      ...['C SELECT 1', 'C SELECT 1'],
    ])
  })
  expect(statements.slice(1).map(({ sql }) => sql)).toEqual([`select '表' as a`, 'select 2'])
})

test('invariant 24: what does not parse, and what breaks the parser, is on record as unknown', async () => {
  const { statements } = await record(async (client) => {
    await client.ask(query('selec 1 frm nowhere'))
    await client.ask(query(`select ${'1+'.repeat(20_000)}1`))
  })
  expect(statements.map((statement) => statement.class)).toEqual(['unknown', 'unknown'])
  expect(statements.map(({ outcome }) => outcome)).toEqual(['failure', 'failure'])
})

test('invariant 37: each line is one JSON object in printable characters, whatever a claim, a name or SQL held', async () => {
  const hostile = 'a\n{"event":"forged"}\u2028\u202e\u0000\u001b[2J\ud800"\\'
  // A claim with a NUL is refused, since PostgreSQL could not take it.
  const named = hostile.replaceAll('\0', '').replaceAll('\ud800', '')
  const token = await stage.token('github', { actor: named, workflow: named })
  await stage.session({ token }, (client) =>
    client.query(`select '${named.replaceAll("'", "''")}' as "${named.slice(0, 20).replaceAll('"', '')}"`),
  )
  await expect(stage.session({ token, database: named.slice(0, 40) }, async () => {})).rejects.toThrow(/D-/)
  await expect(stage.session({ token: await stage.token('github', { ref: hostile }) }, async () => {})).rejects.toThrow(
    /D-/,
  )
  await stage.waitForEvent('session.ended')
  await stage.waitForNoRoles()
  const text = await readFile(stage.auditFile, 'utf8')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/)
  const events = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { event: string; pgusher: { seq: number } })
  expect(events.filter(({ event }) => event === 'forged')).toEqual([])
  expect(events.map(({ pgusher }) => pgusher.seq)).toEqual(
    events.map((_, index) => (events[0]?.pgusher.seq ?? 0) + index),
  )
})
