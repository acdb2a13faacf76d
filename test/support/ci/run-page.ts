/** Runs a job of a recipe page where its CI is simulated, against a stage. */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chmod, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { writeFiles } from '../../config/write-config.ts'
import type { Block, Page } from '../ci-pages.ts'
import type { Finished } from '../commands.ts'
import type { Stage } from '../pgusher.ts'
import type { SigningKey } from '../tokens.ts'
import type { CiTokenOptions } from './issuer.ts'
import { jobOf, type Step } from './page-job.ts'
import { type SimulatedCi, type SimulatedName, simulateCi, type TokenIssuer } from './simulate.ts'

const MAIN = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url))
const MOUNTED = '/var/run/pgusher/token'
/** Far longer than a step takes: it must not be waited for in vain, by a question for a password say. */
const STEP_MS = 60_000

export interface Surroundings {
  stage: Stage
  key: SigningKey
  /** In the repository. */
  migration: string
  /** The CI gives no token: its service says no, its variables are not set. */
  refuses?: boolean
}

export interface PageRun extends Finished {
  /** All that were issued. */
  tokens: readonly string[]
}

/** The page's own token, as if it were issued now. */
function issuerOf(page: Page, key: SigningKey, tokens: string[]): TokenIssuer<SimulatedName> {
  return {
    audience: () => String(page.claims['aud']),
    async token(_, { claims, audience }: CiTokenOptions) {
      const { iat, nbf, exp, jti, aud } = page.claims
      const later = Math.floor(Date.now() / 1000) - Number(iat)
      const asked = audience === undefined ? [] : [audience]
      // A list is what was asked for, and with Bitbucket its own before it.
      const audiences = Array.isArray(aud)
        ? [...aud.filter((one) => String(one).startsWith('ari:')), ...asked]
        : undefined
      const token = await key.sign({
        ...page.claims,
        ...claims,
        aud: audiences ?? audience ?? aud,
        iat: Number(iat) + later,
        exp: Number(exp) + later,
        nbf: nbf === undefined ? undefined : Number(nbf) + later,
        jti: jti === undefined ? undefined : randomUUID(),
      })
      tokens.push(token)
      return token
    },
  }
}

export async function runPage(page: Page, block: Block, surroundings: Surroundings): Promise<PageRun> {
  const { stage, key, migration, refuses = false } = surroundings
  const job = jobOf(page, block)
  const tokens: string[] = []
  const issuer = issuerOf(page, key, tokens)
  const options = {
    ...(job.claims === undefined ? {} : { claims: job.claims }),
    ...(job.audience === undefined ? {} : { audience: job.audience }),
  }
  const ci = await simulateCi(page.name, issuer, options)
  try {
    const env: Record<string, string> = { ...ci.env }
    for (const name of job.without ?? []) delete env[name]
    if (job.variable !== undefined) env[job.variable] = await issuer.token(page.name, options)
    if (refuses) await takeAway(ci, env)
    const here = (text: string): string => onThisMachine(text, stage, ci)
    const programs = await writeFiles({
      pgusher: `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`,
      checkout: '#!/bin/sh\ncp "$(dirname "$0")/migrate.sql" .\n',
      'migrate.sql': migration,
    })
    await Promise.all(['pgusher', 'checkout'].map((name) => chmod(join(programs, name), 0o755)))
    Object.assign(env, {
      PATH: [programs, env['PATH'], process.env['PATH']].join(':'),
      LANG: 'C.UTF-8',
      NODE_COMPILE_CACHE: join(stage.directory, 'compile-cache'),
    })
    const files = { ...(job.checkedOut ? { 'migrate.sql': migration } : {}), ...fetchToken(page, here) }
    return { ...(await runSteps(job.steps, here, env, files)), tokens }
  } finally {
    await ci.close()
  }
}

async function takeAway(ci: SimulatedCi, env: Record<string, string>): Promise<void> {
  ci.failNext(...Array<number>(100).fill(403))
  for (const [name, value] of Object.entries(env)) if (value.startsWith('eyJ')) delete env[name]
  const file = env['PGUSHER_ID_TOKEN_FILE']
  if (file !== undefined) await rm(file)
}

/** A page's script with what cannot be on the machine of a test. */
function onThisMachine(text: string, { port, caFile }: Stage, { url, env }: SimulatedCi): string {
  return text
    .replaceAll('@pgusher.acme.example:6432/', `@127.0.0.1:${port}/`)
    .replaceAll('sslrootcert=system', `sslrootcert=${caFile}`)
    .replaceAll('--server pgusher.acme.example ', `--server 127.0.0.1:${port} --ca '${caFile}' `)
    .replaceAll(/https:\/\/(acme\.okta|login\.microsoftonline)\.com\/|http:\/\/metadata\//g, `${url}/`)
    .replaceAll(MOUNTED, env['PGUSHER_ID_TOKEN_FILE'] ?? MOUNTED)
    .replaceAll('$(System.AccessToken)', env['SYSTEM_ACCESSTOKEN'] ?? '')
}

/** The file that a page has made from what stands inside of `$( )`. */
function fetchToken({ text, job }: Page, here: (text: string) => string): Record<string, string> {
  if (!text.includes('an executable file `fetch-token`')) return {}
  const [, inside = ''] = /^token=\$\(([\s\S]*?)\)$/m.exec(job[0]?.body ?? '') ?? []
  return { 'fetch-token': here(inside) }
}

async function runSteps(
  steps: readonly Step[],
  here: (text: string) => string,
  env: Readonly<Record<string, string>>,
  files: Readonly<Record<string, string>>,
): Promise<Finished> {
  const total: Finished = { code: null, stdout: '', stderr: '' }
  for (const { shell, script, env: own = {} } of steps) {
    const directory = await writeFiles({ ...files, step: here(script) })
    for (const name of ['step', 'fetch-token'])
      if (name === 'step' || name in files) await chmod(join(directory, name), 0o755)
    const ownHere = Object.fromEntries(Object.entries(own).map(([name, value]) => [name, here(value)]))
    const [program = './step', ...args] = [...shell, './step']
    const { code, stdout, stderr } = await run(program, args, { ...env, HOME: directory, ...ownHere }, directory)
    Object.assign(total, { code, stdout: total.stdout + stdout, stderr: total.stderr + stderr })
    if (code !== 0) break
  }
  return total
}

/** Without a terminal, as in a CI: psql would ask there for a password that is missing. */
function run(program: string, args: string[], env: Record<string, string>, cwd: string): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    const timer = setTimeout(() => child.pid !== undefined && process.kill(-child.pid, 'SIGKILL'), STEP_MS)
    const said = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        said[name] += text
      })
    }
    child.once('error', reject)
    child.once('close', (code) => {
      clearTimeout(timer)
      resolve({ code, ...said })
    })
  })
}
