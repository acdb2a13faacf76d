/** Policies and jobs for tests, through the real loader and the real presets. */
import { type Diagnostic, formatDiagnostics } from '../../src/config/diagnostics.ts'
import type { Principal } from '../../src/identity/principal.ts'
import { principalFromClaims } from '../../src/identity/principal-from-claims.ts'
import { evaluate } from '../../src/policy/evaluate.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import type { Policy } from '../../src/policy/policy.ts'
import type { Decision } from '../../src/policy/types.ts'
import { writeConfig } from '../config/write-config.ts'

export const NOW = Date.parse('2026-11-21T12:00:00Z')

export async function policyOf(text: string): Promise<Policy> {
  const result = await loadPolicy(await writeConfig(text), {}, { now: NOW })
  if (!result.ok) throw new Error(formatDiagnostics(result.diagnostics))
  return result.policy
}

/** Errors and warnings of a file. */
export async function diagnosticsOf(text: string): Promise<Diagnostic[]> {
  const result = await loadPolicy(await writeConfig(text), {}, { now: NOW })
  return result.ok ? result.warnings : result.diagnostics
}

/** A job of our organisation that pushed to main. */
export const GITHUB_JOB: Readonly<Record<string, unknown>> = {
  sub: 'repo:acme/shop:ref:refs/heads/main',
  repository_owner_id: '9100001',
  repository_id: '784500001',
  repository: 'acme/shop',
  ref: 'refs/heads/main',
  environment: 'production',
  event_name: 'push',
  runner_environment: 'github-hosted',
  run_id: '18700000412',
}

/** Claims that are `undefined` in `changes` are taken away. */
export function githubJob(policy: Policy, changes: Readonly<Record<string, unknown>> = {}): Principal {
  const issuer = policy.issuers.get('github')
  if (issuer === undefined) throw new Error('the policy has no issuer github')
  const claims = Object.fromEntries(
    Object.entries({ ...GITHUB_JOB, ...changes }).filter(([, value]) => value !== undefined),
  )
  return principalFromClaims('github', issuer.config, claims)
}

export function decide(
  policy: Policy,
  changes: Readonly<Record<string, unknown>>,
  user: string,
  database = 'shop',
): Decision {
  return evaluate(policy, githubJob(policy, changes), { database, user }, NOW)
}

/** `rule/role` of a grant, or code and message of a denial. */
export function outcome(decision: Decision): string {
  return decision.allowed
    ? `${decision.grant.rule}/${decision.grant.role}`
    : `${decision.error.code}: ${decision.error.message}`
}
