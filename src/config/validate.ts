/**
 * From plain data to a Config. On problems the data is mended, silently and only to find further problems behind the
 * first ones: a mended Config is never served.
 */
import { type Config, configSchema } from './schema.ts'
import { type Lookup, type SchemaProblem, schemaProblems } from './schema-problems.ts'
import { removeAt, setAt, startsWith, valueAt } from './tree.ts'
import type { Path } from './yaml-source.ts'

export interface Validated {
  /** Undefined where nothing useful is left. With problems it is a mended one, for further checks only. */
  config: Config | undefined
  problems: SchemaProblem[]
}

const MAX_PASSES = 8

/** @param reported paths of values that have a diagnostic already */
export function validate(lookup: Lookup, reported: readonly Path[]): Validated {
  const data = structuredClone(lookup.value)
  const problems: SchemaProblem[] = []
  for (let pass = 0; pass < MAX_PASSES; pass++) {
    const parsed = configSchema.safeParse(data)
    if (parsed.success) return { config: parsed.data, problems }
    const here: Lookup = { ...lookup, value: data }
    const found = schemaProblems(parsed.error.issues, here).filter((one) => !retyped(data, one, lookup))
    // What stands in a reported value says nothing new. What later passes find is an echo of the mending, unless it stands where nothing was mended.
    problems.push(...found.filter((one) => !touches(reported, one.path) && !touches(paths(problems), one.path)))
    for (const one of found) mend(data, one)
  }
  return { config: undefined, problems }
}

function paths(problems: readonly SchemaProblem[]): Path[] {
  return problems.map((one) => one.path)
}

/** A variable's value is text; where a number or a boolean is wanted, `${PORT:-5432}` may stand for one. */
function retyped(data: unknown, one: SchemaProblem, lookup: Lookup): boolean {
  const value = valueAt(data, one.path)
  if (typeof value !== 'string' || lookup.scalar(one.path)?.expanded !== true) return false
  if (one.expected === 'number' && /^\d{1,15}$/.test(value)) setAt(data, one.path, Number(value))
  else if (one.expected === 'boolean' && (value === 'true' || value === 'false'))
    setAt(data, one.path, value === 'true')
  else return false
  return true
}

function mend(data: unknown, one: SchemaProblem): void {
  if (one.meant !== undefined) {
    setAt(data, one.path, one.meant)
    return
  }
  if (valueAt(data, one.path) !== undefined) {
    // The list of rules keeps its order: a rule that can't be read becomes an empty one.
    if (one.path.length === 2 && one.path[0] === 'rules') {
      setAt(data, one.path, {})
      return
    }
    removeAt(data, one.path)
    return
  }
  const standIn = placeholder(one.path)
  if (standIn !== undefined) setAt(data, one.path, standIn)
  else removeAt(data, one.path.slice(0, -1))
}

/** Stands for a required value, so that what is around it can be checked. */
function placeholder(path: Path): unknown {
  const last = path.at(-1)
  if (path.length === 1 && last === 'version') return 1
  if (path.length === 1 && last === 'listen') return { address: '127.0.0.1:6432', plaintext: 'allow' }
  if (path.length === 1 && (last === 'issuers' || last === 'databases')) return {}
  if (path[0] === 'listen' && last === 'address') return '127.0.0.1:6432'
  if (path[0] === 'issuers' && last === 'audience') return '(missing)'
  if (path[0] === 'databases' && last === 'host') return 'localhost'
  if (path[0] !== 'rules') return undefined
  if (path.length === 3 && last === 'name') return `unnamed-${String(path[1])}`
  if (path.length === 3 && last === 'issuer') return ''
  if (path.length === 3 && last === 'match') return {}
  if (path.at(-2) === 'allow' && (last === 'database' || last === 'role')) return 'unnamed'
  return undefined
}

/** True where the value at `path`, something in it or something around it has a problem already. */
export function touches(problems: readonly Path[], path: Path): boolean {
  return problems.some((one) => startsWith(one, path) || startsWith(path, one))
}
