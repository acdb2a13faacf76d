/** `pgusher env`. */
import { type Command, Option } from 'commander'
import { ENV_FORMATS, type EnvFormat, runEnv } from '../client/environment/run-env.ts'
import { type ConnectionOptions, caFile, connectionCommand, tokenSourceOptions } from './connection-options.ts'

interface Options extends ConnectionOptions {
  format: EnvFormat
}

export function envCommand(): Command {
  return connectionCommand('env')
    .description(
      'print DATABASE_URL and its like for the steps that follow, with a ticket in them where pgusher gives one',
    )
    .addOption(new Option('-f, --format <format>', 'how').choices(ENV_FORMATS).default('shell'))
    .addHelpText(
      'after',
      `
Formats:
  shell   for eval; safe for any value
  github  appended to $GITHUB_ENV, with what is secret masked; a refusal stands in the job's summary
  dotenv  NAME=value, as GitLab's artifacts:reports:dotenv takes it
  json    one object
  url     DATABASE_URL alone
  jdbc    the URL of JDBC alone, with user and password

Exit codes:
  0  done
  1  refused, or no token, or no pgusher

Examples:
  $ eval "$(pgusher env -s pgusher.acme.example -d shop-prod -u shop_migrator)"
  $ pgusher env -s pgusher.acme.example -d shop-prod -u ci --format github
  $ psql "$(pgusher env -s pgusher.acme.example -d shop-prod -u ci --format url)"`,
    )
    .action(async (options: Options) => {
      const { server, database, user, audience, format } = options
      process.exitCode = await runEnv({
        ...{ server, database, user, audience, format, env: process.env },
        caFile: caFile(options),
        source: tokenSourceOptions(options),
        print: (text) => void process.stdout.write(text),
        say: (text) => void process.stderr.write(text),
      })
    })
}
