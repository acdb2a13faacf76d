/** `pgusher exec`. */
import type { Command } from 'commander'
import { runExec } from '../client/exec/run-exec.ts'
import { type ConnectionOptions, caFile, connectionCommand, tokenSourceOptions } from './connection-options.ts'

interface Options extends ConnectionOptions {
  socket?: true
  quiet?: true
}

export function execCommand(): Command {
  return connectionCommand('exec')
    .description('run a command whose connections to its local DATABASE_URL go through pgusher as this CI job')
    .argument('<command...>', 'the command and its arguments, behind --')
    .option('--socket', 'listen on a Unix socket in place of a loopback port')
    .option('-q, --quiet', 'do not say which identity is used')
    .passThroughOptions()
    .addHelpText(
      'after',
      `
The command finds DATABASE_URL, PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGPASSFILE, PGSSLMODE, JDBC_DATABASE_URL,
JDBC_DATABASE_USERNAME, JDBC_DATABASE_PASSWORD, FLYWAY_URL, FLYWAY_USER and FLYWAY_PASSWORD. The password in them is made for
this one run and good on its local port only.

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
      // A reader of stderr that has gone (`2>&1 | head`) must not end this process, and leave the command without its port.
      process.stderr.on('error', () => {})
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
