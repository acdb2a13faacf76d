/** Collects what the policy's checks find, with positions. */
import { type Diagnostic, diagnostic } from '../config/diagnostics.ts'
import type { LoadedConfig } from '../config/load.ts'
import type { Path } from '../config/yaml-source.ts'

export interface Report {
  loaded: LoadedConfig
  diagnostics: Diagnostic[]
  error(path: Path, message: string, hint?: string, prefer?: 'key' | 'value'): void
  warning(path: Path, message: string, hint?: string, prefer?: 'key' | 'value'): void
}

export function createReport(loaded: LoadedConfig): Report {
  const diagnostics: Diagnostic[] = []
  const add =
    (level: Diagnostic['level']): Report['error'] =>
    (path, message, hint, prefer) => {
      diagnostics.push(diagnostic(level, loaded.locate(path, prefer), message, hint))
    }
  return { loaded, diagnostics, error: add('error'), warning: add('warning') }
}
