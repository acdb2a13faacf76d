/** `pgusher serve` that cannot start, or starts where others are down: one problem in words with its place in the file, and exit 1. */
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startOf } from '../../src/config/diagnostics.ts'
import { startProxy } from '../../src/proxy.ts'
import { bindListener } from '../../src/session/listener.ts'
import { opening, StartFault } from '../../src/session/start-fault.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { writeConfig } from '../config/write-config.ts'
import { createCa } from '../support/certificates.ts'
import { eventually } from '../support/shop.ts'
import { runHere } from './run-here.ts'

let certificate: { cert: string; key: string }
let other: { cert: string; key: string }
/** Somebody else's port. */
let taken = 0
const occupant = createServer()
beforeAll(async () => {
  const ca = await createCa()
  certificate = await ca.issue({ cn: 'pgusher', dns: ['localhost'] })
  other = await ca.issue({ cn: 'other', dns: ['localhost'] })
  occupant.listen(0, '127.0.0.1')
  await once(occupant, 'listening')
  taken = (occupant.address() as AddressInfo).port
})
afterAll(() => void occupant.close())

/** Nobody listens on port 9 of this host, which is what an issuer and a PostgreSQL are that are down. */
const BASE = `version: 1
instance: start
listen:
  address: 127.0.0.1:0
  tls: { cert: tls.crt, key: tls.key }
http: { address: 127.0.0.1:0 }
audit: { file: { path: audit.jsonl } }
control: { socket: control.sock }
issuers:
  jenkins: { preset: jenkins, url: "http://127.0.0.1:9", audience: https://pgusher.acme.example }
databases:
  shop:
    host: 127.0.0.1
    port: 9
    tls: { mode: disable }
    credentials: { kind: ephemeral-role, admin: { user: pgusher_admin, password: secret } }
`

function configFile(text: string, files: Readonly<Record<string, string>> = {}): Promise<string> {
  return writeConfig(text, {
    'tls.crt': certificate.cert,
    'tls.key': certificate.key,
    'keys.json': '{"keys":[]}',
    ...files,
  })
}

/** Without an issuer that would be asked. */
const QUIET = BASE.replace('preset: jenkins,', 'preset: jenkins, jwks_file: keys.json,').replace(
  'version: 1',
  'version: 1\nlog: { level: error }',
)

const LONG = `${'x'.repeat(120)}.sock`

