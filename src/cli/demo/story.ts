/** The main job, told as it happens. Each step is a real client through TLS, and each step is checked: a story that is not true throws. */
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type AuditLine, auditWith, showAudit } from './audit-lines.ts'
import type { Claims, Issuer, IssuerShape } from './issuer.ts'
import type { Screen } from './screen.ts'
import { asSuperuser, mintedRoles, type Shop } from './shop.ts'
import type { Upstream } from './upstream-url.ts'

export interface StoryParts {
  screen: Screen
  upstream: Upstream
  shop: Shop
  issuer: Issuer
  auditFile: string
  /** `DATABASE_URL` of a job. */
  url(user: string, token: string): string
}

const SCHEDULED: Claims = { pipeline_source: 'schedule', job_source: 'schedule', pipeline_id: '1600000413' }
const OWNER = "SELECT tableowner FROM pg_tables WHERE tablename = 'invoices'"
const FEATURE_BRANCH: Claims = { ref: 'refs/heads/fix-1', run_id: '18700000413', check_run_id: '52900000413' }

/** @throws Error that says which step was not as told */
export async function tellStory(parts: StoryParts): Promise<void> {
  const first = await migrationFromMain(parts)
  const denialId = await sameJobFromBranch(parts)
  const second = await readOnlyJob(parts)
  await rolesDisappear(parts, [first, second])
  await auditTells(parts, denialId)
}

function require(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`the story is not as told: ${what}`)
}

/** A job of that CI system as a PostgreSQL client, for the time of `work`. */
async function asJob<T>(
  { issuer, url }: StoryParts,
  { shape, claims, user }: { shape: IssuerShape; claims: Claims; user: string },
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const token = await issuer.token(shape, claims)
  const client = await connected(url(user, token))
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}

/** Milliseconds. On a busy machine the first fetch of the issuer's keys may come too late; the next one is half a minute later. */
const KEYS_WAITED_FOR = 45_000

async function connected(connectionString: string): Promise<pg.Client> {
  for (const begun = performance.now(); ; await delay(1_000)) {
    const client = new pg.Client({ connectionString, connectionTimeoutMillis: 20_000 })
    client.on('error', () => {})
    try {
      await client.connect()
      return client
    } catch (error) {
      const unavailable = (error as { code?: string }).code === '57P03'
      if (!unavailable || performance.now() - begun > KEYS_WAITED_FOR) throw error
    }
  }
}

/** Returns the login role that was minted for the job. */
async function migrationFromMain(parts: StoryParts): Promise<string> {
  const { screen, shop } = parts
  screen.chapter(1, 'A migration from main is let in')
  screen.job(`GitHub Actions, acme/shop, refs/heads/main, environment production, as ${shop.migrator}`)
  return asJob(parts, { shape: 'github', claims: {}, user: shop.migrator }, async (client) => {
    const sql = 'CREATE TABLE public.invoices (id int PRIMARY KEY, total numeric(8, 2))'
    const { command } = await client.query(sql)
    screen.statement(sql, `${command} TABLE`)
    const who = await client.query<{ session_user: string; current_user: string }>('SELECT session_user, current_user')
    const { session_user: login = '', current_user: role = '' } = who.rows[0] ?? {}
    screen.statement('SELECT session_user, current_user', `${login} | ${role}`)
    require(login.startsWith(shop.prefix), `the job logged in as ${login}, which pgusher did not mint`)
    require(role === shop.migrator, `the job acts as ${role}`)
    const { rows } = await client.query<{ tableowner: string }>(OWNER)
    screen.statement(OWNER, rows[0]?.tableowner)
    require(rows[0]?.tableowner === shop.migrator, `the table belongs to ${rows[0]?.tableowner}`)
    screen.seen(`the table belongs to ${role}; ${login} was minted for this job alone`)
    return login
  })
}

/** Returns the denial's id. */
async function sameJobFromBranch(parts: StoryParts): Promise<string> {
  const { screen, shop } = parts
  screen.chapter(2, 'The same job from a feature branch is refused')
  screen.job('GitHub Actions, acme/shop, refs/heads/fix-1; its author sees in the job log:')
  const job = { shape: 'github', claims: FEATURE_BRANCH, user: shop.migrator } as const
  const error = await refusalOf(asJob(parts, job, async () => {}))
  require(error?.code === '42501', `the branch got ${error === undefined ? 'in' : error.message}`)
  screen.error('FATAL', error)
  for (const word of ['refs/heads/fix-1', 'refs/heads/main', 'migrate-production'])
    require(error.message.includes(word), `the message does not name ${word}`)
  const id = /\[(D-[A-Z0-9]+)\]/.exec(error.message)?.[1]
  require(id !== undefined, 'the message has no denial id')
  const run = FEATURE_BRANCH['run_id']
  const ofRun = (lines: readonly AuditLine[]) => lines.filter(({ cicd }) => cicd?.pipeline?.run?.id === run)
  const events = ofRun(await auditWith(parts.auditFile, (lines) => ofRun(lines).length > 0)).map(({ event }) => event)
  require(events.join() === 'session.denied', `the refused job left the events ${events.join(', ')}`)
  screen.seen('PostgreSQL never heard of it: nothing was minted, nothing was connected')
  return id
}

