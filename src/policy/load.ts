/** A policy from a file: configuration and rules checked together, so that every problem is told at once. */
import { type Diagnostic, sortDiagnostics } from '../config/diagnostics.ts'
import { type LoadedConfig, type LoadOptions, loadConfig } from '../config/load.ts'
import { compilePolicy } from './compile.ts'
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
  if (!result.ok && result.partial === undefined) return { ok: false, diagnostics: result.diagnostics }
  const loaded = result.ok ? result.loaded : result.partial
  if (loaded === undefined) return { ok: false, diagnostics: [] }
  const compiled = compilePolicy(loaded, options.now)
  if (result.ok && compiled.ok) return { ok: true, loaded, policy: compiled.policy, warnings: compiled.warnings }
  const found = compiled.ok ? compiled.warnings : compiled.diagnostics
  return { ok: false, diagnostics: sortDiagnostics([...(result.ok ? [] : result.diagnostics), ...found], loaded.files) }
}
