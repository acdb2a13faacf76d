/** How values from configuration files, tokens and clients are shown to people. */

/**
 * C0, DEL and C1 controls, line and paragraph separators, bidi controls, zero-width characters, the byte order mark and
 * lone surrogates: what can forge a line of a log, hide a difference between two names or turn text around in a terminal.
 */
const UNSAFE = /[\p{Cc}\p{Cs}\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\', '"': '\\"' }

function escapeCharacter(character: string): string {
  return SHORT[character] ?? `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
}

/** Text without characters that act on a terminal or a log, each as `\n` or `\u{202e}`. */
export function printable(text: string): string {
  return text.replace(UNSAFE, escapeCharacter)
}

/** A value in double quotes, escaped, at most `cap` characters of it, then `…`. */
export function quote(value: string, cap = 200): string {
  const shown = value.length > cap ? [...value.slice(0, cap)].join('') : value
  const escaped = shown.replace(/["\\]/g, escapeCharacter).replace(UNSAFE, escapeCharacter)
  return `"${escaped}${shown.length < value.length ? '…' : ''}"`
}

/** `"a", "b" or "c"`; the rest is counted where there are more than `limit`. */
export function quoteList(values: readonly string[], word: 'and' | 'or' = 'or', limit = 20): string {
  const quoted = values.slice(0, limit).map((value) => quote(value))
  if (values.length > limit) return `${quoted.join(', ')} ${word} ${values.length - limit} more`
  const last = quoted.pop()
  if (last === undefined) return 'none'
  return quoted.length === 0 ? last : `${quoted.join(', ')} ${word} ${last}`
}
