// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables of our configuration look like that
import { createHash } from 'node:crypto'
import { symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { type Diagnostic, formatDiagnostics } from '../../src/config/diagnostics.ts'
import { type LoadedConfig, loadConfig } from '../../src/config/load.ts'
import { HEAD, writeConfig } from './write-config.ts'

const RULE = (name: string) => `  - name: ${name}
    issuer: github
    match: { repository_id: "1" }
    allow: { database: shop, role: reader }
`

async function load(
  text: string,
  others: Record<string, string> = {},
  env: Record<string, string> = {},
): Promise<LoadedConfig> {
  const result = await loadConfig(await writeConfig(text, others), env)
  if (!result.ok) throw new Error(JSON.stringify(result.diagnostics))
  return result.loaded
}

async function problems(
  text: string,
  others: Record<string, string> = {},
  env: Record<string, string> = {},
): Promise<Diagnostic[]> {
  const result = await loadConfig(await writeConfig(text, others), env)
  return result.ok ? [] : result.diagnostics
}

/** `line:column message | hint` */
async function told(text: string, others: Record<string, string> = {}): Promise<string[]> {
  return (await problems(text, others)).map(
    (one) => `${one.line}:${one.column} ${one.message}${one.hint === undefined ? '' : ` | ${one.hint}`}`,
  )
}

test('defaults are filled in, durations are milliseconds, sizes bytes', async () => {
  const { config } = await load(`${HEAD}rules:\n${RULE('r')}`)
  expect(config.listen).toMatchObject({
    address: { kind: 'tcp', host: '127.0.0.1', port: 6432 },
    handshake_timeout: 15_000,
  })
  expect(config.audit).toMatchObject({ max_event: 65_536, on_failure: 'deny' })
  expect(config.rules[0]?.allow).toMatchObject({ database: ['shop'], role: ['reader'], max_session: 3_600_000 })
})

test('a variable can stand for a number or a boolean, and its value brings in no YAML', async () => {
  const text = HEAD.replace('stdout: true', 'stdout: "${STDOUT:-true}"').replace(
    '  stock:\n    host: pg1.internal',
    '  stock:\n    port: ${PORT}\n    host: ${HOST}',
  )
  const { config } = await load(text, {}, { PORT: '6000', HOST: '{ a: *b }\nrules: []' })
  expect(config.audit.stdout).toBe(true)
  expect(config.databases['stock']).toMatchObject({ port: 6000, host: '{ a: *b }\nrules: []' })
})

test('a variable does not stand for a number where text is wanted', async () => {
  const { config } = await load(HEAD.replace('"9100001"', '"${OWNER}"'), {}, { OWNER: '9100001' })
  expect(config.issuers['github']?.require).toEqual({ repository_owner_id: '9100001' })
})

test('the value of a variable is in no diagnostic', async () => {
  const found = await problems(
    HEAD.replace('stdout: true', 'stdout: "${SECRET}"').replace('host: pg1', 'port: ${SECRET}\n    host: pg1'),
    {},
    { SECRET: 'hunter2' },
  )
  expect(found).toHaveLength(2)
  expect(JSON.stringify(found)).not.toContain('hunter2')
})

test('invariant 38: a password that YAML reads in another way is in no diagnostic', async () => {
  for (const value of [
    '10472913',
    '0x1047beef',
    '*hunter2',
    '&hunter2 x',
    '"a${hunter2"',
    '"${hunter2-}"',
    '!hunter2 x',
  ]) {
    const file = await writeConfig(HEAD.replace('password: secret', `password: ${value}`))
    const result = await loadConfig(file, {})
    const text = result.ok ? '' : formatDiagnostics(result.diagnostics)
    expect(text, value).toMatch(/:12:\d+: error: /)
    expect(text, value).not.toMatch(/hunter2|1047/)
  }
  for (const key of ['passwort', 'pass', 'pw', 'admin_passwd']) {
    const file = await writeConfig(HEAD.replace('password: secret', `${key}: hunter2`))
    const result = await loadConfig(file, {})
    expect(result.ok ? '' : formatDiagnostics(result.diagnostics), key).toMatch(/unknown key(?![\s\S]*hunter2)/)
  }
})

test('keys that are one name in two spellings are refused, so that none is ignored', async () => {
  const found = await told(HEAD.replace('require: { repository_owner_id: "9100001" }', 'require: { 1: "a", "1": "b" }'))
  expect(found).toEqual(['8:24 this key stands here twice | keep one of them; the other would be ignored'])
})

test('an unset variable is one problem, at the value, and nothing is said about what it would have held', async () => {
  expect(await told(HEAD.replace('password: secret', 'password: "${PGPW}"'))).toEqual([
    '12:82 the environment variable PGPW is not set | set it, or give a default: ${PGPW:-value}',
  ])
})

test.each([
  ['an anchor', 'audit: &a { stdout: true }', /YAML anchors \(&name\) are not taken/],
  ['an alias', 'audit: { stdout: *a }', /YAML aliases \(\*name\) are not taken/],
  ['a tag', 'audit: { stdout: !!bool true }', /YAML tags are not taken/],
  ['a tag of our own', 'audit: !env { stdout: true }', /YAML tags are not taken/],
  ['a merge key', 'audit: { <<: { stdout: true } }', /merge key << is not taken/],
  ['a duplicate key', 'audit: { stdout: true, stdout: false }', /this key stands here twice/],
  ['__proto__', 'audit: { stdout: true, __proto__: { stdout: false } }', /this key is not taken/],
  ['a key that is a list', 'audit: { ? [a] : b, stdout: true }', /a key must be a simple word/],
  ['a second document', 'audit: { stdout: true }\n---\nversion: 1', /a second YAML document begins here/],
  ['a syntax error', 'audit: { stdout: "x', /not valid YAML/],
])('%s is refused', async (_name, audit, message) => {
  const found = await problems(HEAD.replace('audit: { stdout: true }', audit))
  expect(found.map((one) => one.message).join('\n')).toMatch(message)
  expect(found.at(-1)?.line).toBeGreaterThanOrEqual(3)
})

test('a variable without quotes in a flow mapping is one problem that says so', async () => {
  expect(await told(HEAD.replace('password: secret', 'password: ${PGPW}'))).toEqual([
    '12:82 a variable inside { } or [ ] needs quotes | write "${NAME}"',
  ])
})

test('a directive that would turn YAML 1.1 on is refused', async () => {
  expect((await told(`%YAML 1.1\n---\n${HEAD}`))[0]).toMatch(/^1:1 YAML directives/)
})

test('depth, size, encoding and emptiness of a file have limits', async () => {
  expect(await told('['.repeat(100_000))).toEqual(['1:1 the file is nested too deeply'])
  expect(await told(`# ${'x'.repeat(1024 * 1024)}`)).toEqual(['1:1 the configuration file is larger than 1 MiB'])
  expect(await told('\ud800')).toHaveLength(1)
  expect((await told('# nothing'))[0]).toMatch(/^1:1 the file is empty/)
  expect(await told('- a')).toEqual([expect.stringMatching(/^1:1 the file must be a mapping/)])
  const result = await loadConfig('/nonexistent/pgusher.yaml', {})
  expect(result).toMatchObject({
    ok: false,
    diagnostics: [{ message: 'the configuration file cannot be read: no such file' }],
  })
})

test('what YAML reads as a number or a boolean must be quoted where text is wanted', async () => {
  const text = `${HEAD.replace('"9100001"', '9100001')}rules:
  - name: r
    issuer: github
    match: { repository_id: 90071992547409931, ref_protected: true, event_name: { in: [push, 7] } }
    allow: { database: shop, role: reader }
`
  expect(await told(text)).toEqual([
    '8:37 issuers.github.require.repository_owner_id must be a string; YAML reads 9100001 as a number | write it in quotes: "9100001"',
    '19:29 match.repository_id must be a string; YAML reads 90071992547409931 as a number, and one this large loses digits | write it in quotes: "90071992547409931"',
    '19:63 match.ref_protected must be a string; YAML reads true as a boolean | write it in quotes: "true"',
    '19:94 match.event_name.in[1] must be a string; YAML reads 7 as a number | write it in quotes: "7"',
  ])
})

test('durations, sizes and addresses say what they look like', async () => {
  const text = HEAD.replace('plaintext: allow', 'plaintext: allow, handshake_timeout: 15')
    .replace('stdout: true', 'stdout: true, max_event: 64KB')
    .replace('127.0.0.1:6432', '127.0.0.1')
  expect(await told(text)).toEqual([
    '2:20 listen.address is not host:port, [ipv6]:port or unix:/path',
    '2:70 listen.handshake_timeout must be a duration such as 30s, 15m or 2h; YAML reads 15 as a number',
    '3:35 audit.max_event is not a size such as 64KiB or 256MiB',
  ])
  expect(await told(HEAD.replace('plaintext: allow', 'plaintext: allow, handshake_timeout: "15"'))).toEqual([
    '2:75 listen.handshake_timeout is not a duration such as 30s, 15m or 2h | add a unit: 15s or 15m',
  ])
  expect(await told(HEAD.replace('plaintext: allow', 'plaintext: allow, handshake_timeout: 0s'))).toEqual([
    '2:75 listen.handshake_timeout: must be longer than nothing',
  ])
})

test('a file that must be readable and is not is a problem; relative paths start at the file', async () => {
  const tls = (cert: string) => HEAD.replace('plaintext: allow', `tls: { cert: ${cert}, key: tls/key.pem }`)
  const { config } = await load(tls('tls/cert.pem'), { 'tls/cert.pem': '', 'tls/key.pem': '' })
  expect(config.listen.tls?.cert).toMatch(/^\/.*\/tls\/cert\.pem$/)
  const [missing] = await problems(tls('gone.pem'), { 'tls/key.pem': '' })
  expect(missing?.message).toMatch(/^listen\.tls\.cert: \/.*\/gone\.pem cannot be read: no such file$/)
  const unchecked = await loadConfig(await writeConfig(tls('gone.pem')), {}, { checkFiles: false })
  expect(unchecked.ok).toBe(true)
})

test('included rules follow in the order of their names, and positions lead into their files', async () => {
  const others = {
    'rules.d/20-b.yaml': `rules:\n${RULE('b')}`,
    'rules.d/10-a.yaml': `# first\nrules:\n${RULE('a')}`,
    'rules.d/notes.txt': 'x',
  }
  const text = `${HEAD}include: ["rules.d/*.yaml"]\nrules:\n${RULE('main')}`
  const loaded = await load(text, others)
  expect(loaded.config.rules.map((rule) => rule.name)).toEqual(['main', 'a', 'b'])
  expect(loaded.ruleSources.map(({ file, line, column }) => `${file.split('/').at(-1)}:${line}:${column}`)).toEqual([
    'pgusher.yaml:18:11',
    '10-a.yaml:3:11',
    '20-b.yaml:2:11',
  ])
  expect(loaded.locate(['rules', 2, 'allow', 'role'])).toMatchObject({ line: 5, column: 36 })
  const all = [text, others['rules.d/10-a.yaml'], others['rules.d/20-b.yaml']].join('')
  expect(loaded.version).toBe(createHash('sha256').update(all).digest('hex'))
})

test('problems of included files: no match, a dangling link, a bad key, a bad rule', async () => {
  expect(await told(`${HEAD}include: [rules.d/*.yaml]`)).toEqual([
    expect.stringMatching(/^16:11 include "rules\.d\/\*\.yaml" matches no file/),
  ])
  const file = await writeConfig(`${HEAD}include: ["r/*.yaml"]`, {
    'r/1.yaml': `rules:\n${RULE('a')}listen: {}\n`,
    'r/2.yaml': `rules:\n${RULE('b').replace('database', 'databse')}`,
    'r/3.yaml': 'rule: []\n',
  })
  await symlink('nowhere', join(dirname(file), 'r/4.yaml'))
  const result = await loadConfig(file, {})
  expect(
    result.ok
      ? []
      : result.diagnostics.map((one) => `${one.file.split('/').at(-1)}:${one.line}:${one.column} ${one.message}`),
  ).toEqual([
    '1.yaml:6:1 unknown key "listen"; an included file holds rules only',
    '2.yaml:5:5 allow needs the key "database"',
    '2.yaml:5:14 unknown key "databse" in allow',
    '3.yaml:1:1 an included file needs a list `rules`',
    '4.yaml:1:1 the included file cannot be read: no such file',
  ])
})
