import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { runCli } from './run-cli.ts'

test('help lists every command, the exit codes and examples', async () => {
  const { code, stdout } = await runCli(['--help'])
  expect(code).toBe(0)
  for (const command of ['serve', 'check', 'explain', 'why', 'whoami', 'demo', 'schema', 'version'])
    expect(stdout).toMatch(new RegExp(`^  ${command}\\b`, 'm'))
  expect(stdout).toMatch(/Exit codes:[\s\S]*Examples:/)
})

test.each(['serve', 'check', 'explain', 'whoami', 'schema', 'version'])(
  'help of %s has an example',
  async (command) => {
    const { code, stdout } = await runCli([command, '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(new RegExp(`Examples?:\\n  \\$ .*pgusher ${command}|Examples?:[\\s\\S]*pgusher ${command}`))
  },
)

test.each([
  ['no command', []],
  ['an unknown command', ['serv']],
  ['an unknown option', ['check', '--confg', 'x']],
  ['a missing option', ['check']],
  ['no job to explain', ['explain', '-c', 'x', '--database', 'd', '--user', 'u']],
  [
    'a token and claims',
    ['explain', '-c', 'x', '--database', 'd', '--user', 'u', '--token-file', 'a', '--claims', 'b'],
  ],
  ['an unknown format', ['explain', '-c', 'x', '--database', 'd', '--user', 'u', '--claims', 'b', '--format', 'xml']],
])('%s is wrong usage: exit 2, told on stderr', async (_name, args) => {
  const { code, stdout, stderr } = await runCli(args)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).not.toBe('')
})

test('an unknown command is answered with the one that was probably meant', async () => {
  expect((await runCli(['serv'])).stderr).toMatch(/unknown command 'serv'[\s\S]*Did you mean serve\?/)
})

test('version prints the version of package.json', async () => {
  const { version }: { version: string } = JSON.parse(
    await readFile(new URL('../../package.json', import.meta.url), 'utf8'),
  )
  expect((await runCli(['version'])).stdout).toMatch(
    new RegExp(`^pgusher ${version.replaceAll('.', '\\.')} \\(Node \\d+\\.`),
  )
  expect((await runCli(['--version'])).stdout).toBe(`${version}\n`)
})

test('schema prints what lies in config/', async () => {
  const { stdout } = await runCli(['schema'])
  expect(stdout).toBe(await readFile(new URL('../../config/pgusher.schema.json', import.meta.url), 'utf8'))
})

test.each([
  ['version', 2],
  ['serve', 2],
  ['exec', 125],
])('with a Node that is too old %s says so, and exits with %i', async (command, exit) => {
  const { engines } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))
  const needed = Number(/^>=(\d+)$/.exec(engines.node)?.[1])
  const versionOf = (major: number) =>
    `--import=data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'${major}.9.1'}})`
  expect(await runCli([command], { NODE_OPTIONS: versionOf(needed - 1) })).toEqual({
    code: exit,
    stdout: '',
    stderr: `pgusher: this is Node ${needed - 1}.9.1, and pgusher needs ${needed} or later: put a newer one first on the PATH\n`,
  })
  expect((await runCli(['version'], { NODE_OPTIONS: versionOf(needed) })).code).toBe(0)
})
