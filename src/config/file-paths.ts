/** Paths in the configuration: relative ones start at the file's directory, and those that must be readable are tried. */
import { dirname, resolve } from 'node:path'
import { type Diagnostic, diagnostic } from './diagnostics.ts'
import { unreadable } from './read-file.ts'
import type { Config } from './schema.ts'
import { name } from './schema-problems.ts'
import { setAt, valueAt } from './tree.ts'
import type { Path, YamlSource } from './yaml-source.ts'

function readablePaths(config: Config): Path[] {
  const perIssuer = Object.keys(config.issuers).flatMap((issuer) =>
    ['ca', 'jwks_file'].map((key) => ['issuers', issuer, key]),
  )
  const perDatabase = Object.keys(config.databases).flatMap((database) => {
    const at = ['databases', database]
    const credentials = [...at, 'credentials']
    return [
      [...at, 'tls', 'ca'],
      [...credentials, 'admin', 'cert'],
      [...credentials, 'admin', 'key'],
      [...credentials, 'ca', 'cert'],
      [...credentials, 'ca', 'key'],
    ]
  })
  return [['listen', 'tls', 'cert'], ['listen', 'tls', 'key'], ...perIssuer, ...perDatabase]
}

/** Makes every path of `config` absolute, in place. */
export function resolvePaths(config: Config, mainFile: string): void {
  const base = dirname(resolve(mainFile))
  for (const path of [...readablePaths(config), ['audit', 'file', 'path'], ['control', 'socket']]) {
    const value = valueAt(config, path)
    if (typeof value === 'string') setAt(config, path, resolve(base, value))
  }
}

/** One diagnostic for each file that can't be opened. Paths are absolute by now. */
export async function checkReadable(
  config: Config,
  locate: YamlSource['locate'],
  isBroken: (path: Path) => boolean,
): Promise<Diagnostic[]> {
  const found = await Promise.all(
    readablePaths(config).map(async (path) => {
      const file = valueAt(config, path)
      const problem = typeof file === 'string' && !isBroken(path) ? await unreadable(file) : undefined
      if (problem === undefined) return []
      const message = `${name(path)}: ${String(file)} cannot be read: ${problem}`
      return [
        diagnostic('error', locate(path), message, 'relative paths start at the directory of the configuration file'),
      ]
    }),
  )
  return found.flat()
}