describe('what serve opens and cannot: told with the place in the file, exit 1, and no stack', () => {
  test.each([
    [
      'a missing audit directory',
      'audit.jsonl',
      'none/audit.jsonl',
      /^audit\.file\.path: .*none\/audit\.jsonl cannot be made: there is no such directory/,
    ],
    ['a directory as the audit file', 'audit.jsonl', '.', /^audit\.file\.path: .* is a directory/],
    [
      'a file in the path of the audit',
      'audit.jsonl',
      'tls.crt/audit.jsonl',
      /^audit\.file\.path: .*a part of its path is not a directory/,
    ],
    [
      'a port in use',
      'address: 127.0.0.1:0',
      'address: 127.0.0.1:TAKEN',
      /^listen\.address: 127\.0\.0\.1:\d+ is in use by another process/,
    ],
    [
      'the port of health and metrics in use',
      'http: { address: 127.0.0.1:0',
      'http: { address: 127.0.0.1:TAKEN',
      /^http\.address: 127\.0\.0\.1:\d+ is in use by another process/,
    ],
    [
      'a control socket that is a file',
      'control.sock',
      'tls.crt',
      /^control\.socket: .*tls\.crt is taken: another process answers there, or it is a file and no socket/,
    ],
  ])('%s', async (_name, before, after, expected) => {
    const file = await configFile(QUIET.replace(before, after.replace('TAKEN', String(taken))))
    const { code, stderr } = await runHere(['serve', '--config', file])
    const [, message] = /^.*\/pgusher\.yaml:\d+:\d+: error: (.*)$/m.exec(stderr) ?? []
    expect([code, message]).toEqual([1, expect.stringMatching(expected)])
    expect(stderr).not.toMatch(/internal error|\n\s+at /)
  })

  test.each([
    [
      'an address of another host',
      { kind: 'tcp', host: '203.0.113.5', port: 0 },
      '203.0.113.5 is not an address of this host',
    ],
    [
      'a socket with a long path',
      { kind: 'unix', path: `/tmp/${LONG}` },
      `the path of a Unix socket has at most 107 bytes, and this one 130: /tmp/${LONG}`,
    ],
    [
      'a socket without a directory',
      { kind: 'unix', path: '/no/such/a.sock' },
      '/no/such/a.sock cannot be opened: no such directory, or permission denied',
    ],
  ] as const)('%s', async (_name, address, message) => {
    const bound = opening('listen.address', startOf('a'), address, () => bindListener(createServer(), address))
    await expect(bound).rejects.toMatchObject({ diagnostic: { message: `listen.address: ${message}` } })
  })

  test.each([
    [
      'a key of another certificate',
      () => ({ 'tls.key': other.key }),
      /^listen\.tls\.key: the key in .*tls\.key is not the one of the certificate in .*tls\.crt/,
    ],
    [
      'a key that is none',
      () => ({ 'tls.key': 'secret' }),
      /^listen\.tls\.key: .*tls\.key holds no private key in PEM, or one that needs a passphrase/,
    ],
    [
      'a certificate that is none',
      () => ({ 'tls.crt': 'x' }),
      /^listen\.tls\.cert: .*tls\.crt holds no certificate in PEM/,
    ],
  ])('%s', async (_name, files, expected) => {
    const { code, stderr } = await runHere(['serve', '--config', await configFile(QUIET, files())])
    const [, message] = /^.*\/pgusher\.yaml:6:\d+: error: (.*)$/m.exec(stderr) ?? []
    expect([code, message]).toEqual([1, expect.stringMatching(expected)])
    expect(stderr).not.toContain(certificate.key.split('\n')[1])
  })

  test('a missing key file, beside every other problem of the file', async () => {
    const file = await configFile(BASE.replace('tls.key', 'none.key').replace('instance: start', 'instnace: start'))
    const { code, stderr } = await runHere(['serve', '--config', file])
    expect(code).toBe(1)
    expect(stderr).toMatch(/listen\.tls\.key: .*none\.key cannot be read: no such file/)
    expect(stderr).toMatch(/unknown key "instnace"/)
  })

  test.each([
    [
      { kind: 'tcp', host: '0.0.0.0', port: 443 },
      'EACCES',
      'this user may not listen on 0.0.0.0:443',
      /CAP_NET_BIND_SERVICE/,
    ],
    [
      { kind: 'tcp', host: 'db.invalid', port: 6432 },
      'ENOTFOUND',
      'db.invalid is no name that can be looked up here',
      /./,
    ],
    [{ kind: 'tcp', host: '::1', port: 6432 }, 'EAFNOSUPPORT', '[::1]:6432 cannot be opened: EAFNOSUPPORT', undefined],
    [
      { kind: 'tcp', host: '::1', port: 6432 },
      'EMFILE',
      '[::1]:6432 cannot be opened: this process has no file descriptors left',
      'a session takes two, and some thirty are taken before the first: raise "ulimit -n", or LimitNOFILE in the systemd unit',
    ],
    [
      { kind: 'file', path: '/var/log/a' },
      'EACCES',
      '/var/log/a cannot be opened: no such directory, or permission denied',
      /uid \d+/,
    ],
    [{ kind: 'file', path: '/var/log/a' }, 'EROFS', '/var/log/a cannot be made: the file system is read-only', /./],
    [
      { kind: 'unix', path: '/run/a' },
      'ENOTDIR',
      '/run/a cannot be made: a part of its path is not a directory',
      undefined,
    ],
  ] as const)('%j with %s', async (what, code, message, hint) => {
    const cause = Object.assign(new Error('bind'), { code })
    const fault = await opening('some.setting', startOf('pgusher.yaml'), what, () =>
      Promise.reject(new Error('wrapped', { cause })),
    ).catch((error: unknown) => error)
    expect(fault).toBeInstanceOf(StartFault)
    const { diagnostic } = fault as StartFault
    expect(diagnostic.message).toBe(`some.setting: ${message}`)
    if (hint === undefined) expect(diagnostic.hint).toBeUndefined()
    else expect(diagnostic.hint).toMatch(hint)
  })

  test('what is no word of the system stays an error of pgusher itself', async () => {
    const thrown = new TypeError('x is not a function')
    const what = { kind: 'file', path: 'a' } as const
    await expect(opening('a', startOf('a'), what, () => Promise.reject(thrown))).rejects.toBe(thrown)
  })
})

test('issuer and PostgreSQL down, and a certificate that is over: it starts, and the log names each', async () => {
  const ca = await createCa()
  const over = await ca.issue({ cn: 'pgusher', dns: ['localhost'], notAfter: new Date(Date.now() - 86_400_000) })
  const file = await configFile(BASE, { 'tls.crt': over.cert, 'tls.key': over.key })
  const lines: string[] = []
  const log = createLog({ level: 'info', destination: { write: (line: string) => void lines.push(line) } })
  const result = await startProxy({ configFile: file, env: {}, log })
  if (!result.ok) throw new Error(JSON.stringify(result.diagnostics))
  onTestFinished(async () => void (await result.proxy.shutdown()))
  await eventually(async () => ['"issuer":"jenkins"', '"alias":"shop"'].every((part) => lines.join('').includes(part)))
  expect(lines.join('')).toMatch(/listen\.tls\.cert: the certificate is over since/)
  expect(lines.join('')).toContain('pgusher is ready')
  const { httpAddress } = result.proxy
  const port = httpAddress.kind === 'tcp' ? httpAddress.port : 0
  expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200)
})

test('a full disk at the start: it starts, is not ready, and says why', async () => {
  const lines: string[] = []
  const log = createLog({ level: 'info', destination: { write: (line: string) => void lines.push(line) } })
  const file = await configFile(QUIET.replace('audit.jsonl', '/dev/full'))
  const result = await startProxy({ configFile: file, env: {}, log })
  if (!result.ok) throw new Error(JSON.stringify(result.diagnostics))
  const { httpAddress } = result.proxy
  const port = httpAddress.kind === 'tcp' ? httpAddress.port : 0
  const ready = await fetch(`http://127.0.0.1:${port}/readyz`)
  expect([ready.status, await ready.text()]).toEqual([503, expect.stringContaining('ENOSPC')])
  expect(lines.join('')).toMatch(/ENOSPC/)
  await result.proxy.shutdown().catch(() => {})
})
