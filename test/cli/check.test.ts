// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables of our configuration look like that
import { expect, test } from 'vitest'
import { HEAD, writeConfig } from '../config/write-config.ts'
import { runCli } from './run-cli.ts'

const RULES = `rules:
  - name: read
    issuer: github
    match: { repository_id: "1" }
    allow: { database: shop, role: reader }
`

test('a good file: one line, exit 0', async () => {
  const file = await writeConfig(HEAD + RULES)
  const { code, stdout } = await runCli(['check', '--config', file])
  expect({ code, stdout }).toEqual({
    code: 0,
    stdout: expect.stringMatching(/: no errors; 1 issuer, 2 databases, 1 rule; policy version [0-9a-f]{64}\n$/),
  })
})

test('a bad file: each problem with place, line, caret and hint, exit 1', async () => {
  const file = await writeConfig(HEAD.replace('stdout:', 'stdoot:') + RULES.replace('database: shop', 'database: shpo'))
  const { code, stdout } = await runCli(['check', '-c', file])
  expect(code).toBe(1)
  expect(stdout.replaceAll(file, 'F')).toBe(`F:3:10: error: unknown key "stdoot" in audit
    3 | audit: { stdoot: true }
      |          ^^^^^^
      = hint: did you mean "stdout"?

F:20:24: error: no database is called "shpo"
   20 |     allow: { database: shpo, role: reader }
      |                        ^^^^
      = hint: did you mean "shop"?

2 errors
`)
})

test('warnings are shown and exit is 0', async () => {
  const { code, stdout } = await runCli(['check', '-c', await writeConfig(HEAD)])
  expect(code).toBe(0)
  expect(stdout).toMatch(/warning: there are no rules, so every job is refused[\s\S]*1 warning\n.*no errors/)
})

test('variables come from the environment, and --no-files leaves certificates alone', async () => {
  const text =
    HEAD.replace('plaintext: allow', 'tls: { cert: gone.pem, key: gone.key }').replace(
      'password: secret',
      'password: "${PGPW}"',
    ) + RULES
  const file = await writeConfig(text)
  expect((await runCli(['check', '-c', file])).stdout).toMatch(
    /gone\.pem cannot be read[\s\S]*gone\.key cannot be read[\s\S]*variable PGPW is not set[\s\S]*3 errors\n$/,
  )
  expect(await runCli(['check', '--no-files', '-c', file], { PGPW: 'x' })).toMatchObject({ code: 0 })
})

test('--live says which database it could not reach, exit 1', async () => {
  // Port 1 of loopback: nobody listens there.
  const text = `${HEAD.replaceAll('host: pg1.internal', 'host: 127.0.0.1\n    port: 1\n    tls: { mode: disable }')}${RULES}`
  const { code, stdout, stderr } = await runCli(['check', '--live', '-c', await writeConfig(text)])
  expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
  expect(stdout).toMatch(/database "shop": 1 finding\n {2}error: [\s\S]*database "stock": /)
})
