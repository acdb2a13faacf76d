/** How fast roles are made and dropped where commits are durable, and what of it is not the commits. */
import pg from 'pg'
import { type PostgresServer, startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import { createMinter } from '../../src/credentials/create.ts'
import type { Minter } from '../../src/credentials/minter.ts'
import { createLoginStatements } from '../../src/credentials/sql.ts'
import type { Principal } from '../../src/identity/principal.ts'
import type { Grant } from '../../src/policy/types.ts'
import { known } from '../measure.ts'
import type { Case, Figures, Part } from '../part.ts'
import { ADMIN, createRoles, DATABASE, debianBinaries, GROUP } from '../stage.ts'
import { median } from '../statistics.ts'

const AT_ONCE = 16
const WARM_UP = 50
/** Of nobody's password, as long as a real one. */
const VERIFIER = `SCRAM-SHA-256$1:${'A'.repeat(22)}==$${'A'.repeat(43)}=:${'A'.repeat(43)}=`
const COMMENT = JSON.stringify({ pgusher: 1, about: 'x'.repeat(400) })
const LIFE = 300_000

function principalOf(job: number): Principal {
  return {
    ...{ issuerName: 'github', provider: 'github-actions', iss: 'https://issuer.invalid', subject: `job ${job}` },
    ...{ claims: new Map(), auditClaims: {}, job: { runId: String(job) }, jobKey: JSON.stringify(['bench', job]) },
    ...{ tokenSha256: '0'.repeat(64), issuedAt: Date.now(), expiresAt: Date.now() + LIFE, tenancyMatches: true },
  }
}

const GRANT: Grant = {
  ...{
    rule: 'bench',
    ruleset: 'bench',
    policyVersion: '0'.repeat(64),
    database: DATABASE,
    role: GROUP,
    textMode: 'full',
  },
  ...{ maxSession: LIFE, maxConnections: 10, windowConnections: 1_000 },
  ...{ anyAddress: false, functionCall: false, replication: false },
}

function minterOf({ host, port }: PostgresServer, boot: string): Minter {
  const config: DatabaseConfig = {
    ...{ host, port, dbname: DATABASE, tls: { mode: 'disable' }, connect_timeout: 5_000, audit: {} },
    credentials: { kind: 'ephemeral-role', admin: { ...ADMIN, connections: 4 }, prefix: 'pgu_', linger: 0 },
  }
  return createMinter({ alias: DATABASE, config, dbname: DATABASE }, { name: 'bench', boot })
}

let jobs = 0

/** Mints and drops `count` roles, `atOnce` at a time, by the minters in turn. @returns milliseconds of each, and seconds of all */
async function mintAndDrop(
  minters: readonly Minter[],
  count: number,
  atOnce: number,
): Promise<{ each: number[]; all: number }> {
  const begun = performance.now()
  const each: number[] = []
  let left = count
  const worker = async (minter: Minter): Promise<void> => {
    while (left-- > 0) {
      const from = performance.now()
      const credential = await minter.mint(principalOf(++jobs), GRANT, Date.now() + LIFE)
      await minter.revoke(credential, 'job_ended')
      each.push(performance.now() - from)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, (_, index) => worker(minters[index % minters.length]!)))
  return { each, all: (performance.now() - begun) / 1_000 }
}

async function withMinters<T>(
  server: PostgresServer,
  count: number,
  work: (minters: Minter[]) => Promise<T>,
): Promise<T> {
  const minters = Array.from({ length: count }, (_, index) => minterOf(server, `bench-${++jobs}-${index}`))
  try {
    // Connections and plans are there before it counts.
    await mintAndDrop(minters, WARM_UP, count)
    return await work(minters)
  } finally {
    await Promise.all(minters.map((minter) => minter.close()))
  }
}

async function withSuperuser<T>({ superuserUrl }: PostgresServer, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(superuserUrl)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

const position = async (client: pg.Client): Promise<string> =>
  (await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows[0]!.lsn

/** Commit records in the log, which is what the disk is waited for; statistics of the server come seconds late. */
async function commitsIn(client: pg.Client, from: string, to: string): Promise<number> {
  const sql = `SELECT coalesce(sum(count), 0)::int AS commits FROM pg_get_wal_stats($1, $2, true)
               WHERE "resource_manager/record_type" LIKE 'Transaction/COMMIT%'`
  return (await client.query<{ commits: number }>(sql, [from, to])).rows[0]!.commits
}

/** Milliseconds of a transaction that writes as many bytes to the log, in one record, and does nothing else. */
async function oneCommit(client: pg.Client, bytes: number): Promise<number> {
  const from = performance.now()
  await client.query("SELECT pg_logical_emit_message(true, 'bench', repeat('x', $1))", [bytes])
  return performance.now() - from
}

/** Bytes in the server's log for a role that is made and dropped. */
async function sizeOfOne(client: pg.Client, minters: readonly Minter[]): Promise<number> {
  const sizes: number[] = []
  for (let index = 0; index < 5; index++) {
    const from = await position(client)
    await mintAndDrop(minters, 1, 1)
    const sql = 'SELECT pg_wal_lsn_diff($1, $2)::int AS bytes'
    sizes.push((await client.query<{ bytes: number }>(sql, [await position(client), from])).rows[0]!.bytes)
  }
  return median(sizes)
}

/**
 * How many of its commits a role made and dropped waits for: the last one, of DROP ROLE. The others are not flushed by themselves, and so are not
 * taken off either.
 */
const AWAITED = 1

/** In turns, since how long a disk takes changes from second to second. */
async function oneAtATime(server: PostgresServer, count: number): Promise<Figures> {
  return await withMinters(server, 1, (minters) =>
    withSuperuser(server, async (client) => {
      const bytes = await sizeOfOne(client, minters)
      const [mints, plain]: [number[], number[]] = [[], []]
      const from = await position(client)
      for (let index = 0; index < count; index++) {
        plain.push(await oneCommit(client, bytes))
        mints.push(...(await mintAndDrop(minters, 1, 1)).each)
      }
      // Those of the plain ones are known.
      const commits = (await commitsIn(client, from, await position(client))) / count - 1
      const [mint_ms, commit_ms] = [median(mints), median(plain)]
      return known({ mint_ms, commits, commit_ms, beyond_commits_ms: mint_ms - AWAITED * commit_ms })
    }),
  )
}

async function sixteenAtOnce(server: PostgresServer, count: number, minterCount: number): Promise<Figures> {
  return await withMinters(server, minterCount, async (minters) => {
    const { each, all } = await mintAndDrop(minters, count, AT_ONCE)
    return known({ mint_ms: median(each), mints_per_s: count / all })
  })
}

/** What is left when nobody looks at the roles, by as many connections as there are jobs: the same statements, as the same admin. */
async function sixteenBySql({ host, port }: PostgresServer, count: number): Promise<Figures> {
  const clients = Array.from({ length: AT_ONCE }, () => new pg.Client({ host, port, database: DATABASE, ...ADMIN }))
  try {
    await Promise.all(clients.map((client) => client.connect()))
    const { rows } = await clients[0]!.query<{ version: number }>(
      `SELECT current_setting('server_version_num')::int AS version`,
    )
    const each: number[] = []
    const begun = performance.now()
    let left = count
    const worker = async (client: pg.Client): Promise<void> => {
      while (left-- > 0) {
        const from = performance.now()
        const login = `pgu_sql_${++jobs}`
        const role = { login, group: GROUP, verifier: VERIFIER, validUntil: Date.now() + LIFE, connectionLimit: 22 }
        const made = createLoginStatements({ ...role, replication: false, comment: COMMENT }, rows[0]!.version)
        await client.query(['SET LOCAL synchronous_commit = off', ...made].join('; '))
        await client.query(`BEGIN; SET LOCAL synchronous_commit = off; ALTER ROLE ${login} NOLOGIN; COMMIT`)
        await client.query(`DROP ROLE ${login}`)
        each.push(performance.now() - from)
      }
    }
    await Promise.all(clients.map(worker))
    return known({ mint_ms: median(each), mints_per_s: (count / (performance.now() - begun)) * 1_000 })
  } finally {
    await Promise.all(clients.map((client) => client.end()))
  }
}

/** One for the whole part, with a disk that is waited for. */
let durable: PostgresServer | undefined

async function startDurable(): Promise<PostgresServer> {
  const server = await startPostgres({ ...debianBinaries(), durable: true })
  try {
    await withSuperuser(server, async (client) => {
      await createRoles(client)
      await client.query('CREATE EXTENSION pg_walinspect')
    })
    return server
  } catch (error) {
    await server.stop()
    throw error
  }
}

export const mint: Part = {
  name: 'mint',
  title: 'A role made and dropped again, with fsync',
  ...{ rounds: 3, budget: 40, warm: false },
  async prepare() {
    try {
      durable = await startDurable()
      return undefined
    } catch (error) {
      return `no server with pg_walinspect, which counts commits: ${error instanceof Error ? error.message : error}`
    }
  },
  async end() {
    await durable?.stop()
  },
  cases({ quick }) {
    const count = quick ? 60 : 200
    const caseOf = (name: string, run: (server: PostgresServer) => Promise<Figures>): Case => ({
      name,
      contestants: ['pgusher'],
      run: async () => run(durable!),
    })
    return [
      caseOf('one-at-a-time', (server) => oneAtATime(server, count)),
      caseOf('16-at-once', (server) => sixteenAtOnce(server, count * 2, 1)),
      // What the server could do if pgusher had no queue of its own.
      caseOf('16-at-once, SQL alone', (server) => sixteenBySql(server, count * 2)),
      caseOf('16-at-once, 16 minters', (server) => sixteenAtOnce(server, count * 2, AT_ONCE)),
    ]
  },
}
