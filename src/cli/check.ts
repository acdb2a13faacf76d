/** `pgusher check`. */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { Command } from 'commander'
import { formatDiagnostics } from '../config/diagnostics.ts'
import type { Config } from '../config/schema.ts'
import { createMinter } from '../credentials/create.ts'
import type { Finding } from '../credentials/minter.ts'
import { asAccessError } from '../errors.ts'
import { loadPolicy } from '../policy/load.ts'
import type { Policy } from '../policy/policy.ts'
import { EXIT } from './exit-codes.ts'

interface Options {
  config: string
  live?: true
  files: boolean
}

export function checkCommand(): Command {
  return new Command('check')
    .description('show every problem of a configuration: file:line:column, the line, a caret and a hint')
    .requiredOption('-c, --config <file>', 'configuration file')
    .option(
      '--live',
      'also connect to each database as its minting admin: versions, TLS, ADMIN OPTION, dangerous roles',
    )
    .option('--no-files', 'do not ask that certificates and keys are there, for a check away from the server')
    .addHelpText(
      'after',
      `
Exit codes:
  0  no errors (there may be warnings)
  1  errors

Examples:
  $ pgusher check --config pgusher.yaml
  $ PGUSHER_ADMIN_PASSWORD=x pgusher check --no-files --config pgusher.yaml    # in CI, for a pull request
  $ pgusher check --live --config /etc/pgusher/pgusher.yaml                    # on the server`,
    )
    .action(async (options: Options) => {
      process.exitCode = await check(options)
    })
}

async function check({ config: file, live, files }: Options): Promise<number> {
  const result = await loadPolicy(file, process.env, { checkFiles: files })
  if (!result.ok) {
    process.stdout.write(formatDiagnostics(result.diagnostics))
    return EXIT.failed
  }
  const { loaded, policy, warnings } = result
  process.stdout.write(formatDiagnostics(warnings))
  const counts = [
    count(policy.issuers.size, 'issuer'),
    count(policy.databases.size, 'database'),
    count(policy.rules.length, 'rule'),
  ]
  process.stdout.write(`${file}: no errors; ${counts.join(', ')}; policy version ${policy.version}\n${limits(policy)}`)
  return live === true ? checkLive(loaded.config, policy) : EXIT.ok
}

function count(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? '' : 's'}`
}

/** A line for each rule that limits statements. */
function limits({ rules }: Policy): string {
  const limited = rules.flatMap(({ config: { name, allow } }) =>
    allow?.statements === undefined ? [] : [`  rule ${name}: statements ${allow.statements.join(', ')}\n`],
  )
  return limited.join('')
}

async function checkLive(config: Config, policy: Policy): Promise<number> {
  const instance = { name: config.instance ?? hostname(), boot: randomBytes(8).toString('hex') }
  const names = [...policy.databases.keys()]
  const results = await Promise.all(
    names.map(async (alias) => ({ alias, findings: await checkDatabase(config, policy, alias, instance) })),
  )
  let errors = 0
  for (const { alias, findings } of results) {
    process.stdout.write(
      `\ndatabase "${alias}": ${findings.length === 0 ? 'no problems' : count(findings.length, 'finding')}\n`,
    )
    for (const { level, subject, message, hint } of findings) {
      if (level === 'error') errors += 1
      process.stdout.write(`  ${level}: ${subject}: ${message}\n${hint === undefined ? '' : `    = hint: ${hint}\n`}`)
    }
  }
  return errors > 0 ? EXIT.failed : EXIT.ok
}

async function checkDatabase(
  config: Config,
  policy: Policy,
  alias: string,
  instance: { name: string; boot: string },
): Promise<Finding[]> {
  const entry = config.databases[alias]
  if (entry === undefined) return []
  const minter = createMinter({ alias, config: entry, dbname: entry.dbname ?? alias }, instance)
  try {
    return await minter.check(policy.grantedRoles.get(alias) ?? [])
  } catch (thrown) {
    const { message, hint } = asAccessError(thrown)
    return [{ level: 'error', subject: alias, message, ...(hint === undefined ? {} : { hint }) }]
  } finally {
    await minter.close()
  }
}
