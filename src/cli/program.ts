/** The root command. A subcommand's module is loaded when it is asked for, so that `pgusher version` loads no driver. */
import { Command, CommanderError } from 'commander'
import { printable } from '../config/quote.ts'
import { AccessError } from '../errors.ts'
import { maskSecrets } from '../telemetry/mask.ts'
import { EXIT } from './exit-codes.ts'
import { packageVersion } from './version.ts'

const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import('./serve.ts')).serveCommand(),
  check: async () => (await import('./check.ts')).checkCommand(),
  explain: async () => (await import('./explain.ts')).explainCommand(),
  why: async () => (await import('./why.ts')).whyCommand(),
  sessions: async () => (await import('./sessions.ts')).sessionsCommand(),
  kill: async () => (await import('./kill.ts')).killCommand(),
  whoami: async () => (await import('./whoami.ts')).whoamiCommand(),
  exec: async () => (await import('./exec.ts')).execCommand(),
  env: async () => (await import('./env.ts')).envCommand(),
  demo: demoCommand,
  schema: async () => (await import('./schema.ts')).schemaCommand(),
  version: async () => (await import('./version.ts')).versionCommand(),
}

const HELP = `
Exit codes:
  0  done; allowed; no errors found
  1  refused; errors found; failed
  2  wrong usage
  3  an error in pgusher itself

Examples:
  $ pgusher demo                                       in a checkout: see it work, with a PostgreSQL and an issuer of its own
  $ pgusher check --config pgusher.yaml                every problem of a configuration at once
  $ pgusher explain --config pgusher.yaml --token-file token.jwt --database shop-prod --user shop_migrator
  $ pgusher why D-7Q2MK4 --config /etc/pgusher/pgusher.yaml
  $ pgusher whoami --server pgusher.acme.example       in a CI job: who it is, before it connects
  $ pgusher exec --server pgusher.acme.example --database shop-prod --user ci -- npx prisma migrate deploy
  $ pgusher serve --config /etc/pgusher/pgusher.yaml`

/** Runs one command line (without node and script) and gives its exit code; nothing is thrown. */
export async function run(argv: readonly string[]): Promise<number> {
  try {
    const program = await createProgram(argv[0])
    await program.parseAsync([...argv], { from: 'user' })
    return Number(process.exitCode ?? EXIT.ok)
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT.ok : EXIT.usage
    if (thrown instanceof AccessError) {
      process.stderr.write(`pgusher: ${printable(thrown.message)}\n`)
      return EXIT.failed
    }
    const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)
    process.stderr.write(`pgusher: internal error: ${maskSecrets(text)}\n`)
    return EXIT.internal
  }
}

async function createProgram(wanted: string | undefined): Promise<Command> {
  const program = new Command('pgusher')
    .description('identity-aware access proxy for PostgreSQL: CI jobs connect with the OIDC token of their CI system')
    .version(packageVersion(), '-V, --version')
    // What stands behind the command of `exec` belongs to that command.
    .enablePositionalOptions()
    .addHelpText('after', HELP)
  const one = wanted !== undefined && Object.hasOwn(COMMANDS, wanted) ? COMMANDS[wanted] : undefined
  const loaders = one === undefined ? Object.values(COMMANDS) : [one]
  for (const load of loaders) program.addCommand(await load())
  for (const command of [program, ...program.commands]) {
    // Without this commander ends the process by itself, with 1 for a wrong option too.
    command.exitOverride().showHelpAfterError('(add --help for options and examples)')
  }
  return program
}

/** The demo stands on development dependencies, which the package and the image are without. */
async function demoCommand(): Promise<Command> {
  try {
    return (await import('./demo/command.ts')).demoCommand()
  } catch (thrown) {
    if (!(thrown instanceof Error) || !('code' in thrown) || thrown.code !== 'ERR_MODULE_NOT_FOUND') throw thrown
    return new Command('demo')
      .description('see pgusher work (only in a checkout of its repository)')
      .allowUnknownOption()
      .allowExcessArguments()
      .action(() => {
        process.stderr.write('pgusher: the demo needs a checkout of the repository: npm ci && npm run demo\n')
        process.exitCode = EXIT.failed
      })
  }
}
