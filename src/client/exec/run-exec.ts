/** `pgusher exec`: a command with a database of its own on a local port, for as long as it runs. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { printable } from '../../config/quote.ts'
import { findAudience } from '../audience.ts'
import { ownIdentity } from '../claims.ts'
import { CONFLICTING, connectionVariables, type Variables } from '../environment/variables.ts'
import { clockTime, identityLine } from '../identity-line.ts'
import { type LocalListener, startLocalListener } from '../local/listener.ts'
import { errorText, reasonOf } from '../refusal.ts'
import { type ServerAddress, serverPeer } from '../server-address.ts'
import { createServerApi } from '../server-api.ts'
import { findTokenSource, type TokenSourceOptions } from '../token-source.ts'
import { captureSignals, exitCodeOf, runCommand } from './child.ts'
import { createConnectionReport } from './connection-report.ts'
import { createFreshTokens } from './fresh-tokens.ts'
import { choosePasswords, type ServerPasswords } from './server-passwords.ts'

/** Of `pgusher exec` itself, as env(1) and timeout(1) have it: 1 is too often that of a command. */
export const OWN_FAILURE = 125

export interface ExecOptions {
  server: ServerAddress
  /** PEM file; the system's CAs without it. */
  caFile: string | undefined
  database: string
  user: string
  audience: string | undefined
  source: TokenSourceOptions
  /** A Unix socket in place of a loopback port. */
  socket: boolean
  command: readonly string[]
  env: NodeJS.ProcessEnv
  /** As of `runCommand`. */
  terminal: boolean
  /** Whole lines for stderr. */
  say(text: string): void
  /** Without the line about the identity; refusals and failures are said all the same. */
  quiet: boolean
}

/** What ended the preparation before there was a command, or the cleaning up after it. */
class Interrupted extends Error {
  readonly signal: NodeJS.Signals

  constructor(signal: NodeJS.Signals) {
    super('interrupted')
    this.signal = signal
  }
}

/** @returns the exit code of the command; 125 where there was none for a reason of our own. Never rejects. */
export async function runExec(options: ExecOptions): Promise<number> {
  const life = new AbortController()
  const cleaning = new AbortController()
  using signals = captureSignals()
  // Whoever asks twice does not want to wait for tickets to be given back either.
  const interrupt = (signal: NodeJS.Signals): void =>
    (life.signal.aborted ? cleaning : life).abort(new Interrupted(signal))
  signals.to(interrupt)
  try {
    await using scope = new AsyncDisposableStack()
    const variables = await prepare(options, { life: life.signal, cleaning: cleaning.signal }, scope)
    const { command, terminal } = options
    const end = await runCommand({ command, env: childEnvironment(options.env, variables), terminal, signals })
    signals.to(interrupt)
    life.abort()
    if (!end.started) options.say(`pgusher: ${printable(end.reason)}\n`)
    return end.exitCode
  } catch (thrown) {
    if (life.signal.reason instanceof Interrupted) return exitCodeOf(life.signal.reason.signal)
    options.say(errorText(thrown))
    return OWN_FAILURE
  }
}

interface Until {
  /** Of the command, and of what is done for it. */
  life: AbortSignal
  /** Of what is given back after it. */
  cleaning: AbortSignal
}

/** All that the command finds in its environment. What stands behind it ends with `scope`. */
async function prepare(options: ExecOptions, until: Until, scope: AsyncDisposableStack): Promise<Variables> {
  const { life: signal, cleaning } = until
  const { server, caFile, database, user, say } = options
  const source = await findTokenSource(options.source)
  const api = createServerApi({ server, caFile, signal })
  const audience = await findAudience(source, api, options.audience)
  const tokens = createFreshTokens({ source, audience, signal, onStale: (error) => report.stale(error) })
  const token = await tokens.current()
  const identity = ownIdentity(token.text, source.preset)
  const report = createConnectionReport(identity, say, signal)
  const { giveBack } = createServerApi({ server, caFile, signal: cleaning })
  const passwords = await choosePasswords({ source, tokens, api, giveBack, wanted: { database, user } })
  scope.defer(async () => {
    await passwords
      .close()
      .catch((thrown: unknown) => say(`pgusher: a ticket was not given back: ${reasonOf(thrown)}\n`))
  })
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-'))
  scope.defer(() => rm(directory, { recursive: true, force: true }))
  const listener = await startLocalListener({
    server: serverPeer(server, caFile),
    socketDirectory: options.socket ? directory : undefined,
    serverPassword: (request) => passwords.for(request),
    onRefused: report.refused,
    onFailed: report.failed,
  })
  scope.defer(() => listener.close())
  const passwordFile = join(directory, 'pgpass')
  await writeFile(passwordFile, passwordFileText(listener), { mode: 0o600 })
  signal.throwIfAborted()
  if (!options.quiet) {
    const line = identityLine({ provider: source.name, identity, database, user, server })
    say(`pgusher: ${line}; ${proofText(passwords, token.expiresAt)}\n`)
  }
  const { host, port, password } = listener
  const variables = connectionVariables({ host, port, database, user, password, tls: undefined })
  return new Map([...variables, ['PGPASSFILE', passwordFile]])
}

/** Bound to this listener: a password for any host would be shown to others as well. */
function passwordFileText({ host, port, password }: LocalListener): string {
  const hosts = host.startsWith('/') ? [host] : [host, 'localhost']
  return hosts.map((one) => `${one.replace(/[\\:]/g, '\\$&')}:${port}:*:*:${password}\n`).join('')
}

function proofText({ kind, expiresAt: ticketEnd, why }: ServerPasswords, tokenEnd: number | undefined): string {
  if (kind === 'fresh') return 'a fresh token for each connection'
  if (ticketEnd !== undefined) return `a ticket until ${clockTime(ticketEnd)}`
  const token = tokenEnd === undefined ? 'the token as it is' : `a token until ${clockTime(tokenEnd)}`
  return why === undefined ? token : `${token}, no ticket: ${printable(why)}`
}

function childEnvironment(env: NodeJS.ProcessEnv, variables: Variables): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(([name]) => !CONFLICTING.some((one) => one === name))
  return Object.fromEntries([...kept, ...variables])
}
