/** The `options` parameter of a StartupMessage: what `PGOPTIONS` and `?options=` of a connection string hold. */
import { AccessError } from '../errors.ts'

/** C's isspace() in the C locale. */
const SPACE = ' \t\n\v\f\r'

/**
 * PostgreSQL's pg_split_opts: white space separates, a backslash makes the next character ordinary, and a backslash at the
 * end is dropped. There are no quotes.
 */
export function splitOptions(options: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let escaped = false
  for (const character of options) {
    if (escaped) {
      word = (word ?? '') + character
      escaped = false
    } else if (SPACE.includes(character)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (character === '\\') {
      word ??= ''
      escaped = true
    } else {
      word = (word ?? '') + character
    }
  }
  if (word !== undefined) words.push(word)
  return words
}

/**
 * `-c name=value`, `-cname=value` and `--name=value` as settings. The last of two wins, as in PostgreSQL, and a `-` in a
 * name stands for `_` (PostgreSQL's ParseLongOption). Names come out in lower case, since settings have no case.
 * @throws AccessError `protocol_violation`, SQLSTATE 42601, for anything else: other switches of a backend have no place in
 *   a job's connection string, and what pgusher cannot read it cannot vouch for.
 */
export function parseOptions(options: string): Map<string, string> {
  const settings = new Map<string, string>()
  const words = splitOptions(options)
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? ''
    let assignment: string | undefined
    if (word === '-c') assignment = words[++index]
    else if (word.startsWith('-c') || (word.startsWith('--') && word !== '--')) assignment = word.slice(2)
    else throw refused(word, 'only -c name=value and --name=value are taken')
    if (assignment === undefined) throw refused(word, 'a name=value must follow it')
    const [name, value] = parseAssignment(assignment)
    settings.set(name, value)
  }
  return settings
}

function parseAssignment(assignment: string): [name: string, value: string] {
  const equals = assignment.indexOf('=')
  if (equals === -1) throw refused(assignment, 'it has no value; write name=value')
  const name = assignment.slice(0, equals).replaceAll('-', '_')
  if (!isSettingName(name)) throw refused(assignment, 'that is not the name of a setting')
  return [name.toLowerCase(), assignment.slice(equals + 1)]
}

/** Letters, digits, `_` and `$`, in parts joined by dots: PostgreSQL's rule for custom settings, without letters beyond ASCII. */
export function isSettingName(name: string): boolean {
  return name.length <= 255 && /^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$/.test(name)
}

/** The value is not repeated: somebody puts a secret there one day. */
function refused(word: string, why: string): AccessError {
  const shown = word.split('=')[0]?.slice(0, 63) ?? ''
  return new AccessError('protocol_violation', `connection option ${JSON.stringify(shown)} is refused: ${why}`, {
    sqlstate: '42601',
    hint: 'Look at PGOPTIONS and at options= of the connection string.',
  })
}
