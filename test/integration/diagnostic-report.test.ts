/** Node's diagnostic report, as `--report-on-fatalerror` writes it: where an operator asks for one, it holds no secret. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { query, rawSession, terminate } from '../support/raw-client.ts'

const ADMIN = 'admin-secret-of-the-test'

test('invariant 38: the reports of a pgusher and of its workers hold no token and nothing of the environment', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-report-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  await using stage = await startStage({
    workers: 2,
    env: {
      // By a signal, since nobody wants to wait for a fatal error; the report is the same.
      NODE_OPTIONS: `--report-on-signal --report-signal=SIGPWR --report-directory=${directory}`,
      PGUSHER_ADMIN_PASSWORD: ADMIN,
    },
    config: (config) => {
      const shop = config.databases['shop-prod']!
      // biome-ignore lint/suspicious/noTemplateCurlyInString: pgusher replaces it
      const admin = { user: 'pgusher_admin', password: '${PGUSHER_ADMIN_PASSWORD}' }
      return {
        ...config,
        databases: { ...config.databases, 'shop-prod': { ...shop, credentials: { kind: 'ephemeral-role', admin } } },
      }
    },
  })
  const token = await stage.token()
  using client = await rawSession(stage, { token })
  expect(await client.ask(query('select 1'))).toContain('D 1')
  const { pid = 0 } = stage.pgusher.child!
  // Behind them, after 2 s, the one that waits to take the place of one: it may not have come as far as to know the signal.
  const workers = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8'))
    .trim()
    .split(' ')
    .map(Number)
    .slice(0, 2)
  expect(workers).toHaveLength(2)
  for (const one of [pid, ...workers]) process.kill(one, 'SIGPWR')
  const reports = await eventually(async () => {
    const names = (await readdir(directory)).filter((name) => name.endsWith('.json'))
    const texts = await Promise.all(names.map((name) => readFile(join(directory, name), 'utf8')))
    // A report ends with its closing brace.
    return texts.length === 3 && texts.every((text) => text.trimEnd().endsWith('\n}')) && texts
  })
  const [, claims = '', signature = ''] = token.split('.')
  for (const report of reports) {
    expect(JSON.parse(report)).toMatchObject({ header: { trigger: 'Signal' } })
    for (const secret of [ADMIN, claims.slice(0, 60), signature.slice(0, 40)]) expect(report).not.toContain(secret)
  }
  client.send(terminate)
  await client.rest()
})
