/**
 * Takes passwords and connection strings out of SQL before it is recorded. It works on tokens and not on the parse tree, so that
 * it also holds for what does not parse, and it takes rather too much: a literal that is gone can be asked for, one that
 * stands in a log cannot be called back. Data of the application (a password in an INSERT's list of values) is not known
 * as such; the text modes `normalized`, `fingerprint` and `none` are for that.
 */
import { REDACTED, type Token, tokens } from './sql-tokens.ts'

/** Names whose value is a secret, as options, settings, columns or keywords: PASSWORD '…', CONNECTION '…', api_key => '…'. */
const SECRET_NAME =
  /pass(?:word|wd|phrase|code)|passwd|(?:^|[._])pass$|\bpwd|secret|token|credential|conn(?:ection|info|str)|(?:api|private|access|ssl)_?key|^program$|^dsn$/i
/** Functions whose arguments are secrets, pgcrypto's among them. */
const SECRET_FUNCTION =
  /^(?:dblink\w*|crypt|hmac|pgp_sym_\w+|pgp_pub_decrypt\w*|(?:en|de)crypt\w*|http_header)$|pass(?:word|wd|phrase)|secret|credential/i
/** Before a name and a parenthesis: the name is a table's, and what follows are its columns. */
const BEFORE_TABLE = /^(?:table|into|exists|on|only|references|copy|with|as|using|view|cluster|analyze)$/
/**
 * Inside of a literal or a comment: `PASSWORD '`, `password=`, `"password": `, `PASSWORD %L`, `… PASSWORD ` at its end (the rest is
 * appended), scheme://user:password@host, a JWT. Every repetition has a bound: the text is a stranger's.
 */
