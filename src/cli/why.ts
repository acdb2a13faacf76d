/** `pgusher why`: the whole story of a denial, from the audit log. */
import { createReadStream } from 'node:fs'
import { Command, Option } from 'commander'
import { findLines } from '../audit/find-lines.ts'
import { rotatedFiles } from '../audit/rotated-files.ts'
import { formatDiagnostics } from '../config/diagnostics.ts'
import { printable, quoteList } from '../config/quote.ts'
import { reason } from '../config/read-file.ts'
import { loadPolicy } from '../policy/load.ts'
import { parseDenialId } from '../session/denial.ts'
import { workerAuditFiles } from '../workers/names.ts'
import { decideAgain, type Today } from './decide-again.ts'
import { EXIT } from './exit-codes.ts'
import { explanationJson, outcomeLines, shownTrace } from './explanation.ts'
import { denialText, type RecordedDenial, readDenial } from './recorded-denial.ts'
import { traceLines } from './trace-text.ts'

interface Options {
  audit?: string[]
  config?: string
  format: 'text' | 'json'
}

type LoadedPolicy = Extract<Awaited<ReturnType<typeof loadPolicy>>, { ok: true }>

/** Bytes. A gigabyte of events is searched in 0.7 s so, where the disk gives it. */
const CHUNK = 256 * 1024

export function whyCommand(): Command {
  return new Command('why')
    .description('say why a job was refused: the whole trace of a denial, from the audit log')
    .argument('<id>', 'the id at the end of the message, such as D-7Q2MK4; case and D- count for nothing')
    .option(
      '-a, --audit <file...>',
      "audit log; its rotated files and its workers' are searched as well, newest first; - is standard input",
    )
    .option(
      '-c, --config <file>',
      'also say what this policy decides today; its audit.file is searched without --audit',
    )
    .addOption(new Option('--format <format>').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      `
Exit codes:
  0  the denial is found
  1  it is not, or a file cannot be read

Examples:
  $ pgusher why D-7Q2MK4 --audit /var/log/pgusher/audit.jsonl
  $ pgusher why 7q2mk4 --config /etc/pgusher/pgusher.yaml
  $ zcat audit-2026-11-*.gz | pgusher why D-7Q2MK4 --audit - --format json`,
    )
    .action(async (typed: string, options: Options, command: Command) => {
      const id = parseDenialId(typed)
      if (id === undefined) command.error('error: a denial has an id such as D-7Q2MK4: D- and six letters and digits')
      if (options.audit === undefined && options.config === undefined) {
        command.error('error: give --audit with the log, or --config with a configuration that names it')
      }
      process.exitCode = await why(id, options)
    })
}

async function why(id: string, options: Options): Promise<number> {
  let policy: LoadedPolicy | undefined
  if (options.config !== undefined) {
    const result = await loadPolicy(options.config, process.env, { checkFiles: false })
    if (!result.ok) {
      process.stderr.write(formatDiagnostics(result.diagnostics))
      return EXIT.failed
    }
    policy = result
  }
  const named = options.audit ?? [policy?.loaded.config.audit.file?.path].filter((path) => path !== undefined)
  if (named.length === 0) {
    process.stderr.write('pgusher: this configuration has no audit.file: name the log by --audit\n')
    return EXIT.failed
  }
  const { found, searched } = await search(id, named)
  const last = found.at(-1)
  if (last === undefined) {
    process.stderr.write(notFound(id, searched))
    return EXIT.failed
  }
  const today = policy === undefined ? undefined : decideAgain(last, policy, Date.now())
  const before = last.pgusher.decision.trace?.policy_version
  process.stdout.write(
    options.format === 'json'
      ? denialJson(id, found, today)
      : `${found.map(denialText).join('\n')}${todayText(today, policy, before)}`,
  )
  return EXIT.ok
}

/** The file that was written last first, and no further than the first that has the denial: its job was told of it just now. */
async function search(id: string, named: readonly string[]): Promise<{ found: RecordedDenial[]; searched: string[] }> {
  const searched: string[] = []
  for (const file of await filesOf(named)) {
    const found: RecordedDenial[] = []
    try {
      const chunks = file === '-' ? process.stdin : createReadStream(file, { highWaterMark: CHUNK })
      for await (const line of findLines(chunks, `"${id}"`)) {
        const denial = readDenial(line, id)
        if (denial !== undefined) found.push(denial)
      }
      searched.push(file)
    } catch (thrown) {
      process.stderr.write(`pgusher: ${printable(file)} cannot be read: ${reason(thrown)}\n`)
    }
    if (found.length > 0) return { found, searched }
  }
  return { found: [], searched }
}

async function filesOf(named: readonly string[]): Promise<string[]> {
  const files: string[] = []
  for (const file of named) {
    if (file === '-') files.push(file)
    else {
      // What keeps a directory from being read is told when the file itself is.
      const written = [file, ...(await workerAuditFiles(file).catch(() => []))]
      const rotated = written.map(async (one) => (await rotatedFiles(one).catch(() => [])).reverse())
      files.push(...written, ...(await Promise.all(rotated)).flat())
    }
  }
  return [...new Set(files)]
}

function notFound(id: string, searched: readonly string[]): string {
  if (searched.length === 0) return `pgusher: denial ${id} was looked for nowhere, as no file could be read\n`
  const where = searched.map((file) => (file === '-' ? 'standard input' : printable(file)))
  const rest = where.length > 3 ? `${where.slice(0, 3).join(', ')} and ${where.length - 3} more` : where.join(', ')
  return (
    `pgusher: no denial ${id} in ${rest}\n` +
    'Each replica of pgusher has a log of its own, and the oldest files are removed (audit.file.keep). ' +
    "The id is the last word of the message that the job's client shows.\n"
  )
}

/** @param before version of the policy that decided then */
function todayText(today: Today | undefined, policy: LoadedPolicy | undefined, before: string | undefined): string {
  if (policy === undefined) return ''
  const same = policy.policy.version === before
  const version = `${policy.policy.version.slice(0, 12)}${same ? ' (the one that decided then)' : ''}`
  if (today === undefined) return `\ntoday       policy ${version}: no job and request are on record to decide about\n`
  const { explanation, notOnRecord } = today
  const { principal, decision, ruleSources } = explanation
  const lines = [
    '',
    `today       policy ${version}, for the claims on record; the token's time and audience are not looked at`,
    ...(notOnRecord.length === 0
      ? []
      : [`            not on record, and missing here: claim ${quoteList(notOnRecord, 'and', 10)}`]),
    ...(decision === undefined || principal === undefined || same
      ? []
      : ['', ...traceLines(shownTrace(decision, ruleSources, principal))]),
    '',
    ...outcomeLines(explanation),
  ]
  return `${lines.join('\n')}\n`
}

function denialJson(id: string, found: readonly RecordedDenial[], today: Today | undefined): string {
  const decided =
    today === undefined
      ? {}
      : { today: { ...JSON.parse(explanationJson(today.explanation)), claims_not_on_record: today.notOnRecord } }
  return `${JSON.stringify({ id, denials: found, ...decided }, null, 2)}\n`
}
