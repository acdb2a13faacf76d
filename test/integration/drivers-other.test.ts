/** Drivers of Python and Java, where they are installed: each runs a job of many statements, and each statement is on record once. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { onEachPostgres } from '../support/each-postgres.ts'
import { eventually } from '../support/postgres.ts'
import { wasExecuted } from '../support/statement-events.ts'

const run = promisify(execFile)
const client = (name: string) => fileURLToPath(new URL(`../support/clients/${name}`, import.meta.url))
const PYTHON = '/usr/bin/python3'
const JDBC = '/usr/share/java/postgresql.jar'

interface Driver {
  name: string
  command: readonly string[]
  /** Connections that it makes. */
  sessions: number
}

async function installed(): Promise<Driver[]> {
  const found: Driver[] = []
  const pythons = { asyncpg: 1, psycopg: 1, psycopg2: 2 }
  for (const [name, sessions] of Object.entries(pythons)) {
    const known = await run(PYTHON, ['-c', `import ${name}`]).then(
      () => true,
      () => false,
    )
    if (known) found.push({ name, command: [PYTHON, client(`${name}_job.py`)], sessions })
  }
  const java = await run('java', ['-version']).then(
    () => true,
    () => false,
  )
  if (java && existsSync(JDBC))
    found.push({ name: 'pgjdbc', command: ['java', '-cp', JDBC, client('Job.java')], sessions: 1 })
  return found
}

const drivers = await installed()
if (drivers.length > 0) {
  onEachPostgres(
    (stage) => {
      test.concurrent.each(drivers)('$name', async ({ name, command, sessions }) => {
        const token = await stage().token('github', { run_id: name })
        const url = new URL(stage().url({ token }))
        const { stdout } = await run('timeout', ['60', ...command], {
          env: {
            PATH: process.env['PATH'],
            HOME: stage().directory,
            DATABASE_URL: url.href,
            JDBC_URL: `jdbc:postgresql://${url.host}${url.pathname}`,
            PGUSER: 'shop_migrator',
            PGPASSWORD: token,
            CA: stage().caFile,
          },
        })
        expect(stdout).toBe('done\n')
        const events = await eventually(async () => {
          const mine = await stage().events(
            ({ cicd }) => (cicd as { pipeline?: { run?: { id?: string } } })?.pipeline?.run?.id === name,
          )
          return mine.filter(({ event }) => event === 'session.ended').length === sessions && mine
        })
        const statements = events.filter((event) => event.event === 'statement' && wasExecuted(event))
        const outcomes = new Set(statements.map(({ pgusher }) => pgusher.outcome))
        expect([...outcomes].sort()).toEqual(['failure', 'success'])
        expect(statements).toHaveLength(await loggedBy(new Set(events.map(loginOf))))
      })

      const loginOf = (event: Record<string, unknown>) =>
        (event['pgusher'] as { db?: { login?: string } } | undefined)?.db?.login

      /** Statements that PostgreSQL's own log has of these logins. */
      async function loggedBy(logins: ReadonlySet<string | undefined>): Promise<number> {
        const log = await readFile(stage().server.logFile, 'utf8')
        return log.split('\n').filter((line) => {
          const [, login, what] = /^\S+ \S+ \S+ \[\d+\] (\S+)@\S+ LOG: {2}(statement|execute)\b/.exec(line) ?? []
          return what !== undefined && logins.has(login)
        }).length
      }
    },
    {},
    { settings: { log_statement: 'all' } },
  )
}
