/** A policy from a file: configuration and rules checked together, so that every problem is told at once. */
import { type Diagnostic, sortDiagnostics } from '../config/diagnostics.ts'
import { type LoadedConfig, type LoadOptions, loadConfig } from '../config/load.ts'
import { checkPolicy, compilePolicy } from './compile.ts'
import type { Policy } from './policy.ts'

export type PolicyResult =
  | { ok: true; loaded: LoadedConfig; policy: Policy; warnings: Diagnostic[] }
  /** Errors and warnings, by file and position. */
  | { ok: false; diagnostics: Diagnostic[] }

/** @param env for `${VAR}` in the file */
export async function loadPolicy(
  file: string,
  env: Readonly<Record<string, string | undefined>>,
  options: LoadOptions & { now?: number } = {},
): Promise<PolicyResult> {
  const result = await loadConfig(file, env, options)
  if (result.ok) {
    const compiled = compilePolicy(result.loaded, options.now)
    return compiled.ok
      ? { ok: true, loaded: result.loaded, policy: compiled.policy, warnings: compiled.warnings }
      : compiled
  }
  const { diagnostics, partial } = result
  if (partial === undefined) return { ok: false, diagnostics }
  return {
    ok: false,
    diagnostics: sortDiagnostics([...diagnostics, ...checkPolicy(partial, options.now)], partial.files),
  }
}
