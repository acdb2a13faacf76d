/** What zod found, in words for the person who wrote the file. */
import type { z } from 'zod'
import { type Diagnostic, diagnostic } from './diagnostics.ts'
import { knownKeys } from './json-schema.ts'
import { quote, quoteList } from './quote.ts'
import { didYouMean, suggestion } from './suggest.ts'
import { isMapping, isSecret, valueAt } from './tree.ts'
import type { Path, ScalarSource, YamlSource } from './yaml-source.ts'

type Issue = z.core.$ZodIssue

export interface SchemaProblem {
  path: Path
  diagnostic: Diagnostic
  /** The value that was surely meant, with which the rest of the file can be checked. */
  meant?: unknown
  /** The type that was wanted and not found. */
  expected?: string
}

export interface Lookup {
  value: unknown
  locate: YamlSource['locate']
  scalar(path: Path): ScalarSource | undefined
}

/** An issue can stand for several problems (unknown keys), or for another issue further down (unions). */
export function schemaProblems(issues: readonly Issue[], lookup: Lookup): SchemaProblem[] {
  return issues.flatMap((issue) => translate(issue, issue.path.map(toStep), lookup))
}

function toStep(step: PropertyKey): string | number {
  return typeof step === 'symbol' ? String(step) : step
}

function problem(
  lookup: Lookup,
  path: Path,
  message: string,
  hint?: string,
  prefer: 'key' | 'value' = 'value',
): SchemaProblem {
  return { path, diagnostic: diagnostic('error', lookup.locate(path, prefer), message, hint) }
}

function translate(issue: Issue, path: Path, lookup: Lookup): SchemaProblem[] {
  const value = valueAt(lookup.value, path)
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => unknownKey([...path, key], lookup))
    case 'invalid_union':
      return union(issue, path, value, lookup)
    case 'invalid_type':
      return [invalidType(issue.expected, issue.message, path, value, lookup)]
    case 'invalid_value':
      return [invalidValue(issue.values.map(String), path, value, lookup)]
    case 'too_small':
    case 'too_big':
      return [outOfRange(issue, path, lookup)]
    case 'invalid_format':
      return [problem(lookup, path, `${name(path)} is not ${formatName(issue)}`, example(issue, value))]
    case 'invalid_key':
    case 'invalid_element':
      return issue.issues.flatMap((inner) => translate(inner, path, lookup))
    default:
      return [problem(lookup, path, `${name(path)}: ${issue.message}`)]
  }
}

/** `issuers.github.audience`; within a rule `match.ref`, because an index into the rules of all files would mislead. */
export function name(path: Path): string {
  if (path.length === 2 && path[0] === 'rules') return 'the rule'
  let text = ''
  for (const step of path[0] === 'rules' ? path.slice(2) : path)
    text += typeof step === 'number' ? `[${step}]` : text === '' ? step : `.${step}`
  return text === '' ? 'the file' : quoteless(text)
}

function quoteless(text: string): string {
  return quote(text).slice(1, -1)
}

function unknownKey(path: Path, lookup: Lookup): SchemaProblem {
  const key = String(path.at(-1))
  const where = path.length === 1 ? '' : ` in ${name(path.slice(0, -1))}`
  return problem(
    lookup,
    path,
    `unknown key ${quote(key)}${where}`,
    suggestion(key, knownKeys(path.slice(0, -1)), 'known keys'),
    'key',
  )
}

const KINDS: Readonly<Record<string, string>> = {
  object: 'a mapping',
  record: 'a mapping',
  array: 'a list',
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
}

function describe(value: unknown, source: ScalarSource | undefined): string {
  if (value === null) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  if (isMapping(value)) return 'a mapping'
  if (typeof value === 'string') return `the string ${quote(value, 60)}`
  return `the ${typeof value} ${source?.source ?? String(value)}`
}

function invalidType(expected: string, message: string, path: Path, value: unknown, lookup: Lookup): SchemaProblem {
  const source = lookup.scalar(path)
  const wanted = message.startsWith('Invalid input') ? (KINDS[expected] ?? expected) : message
  if (value === undefined) {
    const found = lookup.locate(path, 'key')
    return {
      path,
      diagnostic: diagnostic(
        'error',
        found,
        `${name(path.slice(0, -1))} needs the key ${quote(String(path.at(-1)))}`,
        wanted === 'a string' ? undefined : `give it ${wanted}`,
      ),
    }
  }
  if (expected === 'string' && (typeof value === 'number' || typeof value === 'boolean'))
    return needsQuotes(path, value, wanted, lookup)
  if (expected === 'boolean' && typeof value === 'string' && /^(yes|no|on|off)$/i.test(value)) {
    return problem(
      lookup,
      path,
      `${name(path)} must be true or false, found ${quote(value)}`,
      'YAML 1.2 knows only true and false',
    )
  }
  // The value of a variable may be a secret and is never shown.
  const found = source?.expanded === true ? 'the value of a variable' : describe(value, source)
  return {
    ...problem(lookup, path, `${name(path)} must be ${wanted}, found ${found}`),
    expected: expected === 'int' ? 'number' : expected,
  }
}

