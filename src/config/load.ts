/** From a configuration file to a Config with positions, or to every problem of it at once. */
import { createHash } from 'node:crypto'
import { relative, resolve } from 'node:path'
import { type Diagnostic, diagnostic, type Position, type Span, sortDiagnostics, startOf } from './diagnostics.ts'
import { checkReadable, resolvePaths } from './file-paths.ts'
import { quote } from './quote.ts'
import { includedFiles, readConfigFile } from './read-file.ts'
import type { Config } from './schema.ts'
import { suggestion } from './suggest.ts'
import { isMapping, valueAt } from './tree.ts'
import { touches, validate } from './validate.ts'
import { type Path, readYaml, type ScalarSource, type YamlSource } from './yaml-source.ts'

type Environment = Readonly<Record<string, string | undefined>>

export interface LoadedConfig {
  /** Paths in it are absolute. */
  config: Config
  /** Hex SHA-256 over the bytes of the policy's files in the order they were read: `cat main.yaml rules/*.yaml | sha256sum`. */
  version: string
  /** The files in that order, as they are named in diagnostics. */
  files: string[]
  /** Parallel to `config.rules`. */
  ruleSources: Position[]
  /** Where a path of the configuration stands, for a missing one its nearest ancestor. */
  locate(path: Path, prefer?: 'key' | 'value'): Span
  /** True where something at or around the path has a problem already, so that no further check should complain. */
  isBroken(path: Path): boolean
}

export type LoadResult =
  | { ok: true; loaded: LoadedConfig }
  /** `partial` is a mended configuration on which further checks can run; it must never be served. */
  | { ok: false; diagnostics: Diagnostic[]; partial?: LoadedConfig }

export interface LoadOptions {
  /** False where certificates and keys need not be there, as for a check on a laptop or in CI. */
  checkFiles?: boolean
}

interface Sources {
  main: YamlSource
  all: YamlSource[]
  hash: string
  /** Parallel to the joined list of rules. */
  origins: { source: YamlSource; index: number }[]
  value: Record<string, unknown>
  diagnostics: Diagnostic[]
  /** Paths of values that are reported already. */
  broken: Path[]
}

/**
 * Reads a configuration and the files that it includes. Never rejects for what stands in the files.
 * @param file shown in diagnostics as it is given here; included files are shown relative to the working directory
 * @param env for `${VAR}`
 */
export async function loadConfig(file: string, env: Environment, options: LoadOptions = {}): Promise<LoadResult> {
  const read = await readSources(file, env)
  if (Array.isArray(read)) return { ok: false, diagnostics: read }
  const { main, origins, diagnostics } = read
  const locate = (path: Path, prefer?: 'key' | 'value'): Span =>
    redirect(main, origins, path, (source, at) => source.locate(at, prefer))
  const scalar = (path: Path): ScalarSource | undefined =>
    redirect(main, origins, path, (source, at) => source.scalar(at))
  const { config, problems } = validate({ value: read.value, locate, scalar }, read.broken)
  diagnostics.push(...problems.map((one) => one.diagnostic))
  const files = read.all.map((source) => source.file)
  if (config === undefined) return { ok: false, diagnostics: sortDiagnostics(diagnostics, files) }
  const broken = [...read.broken, ...problems.map((one) => one.path)]
  const isBroken = (path: Path): boolean => touches(broken, path)
  resolvePaths(config, file)
  if (options.checkFiles ?? true) diagnostics.push(...(await checkReadable(config, locate, isBroken)))
  const loaded: LoadedConfig = {
    config,
    version: read.hash,
    files,
    ruleSources: config.rules.map((_rule, index) => position(locate(['rules', index, 'name'], 'value'))),
    locate,
    isBroken,
  }
  if (diagnostics.length > 0) return { ok: false, diagnostics: sortDiagnostics(diagnostics, files), partial: loaded }
  return { ok: true, loaded }
}

function position({ file, line, column }: Span): Position {
  return { file, line, column }
}

