/** How a job connects, as a URL and as libpq's environment variables. */
import { rename, rm, writeFile } from 'node:fs/promises'

export interface JobConnection {
  host: string
  port: number
  user: string
  database: string
  /** The token. */
  password: string
  /** File of the CA that signed pgusher's certificate. */
  caFile: string
}

/** `postgres://…?sslmode=verify-full&sslrootcert=…` */
export function databaseUrl({ host, port, user, database, password, caFile }: JobConnection): string {
  const part = encodeURIComponent
  const ca = part(caFile).replaceAll('%2F', '/')
  return `postgres://${part(user)}:${part(password)}@${host}:${port}/${part(database)}?sslmode=verify-full&sslrootcert=${ca}`
}

const shellQuoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** Lines for `. FILE` in a shell. */
function environment(job: JobConnection, auditLog: string): string {
  const variables = {
    DATABASE_URL: databaseUrl(job),
    PGHOST: job.host,
    PGPORT: String(job.port),
    PGUSER: job.user,
    PGDATABASE: job.database,
    PGPASSWORD: job.password,
    PGSSLMODE: 'verify-full',
    PGSSLROOTCERT: job.caFile,
    PGUSHER_AUDIT_LOG: auditLog,
  }
  return Object.entries(variables)
    .map(([name, value]) => `export ${name}=${shellQuoted(value)}\n`)
    .join('')
}

/** In one step, so that whoever waits for the file never reads half of it. It holds a token: only its owner reads it. */
export async function writeEnvironment(file: string, job: JobConnection, auditLog: string): Promise<void> {
  const unfinished = `${file}.${process.pid}`
  try {
    await writeFile(unfinished, environment(job, auditLog), { mode: 0o600, flag: 'wx' })
    await rename(unfinished, file)
  } catch (error) {
    await rm(unfinished, { force: true })
    throw error
  }
}