const SECRET_INSIDE =
  /(?:pass(?:word|wd|phrase)|\bpwd|secret|token|credential|api_?key|private_?key|access_?key)\w{0,32}["'\\]{0,4}\s{0,64}(?:=|:|'|%|\$|\|\|)|\s(?:password|connection|program)\s{0,64}$|:\/\/[^\s/:@]{0,256}:(?!\d{1,5}(?:[/?#\s'"]|$))|scram-sha-256\$|conninfo|-----begin|\beyj[\w-]{10,512}\.eyj|\bbearer\s{1,8}[\w.~+/=-]{16}|authorization["'\\]{0,4}\s{0,64}[:=]/i
/** A literal that is itself a statement says what a dblink call does, and is kept where it holds no secret. */
const SQL_INSIDE =
  /^[\s(]*(?:select|insert|update|delete|with|merge|truncate|create|alter|drop|grant|revoke|call|set|table|values)\b/i
/** Cheap first look: a text without any of these holds nothing that the rules below take out. */
const WORTH_A_LOOK =
  /pass|pwd|secret|token|credential|conn(?:ection|info|str)|key|program|dsn|dblink|crypt|hmac|pgp_|scram-|:\/\/|user\s+mapping|(?:create|alter)\s+(?:role|user|group)\b|set_config|-----begin|eyj|bearer|authorization/i

/** How often dollar-quoted bodies are looked into; deeper ones go as a whole. */
const MAX_DEPTH = 4

export interface Redaction {
  text: string
  /** How many literals were taken out. */
  count: number
  /** Where the text's meaning depends on standard_conforming_strings, which the text does not say; nothing of it may be recorded. */
  ambiguous: boolean
}

/** A part of the text to replace. */
interface Range {
  start: number
  end: number
  by: string
}

/** True for a text that may hold a secret, judged without reading it properly. */
export const maySecret = (sql: string): boolean => WORTH_A_LOOK.test(sql)

export function redactSecrets(sql: string): Redaction {
  return maySecret(sql) ? redactLevel(sql, 0, false) : { text: sql, count: 0, ambiguous: false }
}

const isLiteral = (token: Token | undefined): token is Token => token?.kind === 'string' || token?.kind === 'dollar'

/** What the rules need of one statement: its tokens without comments. */
interface Scope {
  sql: string
  all: readonly Token[]
  text(token: Token | undefined): string
  /** Lower case, without the quotes of a quoted identifier. */
  name(token: Token | undefined): string
}

function scopeOf(sql: string, all: readonly Token[]): Scope {
  const text = (token: Token | undefined): string => (token === undefined ? '' : sql.slice(token.start, token.end))
  return {
    sql,
    all,
    text,
    name(token) {
      if (token?.kind !== 'word' && token?.kind !== 'quoted') return ''
      return text(token)
        .replace(/^(?:u&)?"|"$/gi, '')
        .toLowerCase()
    },
  }
}

/** `strict`: inside of a body that mentions a secret, where every string may be a part of it. */
function redactLevel(sql: string, depth: number, strict: boolean): Redaction {
  const found = tokens(sql)
  const ranges: Range[] = []
  let ambiguous = false
  let statement: Token[] = []
  const finish = (): void => {
    redactStatement(scopeOf(sql, statement), depth, strict, ranges)
    statement = []
  }
  for (const token of found) {
    if (token.kind === 'comment') {
      const comment = sql.slice(token.start, token.end)
      if (SECRET_NAME.test(comment) || SECRET_INSIDE.test(comment)) {
        ranges.push({
          start: token.start,
          end: token.end,
          by: comment.startsWith('--') ? '-- <redacted>' : '/* <redacted> */',
        })
      }
      continue
    }
    if (token.kind === 'mark' && sql[token.start] === ';') {
      finish()
      continue
    }
    if (token.kind === 'string' && plainWithEscapedQuote(sql, token)) ambiguous = true
    statement.push(token)
  }
  finish()
  return { text: replaced(sql, ranges), count: ranges.length, ambiguous }
}

/** `'a\'b'` is two different things with standard_conforming_strings on and off. */
const plainWithEscapedQuote = (sql: string, token: Token): boolean =>
  !/^e/i.test(sql.slice(token.start, token.start + 1)) && sql.slice(token.start, token.end).includes("\\'")

function redactStatement(scope: Scope, depth: number, strict: boolean, ranges: Range[]): void {
  const { all } = scope
  const everything =
    strict ||
    isUserMapping(scope) ||
    all.some((token) => token.kind === 'string' && SECRET_INSIDE.test(inside(scope.text(token))))
  const ofRole = isRoleStatement(scope)
  const setting = secretSetting(scope)
  const secretCalls = argumentsOfSecretFunctions(scope)
  let previousTaken = false
  for (const [at, token] of all.entries()) {
    if (setting !== undefined && at >= setting) break
    if (!isLiteral(token)) {
      previousTaken &&= scope.text(token) === '||'
      continue
    }
    const taken =
      previousTaken ||
      namedSecret(scope, at) ||
      (ofRole && scope.name(all[at - 1]) !== 'until') ||
      ((secretCalls.has(at) || (everything && token.kind === 'string')) && !harmlessSql(scope.text(token)))
    if (taken) ranges.push({ start: token.start, end: token.end, by: REDACTED })
    else if (token.kind === 'dollar') redactBody(scope, token, depth, ranges)
    // 'a' 'b' on two lines and 'a' || 'b' are one value.
    previousTaken = taken
  }
  const first = setting === undefined ? undefined : all[setting]
  const last = all[all.length - 1]
  if (first !== undefined && last !== undefined) ranges.push({ start: first.start, end: last.end, by: REDACTED })
}

/** A literal as its content, roughly: doubled quotes are one, and so are those behind a backslash. */
const inside = (literal: string): string =>
  literal
    .replace(/^[a-z&]*'/i, '')
    .replace(/'$/, '')
    .replaceAll("''", "'")
    .replaceAll("\\'", "'")

const harmlessSql = (literal: string): boolean =>
  SQL_INSIDE.test(inside(literal)) && !SECRET_INSIDE.test(inside(literal))

/** A function's or DO block's body is SQL of its own and stays legible. */
function redactBody(scope: Scope, token: Token, depth: number, ranges: Range[]): void {
  const literal = scope.text(token)
  if (!maySecret(literal)) return
  const tag = literal.slice(0, literal.indexOf('$', 1) + 1)
  const closed = literal.length >= tag.length * 2 && literal.endsWith(tag)
  if (depth >= MAX_DEPTH) {
    ranges.push({ start: token.start, end: token.end, by: REDACTED })
    return
  }
  const body = literal.slice(tag.length, closed ? -tag.length : undefined)
  const inner = redactLevel(body, depth + 1, SECRET_NAME.test(body) || SECRET_INSIDE.test(body))
  const by = inner.ambiguous ? REDACTED : tag + inner.text + (closed ? tag : '')
  if (inner.count > 0 || inner.ambiguous) ranges.push({ start: token.start, end: token.end, by })
}

/** PASSWORD '…', password = '…', "api.token" => '…', TO '…': the word before the literal, or before its operator, names a secret. */
function namedSecret(scope: Scope, at: number): boolean {
  const before = scope.all[at - 1]
  const linked =
    before?.kind === 'operator'
      ? /^(?:=|:=|=>|<>|!=)$/.test(scope.text(before))
      : /^(?:to|is|like)$/.test(scope.name(before))
  return SECRET_NAME.test(scope.name(linked ? scope.all[at - 2] : before))
}

/** Of a role's options only PASSWORD and VALID UNTIL take a text: `PASWORD '…'` is the first one, and fails with its text on record. */
function isRoleStatement(scope: Scope): boolean {
  const [verb, kind] = scope.all.slice(0, 2).map(scope.name)
  if (!/^(?:create|alter)$/.test(verb ?? '') || !/^(?:role|user|group)$/.test(kind ?? '')) return false
  return !isUserMapping(scope) && !scope.all.some((token) => /^(?:set|reset)$/.test(scope.name(token)))
}

const isUserMapping = (scope: Scope): boolean =>
  scope.name(scope.all[1]) === 'user' && scope.name(scope.all[2]) === 'mapping'

/**
 * SET, ALTER SYSTEM SET, ALTER ROLE … SET of a setting whose name speaks of a secret: the index of its value's first token. The value
 * may be a bare word or number, so everything up to the statement's end is the value.
 */
function secretSetting(scope: Scope): number | undefined {
  const opening = scope.name(scope.all[0])
  if (opening !== 'set' && opening !== 'alter') return undefined
  const set = scope.all.findIndex((token) => scope.name(token) === 'set')
  if (set === -1) return undefined
  let at = set + 1
  if (/^(?:local|session)$/.test(scope.name(scope.all[at]))) at++
  let setting = ''
  for (; at < scope.all.length; at++) {
    const token = scope.all[at]
    const text = scope.text(token)
    if (text === '=' || (setting !== '' && scope.name(token) === 'to')) {
      return SECRET_NAME.test(setting) && at + 1 < scope.all.length ? at + 1 : undefined
    }
    setting += text === '.' ? '.' : scope.name(token)
  }
  return undefined
}

/** Indexes of the literals between the parentheses of dblink(…), crypt(…), set_config('x.password', …). */
function argumentsOfSecretFunctions(scope: Scope): ReadonlySet<number> {
  const within = new Set<number>()
  const open: boolean[] = []
  for (const [at, token] of scope.all.entries()) {
    const text = scope.text(token)
    const secret = open[open.length - 1] === true
    if (text === '(') {
      const called = calledName(scope, at - 1)
      const setConfig = called === 'set_config' && !namesHarmlessSetting(scope, at + 1)
      open.push(secret || setConfig || SECRET_FUNCTION.test(called))
    } else if (text === ')') open.pop()
    else if (secret && !(scope.name(scope.all[at - 2]) === 'set_config' && scope.text(scope.all[at + 1]) === ','))
      within.add(at)
  }
  return within
}

/** The last part of the name that ends at this token; empty where it is a table's. */
function calledName(scope: Scope, at: number): string {
  let first = at
  while (scope.text(scope.all[first - 1]) === '.') first -= 2
  return BEFORE_TABLE.test(scope.name(scope.all[first - 1])) ? '' : scope.name(scope.all[at])
}

const namesHarmlessSetting = (scope: Scope, at: number): boolean =>
  isLiteral(scope.all[at]) && scope.text(scope.all[at + 1]) === ',' && !SECRET_NAME.test(scope.text(scope.all[at]))

function replaced(sql: string, ranges: readonly Range[]): string {
  let out = ''
  let at = 0
  for (const { start, end, by } of [...ranges].sort((a, b) => a.start - b.start)) {
    if (start < at) continue
    out += sql.slice(at, start) + by
    at = end
  }
  return out + sql.slice(at)
}
