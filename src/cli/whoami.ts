/** `pgusher whoami`: who this job is for pgusher, and whether it would be let in, before anything connects. */
import { resolve } from 'node:path'
import { Command, Option } from 'commander'
import { findAudience } from '../client/audience.ts'
import { errorText, withoutDenialId } from '../client/refusal.ts'
import { hostAndPort, type ServerAddress } from '../client/server-address.ts'
import { ApiUnavailable, createServerApi, type WhoAmI } from '../client/server-api.ts'
import { findTokenSource, type TokenSource } from '../client/token-source.ts'
import { isTicket, ownClaims } from '../client/token-text.ts'
import { AccessError } from '../errors.ts'
import { serverAddress, withTokenOptions } from './connection-options.ts'
import { EXIT } from './exit-codes.ts'
import { decisionText, identityText, ownClaimsText, refusedText } from './whoami-text.ts'

interface Options {
  server?: ServerAddress
  local?: true
  ca?: string
  database?: string
  user?: string
  audience?: string
  tokenFile?: string
  tokenCommand?: string
  tokenEnv?: string
  format: 'text' | 'json'
}

/** So that a token which is only looked at is good for nothing. */
const LOCAL_AUDIENCE = 'pgusher-whoami-local'

export function whoamiCommand(): Command {
  const command = new Command('whoami')
    .description('say who this CI job is for pgusher, and whether a database would let it in')
    .addOption(
      new Option('-s, --server <host[:port]>', 'pgusher; port 6432 without one')
        .argParser(serverAddress)
        .conflicts('local'),
    )
    .addOption(
      new Option('--local', "print the token's own claims, which nobody has verified, and ask no pgusher").conflicts([
        'database',
        'user',
        'ca',
      ]),
    )
    .option('-d, --database <name>', 'say whether this entry of databases would let the job in')
    .option('-u, --user <name>', 'as this role; the only one that the job may use without it')
  return withTokenOptions(command)
    .addOption(new Option('--format <format>').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      `
A --token-command that names PGUSHER_AUDIENCE finds in that variable the audience to ask for.

Exit codes:
  0  the job is known, and let in where a database was named
  1  it is refused, or has no token

Examples:
  $ pgusher whoami --server pgusher.acme.example
  $ pgusher whoami -s pgusher.acme.example -d shop-prod -u shop_migrator --format json
  $ pgusher whoami --local                             what this CI says of the job, without a pgusher`,
    )
    .action(async (options: Options, command: Command) => {
      if (options.server === undefined && options.local === undefined) {
        command.error('error: give --server, or --local to look at the token only')
      }
      if (options.user !== undefined && options.database === undefined) {
        command.error('error: --user is of a database: give --database as well')
      }
      process.exitCode = await whoami(options)
    })
}

async function whoami(options: Options): Promise<number> {
  let source: TokenSource | undefined
  try {
    source = await findTokenSource({ ...options, env: process.env })
    return options.server === undefined ? await local(source, options) : await ask(source, options.server, options)
  } catch (thrown) {
    const error = asError(thrown, options.server)
    if (options.format === 'json') printJson({ ...about(source), error: errorJson(error) })
    else process.stderr.write(errorText(error))
    return EXIT.failed
  }
}

/** @throws what is no failure of the job, the CI system or the server */
function asError(thrown: unknown, server: ServerAddress | undefined): AccessError {
  if (thrown instanceof AccessError) return thrown
  if (!(thrown instanceof ApiUnavailable) || server === undefined) throw thrown
  const message = `${hostAndPort(server)} cannot be asked who this job is (${thrown.message})`
  return new AccessError('upstream_unreachable', message, {
    hint: 'It is an older pgusher, or something else stands in front of it. What the token says is shown by --local.',
    cause: thrown,
  })
}

async function local(source: TokenSource, { audience = LOCAL_AUDIENCE, format }: Options): Promise<number> {
  const token = await source.fetch(audience)
  if (isTicket(token)) {
    throw new AccessError('ticket_invalid', 'this is a ticket, which says nothing by itself: ask pgusher, by --server')
  }
  const claims = ownClaims(token)
  if (format === 'json') printJson({ ...about(source), verified: false, claims })
  else process.stdout.write(ownClaimsText(source.name, claims))
  return EXIT.ok
}

async function ask(source: TokenSource, server: ServerAddress, options: Options): Promise<number> {
  const { database, user = 'ci', audience, format, ca } = options
  const api = createServerApi({ server, caFile: ca === undefined ? undefined : resolve(ca) })
  const token = await source.fetch(await findAudience(source, api, audience))
  let found: WhoAmI
  try {
    found = await api.whoami(token, database === undefined ? {} : { database, user })
  } catch (thrown) {
    if (!(thrown instanceof AccessError) || thrown.code === 'upstream_unreachable' || format === 'json') throw thrown
    process.stdout.write(refusedText(thrown))
    if (!isTicket(token)) process.stdout.write(`\n${ownClaimsText(source.name, ownClaims(token))}`)
    return EXIT.failed
  }
  if (format === 'json') printJson({ ...about(source), server: hostAndPort(server), ...found })
  else {
    process.stdout.write(identityText(source.name, server, found.identity))
    if (found.decision !== undefined) process.stdout.write(decisionText(found, { database: database ?? '', user }))
  }
  return found.decision?.allowed === false ? EXIT.failed : EXIT.ok
}

function about(source: TokenSource | undefined): object {
  if (source === undefined) return {}
  const { name, preset, refetchable } = source
  return { source: { name, preset, refetchable } }
}

/** As pgusher's own answers have it, the id apart from the message. */
function errorJson({ code, sqlstate, message, detail, hint }: AccessError): object {
  const [, id] = / \[(D-\w+)\]$/.exec(message) ?? []
  return { code, sqlstate, message: id === undefined ? message : withoutDenialId(message), detail, hint, id }
}

function printJson(value: object): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}
