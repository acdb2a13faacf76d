/** What a reload changed, for `policy.loaded` and the log. */
import type { AuditEvent } from '../audit/recorder.ts'
import type { Diagnostic } from '../config/diagnostics.ts'
import type { Config } from '../config/schema.ts'
import type { Policy } from '../policy/policy.ts'

export function policyLoaded(next: Policy, previous: Policy | undefined): AuditEvent {
  const before = rulesByName(previous)
  const after = rulesByName(next)
  return {
    event: 'policy.loaded',
    outcome: 'success',
    fields: {
      security_rule: { version: next.version },
      pgusher: {
        policy: {
          version: next.version,
          previous_version: previous?.version,
          rules: after.size,
          added: [...after.keys()].filter((name) => !before.has(name)),
          removed: [...before.keys()].filter((name) => !after.has(name)),
          changed: [...after]
            .filter(([name, text]) => before.has(name) && before.get(name) !== text)
            .map(([name]) => name),
        },
      },
    },
  }
}

export function policyRejected(current: Policy, diagnostics: readonly Diagnostic[]): AuditEvent {
  const errors = diagnostics.filter((one) => one.level === 'error')
  const shown = errors.slice(0, 20).map((one) => `${one.file}:${one.line}:${one.column}: ${one.message}`)
  return {
    event: 'policy.rejected',
    outcome: 'failure',
    fields: { pgusher: { policy: { version: current.version, errors: shown, error_count: errors.length } } },
  }
}

function rulesByName(policy: Policy | undefined): Map<string, string> {
  return new Map(policy?.rules.map((rule) => [rule.config.name, JSON.stringify(rule.config)]))
}

/** Settings in which what runs differs from the file, since a reload cannot apply them. @param started of the start */
export function needsRestart(started: Config, next: Config): string[] {
  const fixed = {
    'listen.address': (config: Config) => config.listen.address,
    'http.address': (config: Config) => config.http.address,
    'control.socket': (config: Config) => config.control?.socket ?? '',
    audit: (config: Config) => ({ ...config.audit, text: undefined }),
    instance: (config: Config) => config.instance,
  }
  return Object.entries(fixed)
    .filter(([, read]) => JSON.stringify(read(started)) !== JSON.stringify(read(next)))
    .map(([name]) => name)
}
