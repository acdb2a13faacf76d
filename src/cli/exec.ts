/** `pgusher exec`. */
import { resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { runExec } from '../client/exec/run-exec.ts'
import { parseServerAddress, type ServerAddress } from '../client/server-address.ts'

/** What `exec` and `env` have in common. */
export interface ConnectionOptions {
  server: ServerAddress
  ca?: string
  database: string
  user: string
  audience?: string
  tokenFile?: string
  tokenCommand?: string
  tokenEnv?: string
}

interface Options extends ConnectionOptions {
  socket?: true
  quiet?: true
}

export function withConnectionOptions(command: Command): Command {
  return command
    .requiredOption('-s, --server <host[:port]>', 'pgusher; port 6432 without one', serverAddress)
    .requiredOption('-d, --database <name>', 'the entry of databases that the job asks for')
    .requiredOption('-u, --user <name>', 'the role that the job asks for, or ci for the only one that it may use')
    .option('--ca <file>', "PEM file of the CA that signed pgusher's certificate; the system's CAs without it")
    .option('--audience <text>', 'the audience to ask the CI system for; without it pgusher is asked')
    .addOption(new Option('--token-file <file>', 'a file that holds the token').conflicts(['tokenCommand', 'tokenEnv']))
    .addOption(new Option('--token-command <line>', 'a shell command that prints a token').conflicts('tokenEnv'))
    .option('--token-env <name>', 'a variable that holds the token')
}

export function serverAddress(text: string): ServerAddress {
  const address = parseServerAddress(text)
  if (address === undefined) throw new InvalidArgumentError('host, host:port or [ipv6]:port is wanted')
  return address
}

export function tokenSourceOptions({ tokenFile, tokenCommand, tokenEnv }: ConnectionOptions) {
  return { env: process.env, tokenFile, tokenCommand, tokenEnv }
}

export function caFile({ ca }: ConnectionOptions): string | undefined {
  return ca === undefined ? undefined : resolve(ca)
}

export function execCommand(): Command {
  return withConnectionOptions(new Command('exec'))
    .description('run a command whose connections to its local DATABASE_URL go through pgusher as this CI job')
    .argument('<command...>', 'the command and its arguments, behind --')
    .option('--socket', 'listen on a Unix socket in place of a loopback port')
    .option('-q, --quiet', 'do not say which identity is used')
    .passThroughOptions()
    .addHelpText(
      'after',
      `
The command finds DATABASE_URL, PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGPASSFILE, PGSSLMODE, JDBC_DATABASE_URL,
FLYWAY_URL, FLYWAY_USER and FLYWAY_PASSWORD. The password in them is made for this one run and good on its local port only.

Exit codes:
  that of the command, 128 + n where signal n ended it
  125  it was not run: no token, no pgusher, ...
  126  it cannot be run
  127  there is no such command

Examples:
  $ pgusher exec -s pgusher.acme.example -d shop-prod -u shop_migrator -- npx prisma migrate deploy
  $ pgusher exec -s pgusher.acme.example -d shop-prod -u ci -- sh -c 'pg_dump > dump.sql'
  $ pgusher exec -s 10.0.0.7:6432 --ca pgusher-ca.crt -d shop-prod -u ci --token-file token.jwt -- psql`,
    )
    .action(async (command: string[], options: Options) => {
      const { server, database, user, audience, socket = false, quiet = false } = options
      process.exitCode = await runExec({
        ...{ server, database, user, audience, socket, quiet, command, env: process.env },
        caFile: caFile(options),
        source: tokenSourceOptions(options),
        terminal: [process.stdin, process.stdout, process.stderr].some((stream) => stream.isTTY),
        say: (text) => void process.stderr.write(text),
      })
    })
}
