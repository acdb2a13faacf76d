/**
 * The jobs of the recipe pages docs/ci/*.md as they stand there: their scripts run with real psql, by the shell of that CI where it is
 * simulated, with the page's own token, through a pgusher that has the issuers and rules of all pages. What a test machine cannot have is
 * replaced in support/ci/run-page.ts.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { jobOf } from '../support/ci/page-job.ts'
import { type PageRun, runPage, type Surroundings } from '../support/ci/run-page.ts'
import { type Block, configuration, type Page, readPages } from '../support/ci-pages.ts'
import { available } from '../support/commands.ts'
import { type ConfigInput, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { signingKey } from '../support/tokens.ts'

const pages = readPages()
const key = signingKey('docs', 'RS256')
const SAYS_WHO = `select format('in as %s by %s', current_user, left(session_user, 4));\n`

let stage: Stage
let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-ci-pages-'))
  const keys = join(directory, 'jwks.json')
  await writeFile(keys, JSON.stringify({ keys: [key.jwk] }))
  const configurations = pages.map((page) => ({ page, ...asOnThePage(page) }))
  const issuers = configurations.flatMap(({ page, issuers }) =>
    Object.values(issuers ?? {}).map((issuer) => [page.name, { ...issuer, jwks_file: keys }] as const),
  )
  const rules = configurations.flatMap(({ page, rules }) =>
    (rules ?? []).map((rule) => ({ ...rule, name: ruleOf(page), issuer: page.name })),
  )
  stage = await startStage({
    config: (config) => ({
      ...config,
      tickets: { key: randomBytes(32).toString('base64') },
      issuers: Object.fromEntries(issuers),
      rules,
    }),
  })
})
afterAll(async () => {
  await stage.close()
  await rm(directory, { recursive: true })
})

const asOnThePage = (page: Page) => configuration(page) as unknown as ConfigInput
const ruleOf = ({ name }: Page): string => `${name}-migrates`
const isOf = (page: Page) => (event: StageEvent) =>
  event.event === 'session.started' && (event['security_rule'] as { name?: string } | undefined)?.name === ruleOf(page)

const run = (page: Page, block: Block, others: Pick<Surroundings, 'migration' | 'refuses'>): Promise<PageRun> =>
  runPage(page, block, { stage, key, ...others })

/** What a reader of the log could copy; GitHub hides what it is shown with `add-mask`. */
function tokensInLog({ stdout, stderr, tokens }: PageRun): string[] {
  const log = `${stdout}${stderr}`.replace(/^::add-mask::.*$/gm, '')
  return tokens.filter((token) => log.includes(token))
}

const fetches = ({ job }: Page): boolean => job.some(({ body }) => /\bcurl\b|\bjq\b/.test(body))
const [psql, curl, jq] = await Promise.all(['psql', 'curl', 'jq'].map(available))
const [OWN, OTHER] = [0, 1]
const jobs = pages
  .filter((page) => psql && ((curl && jq) || !fetches(page)))
  .flatMap((page) => page.job.map((block, at) => [page.name, at, page, block] as const))
const named = (wanted: number) =>
  jobs.filter(([, at]) => at === wanted).map(([name, , ...rest]) => [name, ...rest] as const)

async function expectIn(page: Page, block: Block): Promise<void> {
  const before = (await stage.events(isOf(page))).length
  const done = await run(page, block, { migration: SAYS_WHO })
  expect(done).toMatchObject({ code: 0, stdout: expect.stringContaining(`in as ${page.user} by pgu_`) })
  expect(tokensInLog(done)).toEqual([])
  expect(done.tokens.length).toBeGreaterThan(0)
  await eventually(async () => (await stage.events(isOf(page))).length === before + 1)
}

test('each job has a script', () => {
  const without = pages.flatMap((page) =>
    page.job
      .filter((block) => jobOf(page, block).steps.every(({ script }) => script.trim() === ''))
      .map(() => page.name),
  )
  expect(without).toEqual([])
})

describe.each(named(OWN))('the job of %s', (_, page, block) => {
  test('is in as the role that it names, by the rule of its page', () => expectIn(page, block))

  test('fails where its migration does, and leaves out what comes after', async () => {
    const done = await run(page, block, { migration: `select 1/0;\n${SAYS_WHO}` })
    expect(done.stderr).toContain('division by zero')
    expect(done.stdout).not.toContain('in as')
    expect(done).toMatchObject({ code: 3 })
  })

  test('fails where the CI gives no token, and asks nobody for a password', async () => {
    const done = await run(page, block, { migration: SAYS_WHO, refuses: true })
    expect(done.code).toBeGreaterThan(0)
    expect(done.stderr).toMatch(/\S/)
    expect(done.stderr).not.toContain('Password')
    expect(done.stdout).not.toContain('in as')
  })
})

test.each(named(OTHER))('with pgusher exec the job of %s is in by the same rule', (_, page, block) =>
  expectIn(page, block),
)
