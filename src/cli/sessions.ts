/** `pgusher sessions`. */
import { Command, Option } from 'commander'
import { jsonValue } from '../audit/json.ts'
import { printable } from '../config/quote.ts'
import { OVERVIEW_PATH } from '../http/control-request.ts'
import type { JobSummary, Overview } from '../session/operator.ts'
import { addSocketOptions, ask, type SocketOptions, socketPath } from './control-client.ts'

interface Options extends SocketOptions {
  format: 'text' | 'json'
}

export function sessionsCommand(): Command {
  return addSocketOptions(new Command('sessions'))
    .description('list the sessions of a running pgusher, and the windows that are open')
    .addOption(new Option('--format <format>').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      `
Needs control.socket in the configuration, and to run as pgusher's user or root. Each replica has its own.

Exit codes:
  0  listed
  1  pgusher could not be reached

Examples:
  $ pgusher sessions --config /etc/pgusher/pgusher.yaml
  $ pgusher sessions --socket /run/pgusher/control.sock --format json | jq -r '.sessions[] | select(.busy) | .run_url'`,
    )
    .action(async (options: Options, command: Command) => {
      const answer = (await ask(await socketPath(options, command), OVERVIEW_PATH)) as Overview
      process.stdout.write(options.format === 'json' ? `${jsonValue(answer)}\n` : overviewText(answer, Date.now()))
    })
}

/** @param now milliseconds since the epoch */
export function overviewText({ sessions, windows, barred }: Overview, now: number): string {
  const lines = [`${count(sessions.length, 'session')}${sessions.length === 0 ? '' : ':'}`]
  for (const one of sessions) {
    const state = one.busy ? 'busy' : 'idle'
    lines.push(
      '',
      `  ${one.id}  ${state}, ${count(one.statements, 'statement')}, for ${span(now - Date.parse(one.since))}`,
      `    ${one.role} in ${one.database} by rule ${one.rule}, from ${one.address}`,
      ...jobLines(one),
    )
  }
  lines.push('', `${count(windows.length, 'open window')}${windows.length === 0 ? '' : ':'}`)
  for (const one of windows) {
    const closes = `closes at ${one.closes_at}, in ${span(Date.parse(one.closes_at) - now)}`
    const used = `${count(one.connections, 'connection')} with an expired token`
    lines.push('', `  rule ${one.rule}  ${closes}; ${used}`, ...jobLines(one))
  }
  if (barred > 0)
    lines.push('', barred === 1 ? '1 job or run is barred by kill' : `${barred} jobs or runs are barred by kill`)
  return `${lines.map(printable).join('\n')}\n`
}

function jobLines({ job, issuer, run_url, run_id, repository, actor }: JobSummary): string[] {
  const who = [repository, actor === undefined ? undefined : `started by ${actor}`].filter((one) => one !== undefined)
  const run = run_url ?? (run_id === undefined ? undefined : `run ${run_id}`)
  return [
    ...(run === undefined ? [] : [`    ${run}`]),
    `    ${[...who, `issuer ${issuer}`].join(', ')}`,
    // It is made to be pasted into a shell, and holds claims: whoever names a job could else name a command.
    `    --job '${job.replaceAll("'", `'\\''`)}'`,
  ]
}

function count(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? '' : 's'}`
}

/** @param milliseconds negative where two clocks differ */
function span(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000))
  if (seconds < 120) return `${seconds} s`
  const minutes = Math.round(seconds / 60)
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}