async function refusalOf(attempt: Promise<unknown>): Promise<pg.DatabaseError | undefined> {
  try {
    await attempt
    return undefined
  } catch (thrown) {
    if (thrown instanceof pg.DatabaseError) return thrown
    throw thrown
  }
}

/** Returns the login role that was minted for the job. */
async function readOnlyJob(parts: StoryParts): Promise<string> {
  const { screen, shop } = parts
  screen.chapter(3, 'A read-only job reads; its write is refused by PostgreSQL itself')
  screen.job(`GitLab, acme/shop, a schedule on main, as ${shop.reader}`)
  return asJob(parts, { shape: 'gitlab', claims: SCHEDULED, user: shop.reader }, async (client) => {
    const read = 'SELECT session_user, count(*), sum(price) FROM public.orders'
    const { rows } = await client.query<{ session_user: string; count: string; sum: string }>(read)
    const { session_user: login = '', count, sum } = rows[0] ?? {}
    screen.statement(read, `${login} | ${count} | ${sum}`)
    require(count === '3', `it read ${count} orders of 3`)
    const write = "INSERT INTO public.orders VALUES (4, 'mate', 0)"
    const error = await refusalOf(client.query(write))
    screen.statement(write)
    // Only PostgreSQL names the routine of its own that refused.
    const byPrivilege = error?.code === '42501' && error.routine === 'aclcheck_error'
    require(byPrivilege, `the write got ${error?.message ?? 'through'}`)
    screen.error('ERROR', error)
    screen.seen(`${shop.reader} has no right to write, whatever the SQL looks like`)
    return login
  })
}

async function rolesDisappear({ screen, upstream, shop }: StoryParts, minted: readonly string[]): Promise<void> {
  screen.chapter(4, 'The minted roles disappear')
  require(new Set(minted).size === 2, `two jobs shared the login ${minted[0]}`)
  screen.job(`while the jobs ran: ${minted.join(', ')}`)
  const sql = `SELECT count(*) FROM pg_roles WHERE rolname LIKE '${shop.prefix.replaceAll('_', '\\_')}%'`
  const left = await asSuperuser(upstream, undefined, async (client) => {
    const deadline = Date.now() + 10_000
    for (;;) {
      const roles = await mintedRoles(client, shop.prefix)
      if (roles.length === 0 || Date.now() > deadline) return roles
      await delay(50)
    }
  })
  screen.statement(sql, String(left.length))
  require(left.length === 0, `${left.join(', ')} stayed`)
  const owner = await asSuperuser(upstream, shop.database, (client) => client.query<{ tableowner: string }>(OWNER))
  require(owner.rows[0]?.tableowner === shop.migrator, 'the table went with the role')
  screen.seen('no password, no role, nothing to rotate; the table is still there')
}

async function auditTells({ screen, auditFile }: StoryParts, denialId: string): Promise<void> {
  screen.chapter(5, 'What the auditor reads: each line by itself says which run it was')
  const count = (lines: readonly AuditLine[], event: string) => lines.filter((line) => line.event === event).length
  const lines = await auditWith(
    auditFile,
    (found) => count(found, 'session.ended') === 2 && count(found, 'credential.revoked') === 2,
  )
  const told = lines.filter(({ event }) => event === 'statement' || /^(session|credential)\./.test(event))
  for (const line of told) showAudit(screen, line)
  require(told.every((line) => line.cicd?.pipeline?.run?.id !== undefined), 'an event does not name its run')
  const statements = told.filter(({ event }) => event === 'statement')
  require(statements.length === 5, `${statements.length} statements are on record, not 5`)
  const issued = count(told, 'credential.issued')
  require(issued === 2, `${issued} credentials were minted for two jobs`)
  const denied = told.filter(({ event }) => event === 'session.denied')
  require(denied.length === 1 && denied[0]?.pgusher.decision?.id === denialId, 'the refusal is not on record')
  const refused = statements.filter(({ db }) => db?.response?.status_code === '42501')
  require(refused.length === 1, 'the refused write is not on record')
}
