/** What `pgusher exec` is to its command and to whoever started it: streams, environment, signals, exit codes. */
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { githubClaims } from '../../../src/cli/demo/ci-claims.ts'
import { type Finished, type Started, start } from '../../support/commands.ts'
import { eventually } from '../../support/shop.ts'
import { forged } from '../../support/tokens.ts'

const MAIN = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url))
const TOKEN = forged({ alg: 'ES256' }, githubClaims())

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-command-'))
  await writeFile(join(directory, 'token'), `${TOKEN}\n`)
  await writeFile(join(directory, 'no-program'), 'no program', { mode: 0o600 })
})
afterAll(() => rm(directory, { recursive: true, force: true }))

/** No server is asked for anything until the command connects. */
const commandLine = (command: readonly string[], options: readonly string[] = []): string[] => [
  ...[process.execPath, MAIN, 'exec', '--server', '127.0.0.1:1', '--database', 'shop-prod', '--user', 'ci'],
  ...['--token-command', `cat ${join(directory, 'token')}`, ...options, ...command],
]
/** A directory that this user may not search makes of "not found" a "permission denied", by execvp(3). */
const searchable = (path: string): string =>
  path
    .split(':')
    .filter((part) => {
      try {
        accessSync(part, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
    .join(':')
const exec = (command: readonly string[], env: Record<string, string> = {}, input = ''): Started =>
  start(commandLine(command), { PATH: searchable(process.env['PATH'] ?? ''), TMPDIR: directory, ...env }, input)
const ended = (command: readonly string[], env: Record<string, string> = {}, input = ''): Promise<Finished> =>
  exec(command, env, input).finished

test('the exit code is that of the command, and says why there was none', async () => {
  const codes = async (...command: string[]) => (await ended(command)).code
  const told = await Promise.all([
    codes('--', 'sh', '-c', 'exit 7'),
    codes('--', 'true'),
    // Options behind the command are its own, with `--` and without it.
    codes('sh', '-c', 'exit 9'),
    codes('--', 'sh', '-c', 'kill -TERM $$'),
    codes('--', 'sh', '-c', 'kill -KILL $$'),
    codes('--', 'there-is-no-such-program'),
    codes('--', join(directory, 'no-program')),
    codes('--token-env', 'NOT_SET', '--', 'true'),
    codes('--no-such-option', '--', 'true'),
    codes(),
  ])
  expect(told).toEqual([7, 0, 9, 143, 137, 127, 126, 2, 2, 2])
})

test('without a token it says what is missing and runs nothing: 125', async () => {
  const [program, main] = [process.execPath, MAIN]
  const options = ['--server', '127.0.0.1:1', '--database', 'd', '--user', 'u']
  const { code, stdout, stderr } = await start(
    [program, main, 'exec', ...options, '--token-env', 'NOT_SET', '--', 'echo', 'ran'],
    { PATH: process.env['PATH'] ?? '' },
  ).finished
  expect({ code, stdout }).toEqual({ code: 125, stdout: '' })
  expect(stderr).toMatch(/^pgusher: .*NOT_SET/)
})

test('standard streams are those of the command, and the environment is the job’s own with the connection in it', async () => {
  const env = {
    MINE: 'a b',
    PGSERVICE: 'elsewhere',
    PGHOSTADDR: '10.9.9.9',
    PGPASSFILE: '/elsewhere',
    DATABASE_URL: 'elsewhere',
  }
  const script = 'cat; echo to-stderr >&2; env; cat "$PGPASSFILE"; stat -c %a "$PGPASSFILE" "$(dirname "$PGPASSFILE")"'
  const { code, stdout, stderr } = await ended(['--', 'sh', '-c', script], env, 'from stdin\n')
  expect(code).toBe(0)
  expect(stderr).toBe(
    `pgusher: the command of --token-command, repository acme/shop, ref refs/heads/main, role ci, database shop-prod at 127.0.0.1:1; a fresh token for each connection\nto-stderr\n`,
  )
  expect(stdout).toMatch(/^from stdin\n/)
  expect(stdout).toMatch(/^MINE=a b$/m)
  const variable = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(stdout)?.[1]
  const [port, password] = [variable('PGPORT'), variable('PGPASSWORD')]
  expect(password).toMatch(/^[\w-]{43}$/)
  expect(
    Object.fromEntries(
      ['PGHOST', 'PGUSER', 'PGDATABASE', 'PGSSLMODE', 'PGSERVICE', 'PGHOSTADDR'].map((name) => [name, variable(name)]),
    ),
  ).toEqual({
    PGHOST: '127.0.0.1',
    PGUSER: 'ci',
    PGDATABASE: 'shop-prod',
    PGSSLMODE: 'disable',
    PGSERVICE: undefined,
    PGHOSTADDR: undefined,
  })
  expect(variable('DATABASE_URL')).toBe(`postgres://ci:${password}@127.0.0.1:${port}/shop-prod?sslmode=disable`)
  expect(variable('JDBC_DATABASE_URL')).toBe(
    `jdbc:postgresql://127.0.0.1:${port}/shop-prod?user=ci&password=${password}&sslmode=disable`,
  )
  expect([variable('FLYWAY_URL'), variable('FLYWAY_USER'), variable('FLYWAY_PASSWORD')]).toEqual([
    `jdbc:postgresql://127.0.0.1:${port}/shop-prod?sslmode=disable`,
    'ci',
    password,
  ])
  expect(stdout).toContain(`\n127.0.0.1:${port}:*:*:${password}\nlocalhost:${port}:*:*:${password}\n600\n700\n`)
  expect(stdout + stderr).not.toContain(TOKEN.slice(0, 40))
  expect(existsSync(variable('PGPASSFILE') ?? directory)).toBe(false)
})

test('signals come to the command', async () => {
  const send = async (signal: NodeJS.Signals): Promise<Finished> => {
    const script = `trap 'echo ${signal}; kill $!; exit 42' ${signal.slice(3)}; sleep 60 & echo $PPID; wait`
    const { finished, stdout } = exec(['--', 'sh', '-c', script])
    // Not to `timeout`, which stands above it here and passes on but some of them.
    const own = await eventually(async () => /^(\d+)\n$/.exec(stdout())?.[1])
    process.kill(Number(own), signal)
    const { code, stdout: told } = await finished
    return { code, stdout: told.slice(own.length + 1), stderr: '' }
  }
  const signals = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const
  expect(await Promise.all(signals.map(send))).toEqual(
    signals.map((signal) => ({ code: 42, stdout: `${signal}\n`, stderr: '' })),
  )
})

test('a signal before there is a command ends it at once, and nothing is left', async () => {
  const marker = join(directory, 'asked')
  const options = ['--server', '127.0.0.1:1', '--database', 'd', '--user', 'u', '--audience', 'a']
  const { child, finished } = start(
    [process.execPath, MAIN, 'exec', ...options, '--token-command', `: > ${marker}; sleep 60`, '--', 'echo', 'ran'],
    { PATH: process.env['PATH'] ?? '', TMPDIR: directory },
  )
  await eventually(async () => existsSync(marker))
  child.kill('SIGTERM')
  expect(await finished).toMatchObject({ code: 143, stdout: '', stderr: '' })
  expect((await readdir(directory)).toSorted()).toEqual(['asked', 'no-program', 'token'])
})
