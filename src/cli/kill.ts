/** `pgusher kill`. */
import { userInfo } from 'node:os'
import { Command, InvalidArgumentError, Option } from 'commander'
import { printable } from '../config/quote.ts'
import { KILL_PATH, type KillRequest, killRequest } from '../http/control-request.ts'
import type { KillResult, KillTarget } from '../session/kill.ts'
import { addSocketOptions, ask, type SocketOptions, socketPath } from './control-client.ts'
import { EXIT } from './exit-codes.ts'

interface Options extends SocketOptions {
  session?: string
  run?: string
  job?: string
  rule?: string
  reason: string
}

const TARGETS = ['session', 'run', 'job', 'rule'] as const satisfies readonly KillTarget['by'][]

export function killCommand(): Command {
  const conflicts = (own: string) => TARGETS.filter((one) => one !== own)
  return addSocketOptions(new Command('kill'))
    .description("end a job's sessions, windows and tickets, and bar that job attempt")
    .addOption(new Option('--session <id>', 'the job of this session').conflicts(conflicts('session')))
    .addOption(new Option('--run <id-or-url>', 'all jobs of this run').conflicts(conflicts('run')))
    .addOption(new Option('--job <key>', 'the job attempt, by the key that sessions shows').conflicts(conflicts('job')))
    .addOption(new Option('--rule <name>', 'all jobs that this rule has let in').conflicts(conflicts('rule')))
    .requiredOption('--reason <text>', 'for the job to read, and for the audit log', reasonText)
    .addHelpText(
      'after',
      `
Ends whole job attempts: every session, window and ticket of each job that is meant. Its tokens are refused from then on.
A run's URL or a job's key also bars one that is not connected now. Needs control.socket in the configuration, and to run
as pgusher's user or root. Workers are one; replicas know nothing of each other: kill on each.

Exit codes:
  0  ended and barred
  1  pgusher could not be reached, nothing of that name is there, or not everything could be done

Examples:
  $ pgusher kill --config /etc/pgusher/pgusher.yaml --session 0c5e4f8e-… --reason 'locks orders for an hour'
  $ pgusher kill --socket /run/pgusher/control.sock --reason 'token in a public log' \\
      --run https://github.com/acme/shop/actions/runs/18700000412`,
    )
    .action(async (options: Options, command: Command) => {
      process.exitCode = await kill(options, command)
    })
}

function reasonText(text: string): string {
  const reason = killRequest.shape.reason.safeParse(text)
  if (!reason.success) throw new InvalidArgumentError('It is one line of up to 200 characters, and not empty.')
  return reason.data
}

async function kill(options: Options, command: Command): Promise<number> {
  const by = TARGETS.find((one) => options[one] !== undefined)
  if (by === undefined) command.error('error: give --session, --run, --job or --rule, to say whom')
  const { user, sudoUser } = operator()
  const order: KillRequest = {
    target: { by, value: options[by] ?? '' },
    user,
    ...(sudoUser === undefined ? {} : { sudo_user: sudoUser }),
    reason: options.reason,
  }
  const result = (await ask(await socketPath(options, command), KILL_PATH, order)) as KillResult & { ok: true }
  process.stdout.write(resultText(result))
  for (const problem of result.problems) process.stderr.write(`pgusher: ${printable(problem)}\n`)
  return result.problems.length > 0 ? EXIT.failed : EXIT.ok
}

/** As the operating system knows the person, without proof: for the record. */
function operator(): { user: string; sudoUser: string | undefined } {
  const sudoUser = process.env['SUDO_USER']
  try {
    return { user: userInfo().username, sudoUser }
  } catch {
    // A container's uid often has no name.
    return { user: `uid ${process.getuid?.() ?? 'unknown'}`, sudoUser }
  }
}

function resultText({ jobs, sessions, windows, tickets }: KillResult & { ok: true }): string {
  const ended = `ended ${count(sessions, 'session')}, closed ${count(windows, 'window')}, gave back ${count(tickets, 'ticket')}`
  const lines = jobs.map(({ job, run_url, run_id }) => `barred: ${run_url ?? run_id ?? ''} ${job}`)
  if (jobs.length === 0) lines.push('no such job is connected now; it is barred from now on')
  return `${[ended, ...lines].map(printable).join('\n')}\n`
}

function count(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? '' : 's'}`
}
