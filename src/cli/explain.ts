/** `pgusher explain`: the decision that `serve` would take, rule by rule. */
import { Command, Option } from 'commander'
import { formatDiagnostics } from '../config/diagnostics.ts'
import { AccessError, asAccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import { evaluate } from '../policy/evaluate.ts'
import { loadPolicy } from '../policy/load.ts'
import { EXIT } from './exit-codes.ts'
import { identifyJob, type JobSource } from './explain-job.ts'
import { type Explanation, explanationJson, explanationText } from './explanation.ts'

interface Options extends JobSource {
  config: string
  database: string
  user: string
  format: 'text' | 'json'
}

export function explainCommand(): Command {
  return new Command('explain')
    .description('say what the policy decides for a job, rule by rule and condition by condition')
    .requiredOption('-c, --config <file>', 'configuration file')
    .addOption(new Option('--token-file <file>', "a job's token, verified as serve does").conflicts('claims'))
    .option('--claims <file>', 'claims as JSON instead of a token; nothing is verified and no issuer is asked')
    .option('--issuer <name>', 'the entry of issuers that the claims are of, where they have no iss')
    .requiredOption('--database <name>', 'the entry of databases that the job asks for')
    .requiredOption('--user <name>', 'the role that the job asks for, or ci')
    .addOption(new Option('--format <format>').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      `
Exit codes:
  0  the job is let in
  1  it is refused, or the configuration has errors

Examples:
  $ pgusher explain -c pgusher.yaml --token-file token.jwt --database shop-prod --user shop_migrator
  $ pgusher explain -c pgusher.yaml --claims claims.json --issuer github --database shop-prod --user ci --format json`,
    )
    .action(async (options: Options, command: Command) => {
      if (options.tokenFile === undefined && options.claims === undefined) {
        command.error('error: give --token-file or --claims, so that there is a job to explain')
      }
      process.exitCode = await explain(options)
    })
}

async function explain(options: Options): Promise<number> {
  const result = await loadPolicy(options.config, process.env, { checkFiles: false })
  if (!result.ok) {
    process.stderr.write(formatDiagnostics(result.diagnostics))
    return EXIT.failed
  }
  const { loaded, policy } = result
  const request = { database: options.database, user: options.user }
  const base = { request, ruleSources: loaded.ruleSources, policyVersion: policy.version }
  const explanation = await decide()
  process.stdout.write(options.format === 'json' ? explanationJson(explanation) : explanationText(explanation))
  return explanation.decision?.allowed === true ? EXIT.ok : EXIT.failed

  async function decide(): Promise<Explanation> {
    let principal: Principal
    try {
      principal = await identifyJob(loaded.config, options)
    } catch (thrown) {
      // A token or claims that don't get as far as the policy: the job sees that refusal.
      if (!(thrown instanceof AccessError)) throw thrown
      return { ...base, refusal: asAccessError(thrown) }
    }
    return { ...base, principal, decision: evaluate(policy, principal, request, Date.now()) }
  }
}
