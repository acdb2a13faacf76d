/** What clients show to somebody whose connection is refused. Each foreign runtime is started once for all attempts. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { available, output, start } from './commands.ts'
import type { Stage } from './pgusher.ts'

export interface Attempt {
  user: string
  password: string
  database: string
  sslmode: 'verify-full' | 'prefer' | 'disable'
}

export interface MistakenClient {
  name: string
  /** Debian's package, where it is not installed. */
  missing: string | undefined
  /** What it shows for each attempt; `connected` where it got in. */
  show(stage: Stage, attempts: readonly Attempt[]): Promise<string[]>
}

const HOST = '127.0.0.1'
const PYTHON = '/usr/bin/python3'
const JDBC = '/usr/share/java/postgresql.jar'
const script = (name: string) => fileURLToPath(new URL(`./clients/${name}`, import.meta.url))
const environment = { PATH: process.env['PATH'] ?? '', LANG: 'C.UTF-8' }

const succeeds = (command: readonly string[]): Promise<boolean> =>
  start(command, environment).finished.then(
    ({ code }) => code === 0,
    () => false,
  )

export const nodePostgres: MistakenClient = {
  name: 'node-postgres',
  missing: undefined,
  show: ({ port, ca }, attempts) =>
    Promise.all(
      attempts.map(async ({ sslmode, ...attempt }) => {
        const client = new pg.Client({ host: HOST, port, ...attempt, ssl: sslmode === 'verify-full' ? { ca } : false })
        client.on('error', () => {})
        try {
          await client.connect()
          return 'connected'
        } catch (error) {
          return error instanceof Error ? error.message : String(error)
        } finally {
          await client.end()
        }
      }),
    ),
}

async function psql(): Promise<MistakenClient> {
  return {
    name: 'psql',
    missing: (await available('psql')) ? undefined : 'postgresql-client',
    async show({ port, caFile, directory }, attempts) {
      const showOne = async ({ user, password, database, sslmode }: Attempt): Promise<string> => {
        const tls = { PGSSLMODE: sslmode, ...(sslmode === 'verify-full' ? { PGSSLROOTCERT: caFile } : {}) }
        const env = { ...environment, HOME: directory, PGHOST: HOST, PGPORT: String(port), ...tls }
        const who = { PGUSER: user, PGPASSWORD: password, PGDATABASE: database }
        const { code, stderr } = await start(['psql', '-X', '-w', '-c', 'select 1'], { ...env, ...who }).finished
        return code === 0 ? 'connected' : stderr
      }
      const shown: string[] = []
      for (let at = 0; at < attempts.length; at += 6) {
        shown.push(...(await Promise.all(attempts.slice(at, at + 6).map(showOne))))
      }
      return shown
    },
  }
}

async function python(name: 'asyncpg' | 'psycopg', missing: string): Promise<MistakenClient> {
  return {
    name,
    missing: (await succeeds([PYTHON, '-c', `import ${name}`])) ? undefined : missing,
    async show({ port, caFile, directory }, attempts) {
      const work = JSON.stringify({ host: HOST, port, ca: caFile, attempts })
      const env = { ...environment, HOME: directory }
      return JSON.parse(await output([PYTHON, script('mistakes.py'), name], env, work)) as string[]
    },
  }
}

async function pgjdbc(): Promise<MistakenClient> {
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  return {
    name: 'pgjdbc',
    missing:
      existsSync(JDBC) && (await succeeds(['java', '-version']))
        ? undefined
        : 'libpostgresql-jdbc-java, default-jdk-headless',
    async show({ port, caFile }, attempts) {
      const lines = attempts.map(({ user, password, database, sslmode }) =>
        [user, password, database, sslmode].map(base64).join(' '),
      )
      const command = [
        'java',
        '-XX:TieredStopAtLevel=1',
        '-cp',
        JDBC,
        script('Mistakes.java'),
        `${HOST}:${port}`,
        caFile,
      ]
      const said = await output(command, environment, `${lines.join('\n')}\n`)
      return said
        .trim()
        .split('\n')
        .map((line) => Buffer.from(line, 'base64').toString())
    },
  }
}

/** All five; those that are not installed say which package is missing. */
export function mistakenClients(): Promise<MistakenClient[]> {
  return Promise.all([
    psql(),
    nodePostgres,
    python('asyncpg', 'python3-asyncpg'),
    python('psycopg', 'python3-psycopg'),
    pgjdbc(),
  ])
}