/** The main file, the files it includes, and the rules of all of them as one list. Diagnostics alone where the main file is unreadable. */
async function readSources(file: string, env: Environment): Promise<Sources | Diagnostic[]> {
  const hash = createHash('sha256')
  const text = await readConfigFile(file)
  if (!text.ok) return [diagnostic('error', startOf(file), `the configuration file ${text.problem}`)]
  hash.update(text.bytes)
  const main = readYaml(file, text.text, env)
  if (!isMapping(main.value)) {
    const empty = diagnostic(
      'error',
      startOf(file),
      main.value === undefined || main.value === null ? 'the file is empty' : 'the file must be a mapping',
    )
    return main.diagnostics.length > 0
      ? sortDiagnostics(main.diagnostics)
      : [{ ...empty, hint: 'begin with config/pgusher.example.yaml' }]
  }
  const all = [main]
  const diagnostics = [...main.diagnostics]
  for (const path of await resolveIncludes(main, file, diagnostics)) {
    const shown = shorter(path)
    const included = await readConfigFile(path)
    if (included.ok) {
      hash.update(included.bytes)
      const source = readYaml(shown, included.text, env)
      all.push(source)
      diagnostics.push(...source.diagnostics, ...checkIncluded(source))
    } else diagnostics.push(diagnostic('error', startOf(shown), `the included file ${included.problem}`))
  }
  const { value, origins } = joinRules(main, all)
  const broken = [
    ...main.broken,
    ...origins.flatMap(({ source, index }, joined) => inRule(source.broken, index, joined)),
  ]
  return { main, all, hash: hash.digest('hex'), origins, value, diagnostics, broken }
}

async function resolveIncludes(main: YamlSource, file: string, diagnostics: Diagnostic[]): Promise<string[]> {
  const patterns = valueAt(main.value, ['include'])
  const found = new Set<string>()
  for (const [index, pattern] of (Array.isArray(patterns) ? patterns : []).entries()) {
    if (typeof pattern !== 'string' || pattern === '') continue
    const files = await includedFiles(pattern, file)
    if (files.length === 0) {
      const hint = 'patterns start at the directory of this file; * and ** are known'
      diagnostics.push(
        diagnostic('error', main.locate(['include', index]), `include ${quote(pattern)} matches no file`, hint),
      )
    }
    for (const one of files) found.add(resolve(one))
  }
  return [...found].sort((a, b) => (a < b ? -1 : 1))
}

/** An included file holds `rules` and nothing else: a second listener or issuer in it would be a surprise. */
function checkIncluded(source: YamlSource): Diagnostic[] {
  if (source.diagnostics.length > 0 && source.value === undefined) return []
  if (!isMapping(source.value) || !Array.isArray(source.value['rules'])) {
    return [diagnostic('error', source.locate(['rules'], 'key'), 'an included file needs a list `rules`')]
  }
  return Object.keys(source.value)
    .filter((key) => key !== 'rules')
    .map((key) =>
      diagnostic(
        'error',
        source.locate([key], 'key'),
        `unknown key ${quote(key)}; an included file holds rules only`,
        suggestion(key, ['rules'], 'known keys'),
      ),
    )
}

function joinRules(main: YamlSource, all: readonly YamlSource[]): Pick<Sources, 'value' | 'origins'> {
  const value = { ...(main.value as Record<string, unknown>) }
  const rules: unknown[] = []
  const origins: Sources['origins'] = []
  for (const source of all) {
    const own = valueAt(source.value, ['rules'])
    if (!Array.isArray(own)) continue
    for (const [index, rule] of own.entries()) {
      rules.push(rule)
      origins.push({ source, index })
    }
  }
  if (Array.isArray(value['rules']) || (value['rules'] === undefined && rules.length > 0)) value['rules'] = rules
  return { value, origins }
}

/** Relative to the working directory where that is below it. */
function shorter(path: string): string {
  const shown = relative(process.cwd(), path)
  return shown.startsWith('..') ? path : shown
}

function inRule(paths: readonly Path[], index: number, joined: number): Path[] {
  return paths
    .filter((path) => path[0] === 'rules' && path[1] === index)
    .map((path) => ['rules', joined, ...path.slice(2)])
}

/** Rules of included files follow those of the main file in one list; a path into that list leads to the file it came from. */
function redirect<T>(
  main: YamlSource,
  origins: Sources['origins'],
  path: Path,
  use: (source: YamlSource, path: Path) => T,
): T {
  const [first, index, ...rest] = path
  const origin = first === 'rules' && typeof index === 'number' ? origins[index] : undefined
  return origin === undefined ? use(main, path) : use(origin.source, ['rules', origin.index, ...rest])
}
