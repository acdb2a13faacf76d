/** Variables as text, each form safe for any value that it can hold. */
import { randomBytes } from 'node:crypto'
import { quoteList } from '../../config/quote.ts'
import { AccessError } from '../../errors.ts'
import type { Variables } from './variables.ts'

/** For `eval`: nothing within single quotes means anything to a shell but the quote itself (POSIX, 2.2.2). */
export function shellText(variables: Variables, unset: readonly string[] = []): string {
  const lines = [...variables].map(([name, value]) => `export ${name}='${value.replaceAll("'", `'\\''`)}'\n`)
  return `${unset.length === 0 ? '' : `unset ${unset.join(' ')}\n`}${lines.join('')}`
}

/** For $GITHUB_ENV. A delimiter that nobody can know beforehand: a value that holds it could set variables of its own. */
export function githubEnvText(variables: Variables): string {
  const delimiter = `pgusher_${randomBytes(16).toString('hex')}`
  return [...variables].map(([name, value]) => `${name}<<${delimiter}\n${value}\n${delimiter}\n`).join('')
}

/** Workflow commands that keep values out of a job's log; to be printed before anything that holds them. */
export function githubMasks(secrets: readonly string[]): string {
  const escaped = (text: string): string => text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
  return secrets.map((secret) => `::add-mask::${escaped(secret)}\n`).join('')
}

export function jsonText(variables: Variables): string {
  return `${JSON.stringify(Object.fromEntries(variables), null, 2)}\n`
}

/** GitLab's limit on a report of variables (`artifacts:reports:dotenv`), bytes. */
const MAX_DOTENV = 5 * 1024
/** What is left out first where they are too many. */
const LEFT_OUT_FIRST = /^(?:JDBC|FLYWAY)_/

export interface Dotenv {
  text: string
  /** Names that are not in it for its size. */
  leftOut: string[]
}

/**
 * As GitLab reads it: `NAME=value`, without quotes, comments, empty lines or blanks in values. Other readers take quotes, `#`,
 * `$` and backslashes for their own, each in its own way, so that no value holds them.
 * @throws AccessError where a value can't be written so, which a name of a role or database can cause
 */
export function dotenvText(variables: Variables): Dotenv {
  const bad = [...variables].filter(([, value]) => !/^[^\s\p{Cc}"'`$#\\]*$/u.test(value)).map(([name]) => name)
  if (bad.length > 0) {
    throw new AccessError(
      'protocol_violation',
      `${quoteList(bad, 'and')} cannot stand in a dotenv file: blanks, quotes, $, # and backslashes are read differently everywhere`,
      { hint: 'Use --format shell or json.' },
    )
  }
  const all = [...variables]
  const whole = linesOf(all)
  if (Buffer.byteLength(whole) <= MAX_DOTENV) return { text: whole, leftOut: [] }
  const kept = all.filter(([name]) => !LEFT_OUT_FIRST.test(name))
  return { text: linesOf(kept), leftOut: all.filter(([name]) => LEFT_OUT_FIRST.test(name)).map(([name]) => name) }
}

function linesOf(variables: readonly (readonly [string, string])[]): string {
  return variables.map(([name, value]) => `${name}=${value}\n`).join('')
}
