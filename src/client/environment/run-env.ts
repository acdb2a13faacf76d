/** `pgusher env`: a connection for the steps that follow, as variables. */
import { appendFile } from 'node:fs/promises'
import { printable } from '../../config/quote.ts'
import type { PresetName } from '../../config/schema.ts'
import { AccessError, asAccessError } from '../../errors.ts'
import { FrontendMessage } from '../../wire/constants.ts'
import { frame } from '../../wire/writer.ts'
import { findAudience } from '../audience.ts'
import { expiryOf, type OwnIdentity, ownIdentity } from '../claims.ts'
import { type FirstTicket, firstTicket } from '../first-ticket.ts'
import { clockTime, identityLine } from '../identity-line.ts'
import { openServerSession } from '../local/server-session.ts'
import {
  errorText,
  type Refusal,
  refusalFromError,
  refusalFromFields,
  refusalMarkdown,
  refusalText,
} from '../refusal.ts'
import { type ServerAddress, serverPeer } from '../server-address.ts'
import { createServerApi, type ServerApi, type Ticket } from '../server-api.ts'
import { type Environment, findTokenSource, type TokenSourceOptions } from '../token-source.ts'
import { dotenvText, githubEnvText, githubMasks, jsonText, shellText } from './formats.ts'
import { systemCaFile } from './system-ca.ts'
import { CONFLICTING, type Connection, connectionVariables, databaseUrl, jdbcUrl } from './variables.ts'

export const ENV_FORMATS = ['shell', 'github', 'dotenv', 'json', 'url', 'jdbc'] as const
export type EnvFormat = (typeof ENV_FORMATS)[number]

export interface EnvOptions {
  server: ServerAddress
  /** Absolute path of a PEM file; the system's CAs without it. */
  caFile: string | undefined
  database: string
  user: string
  audience: string | undefined
  source: TokenSourceOptions
  format: EnvFormat
  /** For GITHUB_ENV, GITHUB_STEP_SUMMARY, and what in it would be in the way of these variables. */
  env: Environment
  /** Stdout: what other programs read. */
  print(text: string): void
  /** Stderr: whole lines for people. */
  say(text: string): void
}

/** What is refused by the server's own word. */
class Refused extends Error {
  readonly refusal: Refusal

  constructor(refusal: Refusal) {
    super(refusal.message)
    this.refusal = refusal
  }
}

/** @returns 0, or 1 where there is no connection to be had. Never rejects. */
export async function runEnv(options: EnvOptions): Promise<number> {
  const job: { identity: OwnIdentity | undefined } = { identity: undefined }
  try {
    if (options.format === 'github' && !options.env['GITHUB_ENV']) throw noGithubEnv()
    await writeVariables(options, await connect(options, job))
    return 0
  } catch (thrown) {
    await tell(options, thrown, job.identity)
    return 1
  }
}

function noGithubEnv(): AccessError {
  return new AccessError('protocol_violation', '--format github is for a step of GitHub Actions: GITHUB_ENV is not set')
}

async function connect(options: EnvOptions, job: { identity: OwnIdentity | undefined }): Promise<Connection> {
  const { server, caFile, database, user, format, say } = options
  const source = await findTokenSource(options.source)
  const api = createServerApi({ server, caFile })
  const token = await source.fetch(await findAudience(source, api, options.audience))
  if (format === 'github') options.print(githubMasks([token]))
  job.identity = ownIdentity(token, source.preset)
  const { ticket, why = '' } = await exchange(options, api, source.preset, token)
  if (ticket !== undefined && format === 'github') options.print(githubMasks([ticket.text]))
  if (ticket === undefined) await tryToken(options, token)
  const line = identityLine({ provider: source.name, identity: job.identity, database, user, server })
  say(`pgusher: ${line}; ${proofText(ticket, expiryOf(token), why)}\n`)
  const tls = { caFile: caFile ?? (await systemCaFile()) }
  return { ...server, database, user, password: ticket?.text ?? token, tls }
}

async function exchange(
  { database, user }: EnvOptions,
  api: ServerApi,
  preset: PresetName,
  token: string,
): Promise<FirstTicket> {
  try {
    return await firstTicket(api, preset, token, { database, user })
  } catch (thrown) {
    throw isRefusal(thrown) ? new Refused(refusalFromError(thrown)) : thrown
  }
}

function isRefusal(thrown: unknown): thrown is AccessError {
  return thrown instanceof AccessError && thrown.code !== 'upstream_unreachable'
}

/** What a later step would learn only when it connects. */
async function tryToken({ server, caFile, database, user }: EnvOptions, token: string): Promise<void> {
  const parameters = new Map([
    ['user', user],
    ['database', database],
    ['application_name', 'pgusher env'],
  ])
  const { signal } = new AbortController()
  const session = await openServerSession(serverPeer(server, caFile), { parameters, minor: 0 }, token, signal)
  if (session.kind === 'refused') throw new Refused(refusalFromFields(session.fields))
  session.socket.resume().end(frame(FrontendMessage.Terminate))
}

function proofText(ticket: Ticket | undefined, tokenEnd: number | undefined, why: string): string {
  if (ticket !== undefined) return `a ticket until ${clockTime(ticket.expiresAt)}`
  const life = tokenEnd === undefined ? '' : `, good for connections until ${clockTime(tokenEnd)}`
  return `warning: the token itself${life}, as there is no ticket: ${printable(why)}`
}

async function writeVariables(options: EnvOptions, connection: Connection): Promise<void> {
  const { format, print, say } = options
  const variables = connectionVariables(connection)
  switch (format) {
    case 'shell':
      return print(
        shellText(
          variables,
          CONFLICTING.filter((name) => !variables.has(name) && options.env[name] !== undefined),
        ),
      )
    case 'github':
      return await appendFile(options.env['GITHUB_ENV'] ?? '', githubEnvText(variables))
    case 'json':
      return print(jsonText(variables))
    case 'url':
      return print(`${databaseUrl(connection)}\n`)
    case 'jdbc':
      return print(`${jdbcUrl(connection)}\n`)
    case 'dotenv': {
      const { text, leftOut } = dotenvText(variables)
      if (leftOut.length > 0) say(`pgusher: left out, as GitLab takes 5 KiB of variables: ${leftOut.join(', ')}\n`)
      return print(text)
    }
  }
}

async function tell(options: EnvOptions, thrown: unknown, identity: OwnIdentity | undefined): Promise<void> {
  const { database, user, format, env, say } = options
  const context = { database, user, identity }
  const refusal = thrown instanceof Refused ? thrown.refusal : undefined
  say(refusal === undefined ? errorText(thrown) : refusalText(refusal, context))
  const summary = env['GITHUB_STEP_SUMMARY']
  if (format !== 'github' || !summary) return
  const words = refusal ?? refusalFromError(asAccessError(thrown))
  // The refusal is what counts, and it is said already.
  await appendFile(summary, refusalMarkdown(words, context)).catch((error: unknown) => say(errorText(error)))
}
