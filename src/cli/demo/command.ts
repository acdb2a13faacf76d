/** `pgusher demo`. */
import { Command, InvalidArgumentError } from 'commander'
import { EXIT } from '../exit-codes.ts'
import { type DemoOptions, runDemo } from './run-demo.ts'
import { createScreen } from './screen.ts'

export function demoCommand(): Command {
  return new Command('demo')
    .description('see it work: PostgreSQL, four CI systems, pgusher with TLS, and the main job told as it happens')
    .option('--once', 'end after the story, with 0 only if each step was as told', false)
    .option('--env-file <file>', "write DATABASE_URL, libpq's PG* and PGUSHER_AUDIT_LOG there once all is ready")
    .option('--upstream <url>', 'use this PostgreSQL, as its superuser, instead of one that is started for the demo')
    .option('--port <port>', 'where pgusher listens; 6432, or a free one where that is taken, without it', portNumber)
    .option('--data-dir <dir>', 'keep policy, certificates, audit log and log there; a temporary directory without it')
    .addHelpText(
      'after',
      `
With --upstream the demo makes a database and roles named pgudemo…, and removes them at the end.

Exit codes:
  0    each step was as told; ended by Ctrl-C after that
  1    something was not as told, or could not be started
  130  ended by Ctrl-C before the story's end (143: by SIGTERM)

Examples:
  $ npm run demo
  $ npm run demo -- --once
  $ npm run demo -- --env-file /tmp/job.env        then, elsewhere: . /tmp/job.env && psql
  $ npm run demo -- --upstream postgres://postgres:secret@127.0.0.1:5432/postgres`,
    )
    .action(async (options: DemoOptions) => {
      process.exitCode = await demo(options)
    })
}

function portNumber(text: string): number {
  const port = Number(text)
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new InvalidArgumentError('a port is 1 to 65535')
  return port
}

const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const

class Interrupted extends Error {
  readonly exitCode: number

  constructor(exitCode: number) {
    super('interrupted')
    this.exitCode = exitCode
  }
}

async function demo(options: DemoOptions): Promise<number> {
  const stop = new AbortController()
  const screen = createScreen(process.stdout)
  for (const [signal, exitCode] of Object.entries(SIGNALS)) {
    process.on(signal, () => {
      // Whoever asks twice does not want to wait: files and PostgreSQL are ended by others on our exit.
      if (stop.signal.aborted) process.exit(exitCode)
      stop.abort(new Interrupted(exitCode))
    })
  }
  // A reader that has seen enough (`| head`) ends the demo as Ctrl-C does.
  process.stdout.on('error', () => stop.abort(new Interrupted(EXIT.failed)))
  try {
    await runDemo(options, screen, stop.signal)
    return EXIT.ok
  } catch (thrown) {
    if (thrown instanceof Interrupted) return thrown.exitCode
    process.stderr.write(`\n${screen.paint('red', 'pgusher demo:')} ${reasonOf(thrown)}\n`)
    return EXIT.failed
  }
}

function reasonOf(thrown: unknown): string {
  if (thrown instanceof SuppressedError) return `${reasonOf(thrown.suppressed)}\nand then: ${reasonOf(thrown.error)}`
  if (thrown instanceof AggregateError && thrown.errors.length > 0) return thrown.errors.map(reasonOf).join('; ')
  if (!(thrown instanceof Error)) return String(thrown)
  if ('code' in thrown && thrown.code === 'ERR_MODULE_NOT_FOUND') {
    return 'the demo needs a checkout of the repository with its development dependencies: npm ci && npm run demo'
  }
  return thrown.message
}
