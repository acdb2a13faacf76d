/**
 * PostgreSQL's lexical rules (documentation, section 4.1), for texts that its parser does not read too: anything gives tokens,
 * an unterminated literal or comment reaches to the end. Positions are JavaScript string indexes.
 */

export type TokenKind = 'word' | 'quoted' | 'string' | 'dollar' | 'number' | 'param' | 'comment' | 'operator' | 'mark'

export interface Token {
  kind: TokenKind
  start: number
  /** Just behind it. */
  end: number
}

const isSpace = (c: number): boolean => c === 0x20 || (c >= 0x09 && c <= 0x0d)
const isDigit = (c: number): boolean => c >= 0x30 && c <= 0x39
/** Letters, `_`, and everything that is not ASCII. */
const startsWord = (c: number): boolean =>
  (c >= 0x61 && c <= 0x7a) || (c >= 0x41 && c <= 0x5a) || c === 0x5f || c >= 0x80
const inTag = (c: number): boolean => startsWord(c) || isDigit(c)
const inWord = (c: number): boolean => inTag(c) || c === 0x24
const OPERATOR = new Set([...'+-*/<>=~!@#%^&|`?:'].map((c) => c.charCodeAt(0)))
const QUOTE = 0x27
const DOUBLE_QUOTE = 0x22
const DOLLAR = 0x24

/** Behind the closing quote; a doubled quote is one inside. */
function endOfQuoted(sql: string, open: number, quote: string): number {
  for (let at = open + 1; ; at++) {
    at = sql.indexOf(quote, at)
    if (at === -1) return sql.length
    if (sql[at + 1] !== quote) return at + 1
    at++
  }
}

/** E'…': a backslash takes the next character with it. */
function endOfEscaped(sql: string, open: number): number {
  for (let at = open + 1; at < sql.length; at++) {
    const c = sql.charCodeAt(at)
    if (c === 0x5c) at++
    else if (c === QUOTE) {
      if (sql.charCodeAt(at + 1) !== QUOTE) return at + 1
      at++
    }
  }
  return sql.length
}

function endOfLine(sql: string, from: number): number {
  for (let at = from; at < sql.length; at++) {
    const c = sql.charCodeAt(at)
    if (c === 0x0a || c === 0x0d) return at
  }
  return sql.length
}

/** C comments nest. */
function endOfComment(sql: string, open: number): number {
  let depth = 1
  for (let at = open + 2; at < sql.length; at++) {
    const c = sql.charCodeAt(at)
    if (c === 0x2a && sql.charCodeAt(at + 1) === 0x2f) {
      at++
      if (--depth === 0) return at + 1
    } else if (c === 0x2f && sql.charCodeAt(at + 1) === 0x2a) {
      depth++
      at++
    }
  }
  return sql.length
}

function endOfRun(sql: string, from: number, belongs: (c: number) => boolean): number {
  let at = from
  while (at < sql.length && belongs(sql.charCodeAt(at))) at++
  return at
}

function endOfNumber(sql: string, from: number): number {
  let at = endOfRun(sql, from, inTag)
  while (sql.charCodeAt(at) === 0x2e && sql.charCodeAt(at + 1) !== 0x2e) at = endOfRun(sql, at + 1, inTag)
  const sign = sql.charCodeAt(at)
  const exponent = (sign === 0x2b || sign === 0x2d) && /[eE]/.test(sql[at - 1] ?? '')
  return exponent && isDigit(sql.charCodeAt(at + 1)) ? endOfRun(sql, at + 1, inTag) : at
}

/** An operator ends where a comment begins. */
function endOfOperator(sql: string, from: number): number {
  for (let at = from; at < sql.length; at++) {
    if (!OPERATOR.has(sql.charCodeAt(at))) return at
    if (at > from && (sql.startsWith('--', at) || sql.startsWith('/*', at))) return at
  }
  return sql.length
}

/** `$1`, `$tag$ … $tag$`, or a lone `$`. */
function dollarToken(sql: string, start: number): Token {
  if (isDigit(sql.charCodeAt(start + 1))) return { kind: 'param', start, end: endOfRun(sql, start + 1, inTag) }
  const tagEnd = endOfRun(sql, start + 1, inTag)
  if (sql.charCodeAt(tagEnd) !== DOLLAR) return { kind: 'mark', start, end: start + 1 }
  const tag = sql.slice(start, tagEnd + 1)
  const close = sql.indexOf(tag, tagEnd + 1)
  return { kind: 'dollar', start, end: close === -1 ? sql.length : close + tag.length }
}

/** A word, or the literal that it is the prefix of: E'', B'', X'', N'', U&'', U&"". */
function wordToken(sql: string, start: number): Token {
  const end = endOfRun(sql, start, inWord)
  const next = sql.charCodeAt(end)
  if (end === start + 1) {
    const prefix = sql[start]?.toLowerCase()
    if (next === QUOTE && prefix === 'e') return { kind: 'string', start, end: endOfEscaped(sql, end) }
    if (next === QUOTE && (prefix === 'b' || prefix === 'x' || prefix === 'n')) {
      return { kind: 'string', start, end: endOfQuoted(sql, end, "'") }
    }
    if (prefix === 'u' && next === 0x26) {
      if (sql.charCodeAt(end + 1) === QUOTE) return { kind: 'string', start, end: endOfQuoted(sql, end + 1, "'") }
      if (sql.charCodeAt(end + 1) === DOUBLE_QUOTE)
        return { kind: 'quoted', start, end: endOfQuoted(sql, end + 1, '"') }
    }
  }
  return { kind: 'word', start, end }
}

function tokenAt(sql: string, start: number): Token {
  const c = sql.charCodeAt(start)
  if (startsWord(c)) return wordToken(sql, start)
  if (c === QUOTE) return { kind: 'string', start, end: endOfQuoted(sql, start, "'") }
  if (c === DOUBLE_QUOTE) return { kind: 'quoted', start, end: endOfQuoted(sql, start, '"') }
  if (c === DOLLAR) return dollarToken(sql, start)
  if (isDigit(c) || (c === 0x2e && isDigit(sql.charCodeAt(start + 1)))) {
    return { kind: 'number', start, end: endOfNumber(sql, start + 1) }
  }
  if (sql.startsWith('--', start)) return { kind: 'comment', start, end: endOfLine(sql, start) }
  if (sql.startsWith('/*', start)) return { kind: 'comment', start, end: endOfComment(sql, start) }
  if (OPERATOR.has(c)) return { kind: 'operator', start, end: endOfOperator(sql, start) }
  return { kind: 'mark', start, end: start + 1 }
}

/** Every token but white space, in order and without overlap. */
export function tokens(sql: string): Token[] {
  const found: Token[] = []
  for (let at = 0; at < sql.length; ) {
    if (isSpace(sql.charCodeAt(at))) {
      at++
      continue
    }
    const token = tokenAt(sql, at)
    found.push(token)
    at = token.end
  }
  return found
}

/** The literal that a redacted one is replaced by. */
export const REDACTED = "'<redacted>'"

/** Without comments, `?` for each literal, one space where there was any. For comparing, not for running. */
export function normalizedText(sql: string): string {
  let out = ''
  let end = 0
  for (const { kind, start, end: tokenEnd } of tokens(sql)) {
    if (kind === 'comment') continue
    if (out !== '' && start > end) out += ' '
    const literal = kind === 'string' || kind === 'dollar' || kind === 'number'
    const text = sql.slice(start, tokenEnd)
    out += literal && text !== REDACTED ? '?' : text
    end = tokenEnd
  }
  return out
}