/** YAML reads `9100001` as a number and `true` as a boolean; ids and claim values are text. */
function needsQuotes(path: Path, value: number | boolean, wanted: string, lookup: Lookup): SchemaProblem {
  const source = lookup.scalar(path)?.source ?? String(value)
  const large = typeof value === 'number' && !Number.isSafeInteger(value) && Number.isInteger(value)
  const why = large ? ', and one this large loses digits' : ''
  const what = typeof value === 'number' ? `a number${why}` : 'a boolean'
  const needed = wanted === 'a string' ? 'a string' : wanted
  const [it, quoted] = isSecret(path) ? ['it', ''] : [source, `: "${source}"`]
  const hint = wanted === 'a string' ? `write it in quotes${quoted}` : undefined
  const message = `${name(path)} must be ${needed}; YAML reads ${it} as ${what}`
  return { ...problem(lookup, path, message, hint), ...(wanted === 'a string' ? { meant: source } : {}) }
}

function invalidValue(values: readonly string[], path: Path, value: unknown, lookup: Lookup): SchemaProblem {
  if (value === undefined)
    return invalidType(
      'string',
      values.length === 1 ? `${values[0]}` : `one of ${quoteList(values)}`,
      path,
      value,
      lookup,
    )
  const choices = values.length === 1 ? `${values[0]}` : `one of ${quoteList(values)}`
  const nearest = typeof value === 'string' ? didYouMean(value, values) : undefined
  const hint = nearest === undefined ? undefined : `did you mean "${nearest}"?`
  return problem(lookup, path, `${name(path)} must be ${choices}, found ${describe(value, lookup.scalar(path))}`, hint)
}

function outOfRange(
  issue: z.core.$ZodIssueTooSmall | z.core.$ZodIssueTooBig,
  path: Path,
  lookup: Lookup,
): SchemaProblem {
  const small = issue.code === 'too_small'
  const bound = String(small ? issue.minimum : issue.maximum)
  if (issue.origin === 'string' && small) return problem(lookup, path, `${name(path)} must not be empty`)
  if (issue.origin === 'array' && small)
    return problem(lookup, path, `${name(path)} must name at least ${bound}`, undefined, 'key')
  const unit = issue.origin === 'string' ? ' characters' : issue.origin === 'array' ? ' entries' : ''
  return problem(lookup, path, `${name(path)} must be at ${small ? 'least' : 'most'} ${bound}${unit}`)
}

function formatName(issue: z.core.$ZodIssueInvalidStringFormat): string {
  if (issue.format === 'url') return 'a URL'
  return issue.message.startsWith('Invalid')
    ? `a valid ${issue.format}`
    : issue.message.replace(/^(letters|lower|host)/, 'made of $1').replace('made of host', 'host')
}

function example(issue: z.core.$ZodIssueInvalidStringFormat, value: unknown): string | undefined {
  if (issue.format === 'url') return 'for example https://ci.example.com'
  if (typeof value === 'string' && /^\d+$/.test(value) && issue.message.startsWith('a duration'))
    return `add a unit: ${value}s or ${value}m`
  return undefined
}

function union(issue: z.core.$ZodIssueInvalidUnion, path: Path, value: unknown, lookup: Lookup): SchemaProblem[] {
  if ('options' in issue && Array.isArray(issue.options))
    return [invalidValue(issue.options.map(String), path, value, lookup)]
  if (value === undefined) return [invalidType('union', alternatives(issue), path, value, lookup)]
  const fitting = issue.errors.filter(
    (branch) => !branch.some((inner) => inner.path.length === 0 && inner.code === 'invalid_type'),
  )
  const exact = fitting.find(
    (branch) => !branch.some((inner) => inner.code === 'unrecognized_keys' || misses(inner, value)),
  )
  if (exact !== undefined)
    return exact.flatMap((inner) => translate(inner, [...path, ...inner.path.map(toStep)], lookup))
  if (isMapping(value) && knownKeys(path).length > 0) return [oneKeyOf(path, value, lookup)]
  if (typeof value === 'number' || typeof value === 'boolean') return [needsQuotes(path, value, 'a string', lookup)]
  const wanted = alternatives(issue)
  return [
    problem(
      lookup,
      path,
      `${name(path)} must be ${wanted}, found ${describe(value, lookup.scalar(path))}`,
      listHint(value, path),
    ),
  ]
}

/** `a string or a list` */
function alternatives(issue: z.core.$ZodIssueInvalidUnion): string {
  const kinds = issue.errors.map(([first]) => (first?.code === 'invalid_type' ? KINDS[first.expected] : undefined))
  return [...new Set(kinds.filter((kind) => kind !== undefined))].join(' or ') || 'of another kind'
}

function misses(issue: Issue, value: unknown): boolean {
  return issue.code === 'invalid_type' && valueAt(value, issue.path.map(toStep)) === undefined
}

/** Alternatives that are told apart by their one key: a condition's `in`, `not_in` and `glob`. */
function oneKeyOf(path: Path, value: Record<string, unknown>, lookup: Lookup): SchemaProblem {
  const known = knownKeys(path)
  const unknown = Object.keys(value).find((key) => !known.includes(key))
  if (unknown !== undefined) return unknownKey([...path, unknown], lookup)
  return problem(lookup, path, `${name(path)} needs exactly one of ${quoteList(known)}`)
}

function listHint(value: unknown, path: Path): string | undefined {
  return Array.isArray(value) && path.includes('match') ? 'for any of several values write { in: [a, b] }' : undefined
}
