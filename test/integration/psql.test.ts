/** psql as an author of jobs uses it, with sslmode=verify-full. */
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AT_ONCE } from '../support/at-once.ts'
import { available, jobEnvironment, output, start } from '../support/commands.ts'
import { type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually, withClient } from '../support/postgres.ts'
import { endOf, statementsOf } from '../support/statement-events.ts'

/** A run of its own for each session, by which it is found. */
const runOf = (event: StageEvent) =>
  (event['cicd'] as { pipeline?: { run?: { id?: string } } } | undefined)?.pipeline?.run?.id

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
})
afterAll(() => stage.close())

test('a token stands in DATABASE_URL as it was issued', async () => {
  const token = await stage.token()
  expect(encodeURIComponent(token)).toBe(token)
  const url = `postgres://shop_migrator:${token}@127.0.0.1:${stage.port}/shop-prod?sslmode=verify-full&sslrootcert=${stage.caFile}`
  await withClient(url, async (client) => {
    expect((await client.query('select current_user')).rows).toEqual([{ current_user: 'shop_migrator' }])
  })
  // The variable's last line feed, as `echo` and files of secrets leave it.
  const withNewline = { ...stage.client({ token: `${token}\n` }) }
  await withClient(withNewline, async (client) => expect((await client.query('select 1')).rowCount).toBe(1))
})

if (await available('psql')) {
  describe('psql', () => {
    let runs = 0
    async function job() {
      const run = `psql-${runs++}`
      const env = jobEnvironment(stage, { token: await stage.token('github', { run_id: run }) })
      const portOf = async () => {
        const started = await stage.waitForEvent((event) => event.event === 'session.started' && runOf(event) === run)
        return (started['client'] as { port: number }).port
      }
      const psql = (...options: string[]) => ['psql', '-X', '-w', '-v', 'ON_ERROR_STOP=1', ...options]
      return { env, psql, statements: async () => statementsOf(stage, await portOf()), port: portOf }
    }
    test('shows the minted login and the group role, and describes tables', async () => {
      const { env, psql, statements } = await job()
      const told = await output(psql('-At', '-c', 'select session_user, current_user', '-c', '\\d public.orders'), env)
      expect(told).toMatch(/^pgu_\w+\|shop_migrator\n/)
      expect(told).toContain('id|integer||not null|')
      // \d asks several questions of the catalog.
      expect((await statements()).length).toBeGreaterThan(4)
    })

    test('\\copy both ways', async () => {
      const { env, psql, statements } = await job()
      const [source, target] = [join(stage.directory, 'in.csv'), join(stage.directory, 'out.csv')]
      const lines = Array.from({ length: 20_000 }, (_, i) => `${i},"item ""${i}"", ü"\n`).join('')
      await writeFile(source, lines)
      const commands = [
        'create temp table lines (id int, item text)',
        `\\copy lines from '${source}' csv`,
        `\\copy (select * from lines order by id) to '${target}' csv`,
      ]
      const told = await output(psql(...commands.flatMap((command) => ['-c', command])), env)
      expect(told).toBe('CREATE TABLE\nCOPY 20000\nCOPY 20000\n')
      const sent = (await readFile(target, 'utf8')).split('\n')
      expect(sent).toHaveLength(20_001)
      expect(sent[7]).toBe('7,"item ""7"", ü"')
      expect((await statements()).slice(1)).toMatchObject([
        { protocol: 'copy_in', affected: 20_000, requestBytes: expect.any(Number) },
        { protocol: 'copy_out', rows: 20_000 },
      ])
    })

    test('Ctrl-C of select pg_sleep(60) within a second', async () => {
      const { env, psql, statements } = await job()
      const script = join(stage.directory, 'sleep.sql')
      await writeFile(script, `select 'before';\nselect pg_sleep(60);\nselect 'after';\n`)
      const { child, finished } = start(psql('-At', '-f', script), env)
      await eventually(async () => {
        const sleeping = await stage.admin(
          `select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()`,
        )
        return sleeping.length > 0
      })
      const at = performance.now()
      child.kill('SIGINT')
      const { stdout, stderr } = await finished
      expect(performance.now() - at).toBeLessThan(AT_ONCE)
      expect(stdout).toBe('before\n')
      expect(stderr).toMatch(/canceling statement due to user request|^Cancel request sent/m)
      const told = await statements()
      expect(told[1]).toMatchObject({ sql: 'select pg_sleep(60);', outcome: 'failure', code: '57014' })
    })

    test('a result of 100 MB', async () => {
      const { env, psql, statements } = await job()
      const file = join(stage.directory, 'result')
      const sql = `select repeat('0123456789', 1000) from generate_series(1, 10000)`
      await output(psql('-At', '-o', file, '-c', sql), env)
      expect((await stat(file)).size).toBe(10_000 * 10_001)
      expect(await statements()).toMatchObject([{ rows: 10_000, outcome: 'success' }])
    })

    test('\\watch runs again and again until it is interrupted', async () => {
      const { env, psql, statements, port } = await job()
      const { child, finished } = start(psql('-At'), env, `select 'tick' \\watch 0.1\n`)
      const client = await port()
      await eventually(async () => {
        const ticks = await stage.events(
          (event) => event.event === 'statement' && (event['client'] as { port: number }).port === client,
        )
        return ticks.length >= 5
      })
      // psql leaves \watch and comes to the end of its input.
      child.kill('SIGINT')
      expect((await finished).stdout).toContain('tick\ntick')
      expect((await endOf(stage, client)).pgusher['end_reason']).toBe('client')
      const told = await statements()
      expect(told.length).toBeGreaterThanOrEqual(5)
      expect(new Set(told.map(({ sql }) => sql))).toEqual(new Set([`select 'tick' `]))
    })

    test('a script with a transaction, variables, notices and an error', async () => {
      const { env, psql, statements } = await job()
      const script = [
        'begin;',
        `create table public.by_psql (a int); insert into public.by_psql select generate_series(1, :n);`,
        `do $$ begin raise notice 'from the script'; end $$;`,
        'select count(*) from public.by_psql \\gset',
        '\\echo counted :count',
        'select 1/0;',
      ].join('\n')
      const { code, stdout, stderr } = await start(psql('-v', 'n=7'), env, script).finished
      expect(code).toBe(3)
      expect(stdout).toContain('counted 7')
      expect(stderr).toContain('NOTICE:  from the script')
      expect(stderr).toContain('ERROR:  division by zero')
      expect((await statements()).map(({ outcome, code: state, affected }) => [outcome, state, affected])).toEqual([
        ...Array(2).fill(['success', undefined, undefined]),
        ...[
          ['success', undefined, 7],
          ['success', undefined, undefined],
          ['success', undefined, undefined],
        ],
        ['failure', '22012', undefined],
      ])
      expect(await stage.admin(`select to_regclass('public.by_psql') as t`, 'shop')).toEqual([{ t: null }])
    })
  })
}
