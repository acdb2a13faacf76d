import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createLog, type Logger } from '../../src/telemetry/log.ts'
import { maskSecrets } from '../../src/telemetry/mask.ts'
import { cpuOf } from '../support/cpu-time.ts'

function captured(write: (log: Logger) => void): Record<string, unknown>[] {
  const lines: string[] = []
  write(createLog({ level: 'debug', destination: { write: (line) => void lines.push(line) } }))
  return lines.map((line) => {
    expect(line.endsWith('\n')).toBe(true)
    return JSON.parse(line)
  })
}

const JWT =
  'eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoicmVwbyJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ'
const VERIFIER =
  'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBF=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPl='
const PEM = '-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----'

test('a line is one JSON object with ISO time and the name of its level', () => {
  const [line] = captured((log) => log.warn({ database: 'shop' }, 'slow'))
  expect(line).toEqual({ level: 'warn', time: expect.stringMatching(/^\d{4}-.*Z$/), database: 'shop', msg: 'slow' })
})

test('lines below the level are not written', () => {
  const lines: string[] = []
  const log = createLog({ level: 'warn', destination: { write: (line) => void lines.push(line) } })
  log.info('quiet')
  log.error('loud')
  expect(lines).toHaveLength(1)
})

test('of an error only name, message, code, stack and causes are told', () => {
  const cause = Object.assign(new Error('inner'), { code: '42501', client: { password: 'hunter2' }, query: 'SELECT 1' })
  const [line] = captured((log) => log.error(new TypeError('outer', { cause }), 'it failed'))
  expect(line?.['err']).toEqual({
    name: 'TypeError',
    message: 'outer',
    stack: expect.stringContaining('TypeError: outer'),
    cause: { name: 'Error', message: 'inner', code: '42501', stack: expect.any(String) },
  })
  expect(JSON.stringify(line)).not.toContain('hunter2')
})

test('errors under other names, in children and of an AggregateError are told in the same way', () => {
  const error = Object.assign(new Error('down'), { socket: { secretKey: 'hunter2' } })
  const lines = captured((log) => {
    log.info({ reason: error }, 'under another name')
    log.child({ err: error }).info('in a child')
    log.info({ err: new AggregateError([error, 'text'], 'both') })
  })
  expect(lines[0]?.['reason']).toMatchObject({ name: 'Error', message: 'down' })
  expect(lines[1]?.['err']).toMatchObject({ name: 'Error', message: 'down' })
  expect(lines[2]?.['err']).toMatchObject({ errors: [{ message: 'down' }, { name: 'NonError', message: 'text' }] })
  expect(JSON.stringify(lines)).not.toContain('hunter2')
})

test('a chain of causes that leads back to itself ends', () => {
  const error = new Error('round')
  error.cause = error
  expect(JSON.stringify(captured((log) => log.error(error)))).toContain('round')
})

test('what was thrown and is no error does not show its members', () => {
  const [line] = captured((log) => log.error({ err: new Error('x', { cause: { password: 'hunter2' } }) }))
  expect(JSON.stringify(line)).not.toContain('hunter2')
})

test.each([
  ['a token', JWT],
  ['a token that was cut', JWT.slice(0, 60)],
  ['a verifier', VERIFIER],
  ['a private key', PEM],
  ['an MD5 password', `md5${'0a'.repeat(16)}`],
])('invariant 38: %s never reaches the log, wherever it stands', (_name, secret) => {
  const lines = captured((log) => {
    log.info(`message ${secret}.`)
    log.info('format %s', secret)
    log.info({ nested: { list: [`x ${secret} y`] } })
    log.child({ bound: secret }).info('child')
    log.error(new Error(`refused: ${secret}`, { cause: new Error(secret) }))
  })
  expect(lines).toHaveLength(5)
  const middle = secret.slice(20, 40)
  expect(JSON.stringify(lines)).not.toContain(middle)
})

test.each([
  [`ALTER ROLE a PASSWORD 'it''s hunter2, really' VALID UNTIL 'x'`, `ALTER ROLE a PASSWORD [masked] VALID UNTIL 'x'`],
  ['host=db password=hunter2 user=a', 'host=db password=[masked] user=a'],
  ['postgres://ci:hunter2@db:5432/shop', 'postgres://ci:[masked]@db:5432/shop'],
  ['Authorization: Bearer hunter2hunter2', 'Authorization: Bearer [masked]'],
  ['{"client_secret": "hunter2"}', '{"client_secret": [masked]}'],
  // Of pgusher's own refusals, where a token is missing; no secret is that word.
  ['a job with "permissions: id-token: write", and none', 'a job with "permissions: id-token: write", and none'],
  ['id_token: write-1a2b3c', 'id_token: [masked]'],
  ['the password is wrong', 'the password is wrong'],
  ['password authentication failed for user "pgu_1"', 'password authentication failed for user "pgu_1"'],
  ['https://ci.acme.example:8443/job/1', 'https://ci.acme.example:8443/job/1'],
])('%s', (text, masked) => {
  expect(maskSecrets(text)).toBe(masked)
})

test('members that hold secrets are emptied whatever is in them', () => {
  const [line] = captured((log) => log.info({ a: { password: 'x1y2', Token: 'z3', clientKey: Buffer.from('k') } }))
  expect(line?.['a']).toEqual({ password: '[masked]', Token: '[masked]', clientKey: '[masked]' })
})

test('any text gives one valid line, and masking is done once', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => {
      expect(captured((log) => log.info({ text }, text))).toHaveLength(1)
      expect(maskSecrets(maskSecrets(text))).toBe(maskSecrets(text))
    }),
  )
})

test('masking a hostile text of 1 MiB takes no time worth speaking of', async () => {
  const texts = ["password='", 'eyJ', 'a.', "''", '-----BEGIN PRIVATE KEY-----', 'secret = ', 'postgres://a', 'a:'].map(
    (part) => part.repeat(2 ** 20 / part.length),
  )
  for (const text of texts) expect(await cpuOf(() => maskSecrets(text))).toBeLessThan(500)
})
