/** Problems of configuration files, and how they are shown: `file:line:column: error: text`, the line, a caret, a hint. */
import { printable } from './quote.ts'

/** Line and column count from 1, the column in UTF-16 code units as editors do. */
export interface Position {
  file: string
  line: number
  column: number
}

export interface Span extends Position {
  /** Code units under the caret, at least 1; cut at the end of the line when shown. */
  length: number
  /** The whole line that it stands in, without its line break; undefined where the file could not be read. */
  sourceLine: string | undefined
}

export interface Diagnostic extends Span {
  level: 'error' | 'warning'
  message: string
  hint?: string
}

/** Where a diagnostic has no better place: the first character of the file. */
export function startOf(file: string): Span {
  return { file, line: 1, column: 1, length: 1, sourceLine: undefined }
}

export function diagnostic(level: Diagnostic['level'], span: Span, message: string, hint?: string): Diagnostic {
  const { file, line, column, length, sourceLine } = span
  return { level, file, line, column, length, sourceLine, message, ...(hint === undefined ? {} : { hint }) }
}

/** In order of the files as they were read, then by position; equal ones once. */
export function sortDiagnostics(diagnostics: readonly Diagnostic[], files: readonly string[] = []): Diagnostic[] {
  const rank = (file: string): number => {
    const index = files.indexOf(file)
    return index < 0 ? files.length : index
  }
  const seen = new Set<string>()
  return diagnostics
    .filter((one) => {
      const key = `${one.file}\0${one.line}\0${one.column}\0${one.level}\0${one.message}`
      return seen.has(key) ? false : seen.add(key) !== undefined
    })
    .sort(
      (a, b) => rank(a.file) - rank(b.file) || compareText(a.file, b.file) || a.line - b.line || a.column - b.column,
    )
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** A literal password beside the mistake, or under a key like `pasword` or `passwort`, must not reach a shared terminal or a CI job's log. */
const PASSWORD_VALUE =
  /((?:p\w*w\w*d|pass\w*|pw\w*|\w*secret\w*)["']?\s*:\s*)("(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s,}#][^,}]*)/gi

function maskPasswords(line: string): string {
  return line.replace(PASSWORD_VALUE, (_whole, key: string, value: string) =>
    /^["']?\$\{\w+(?:\}["']?)?\s*$/.test(value) ? key + value : key + '*'.repeat(value.length),
  )
}

const SHOWN_WIDTH = 160

/** The source line and its caret. A long line is cut around the caret. */
function excerpt(one: Diagnostic): string[] {
  if (one.sourceLine === undefined) return []
  // Character by character, so that the caret stays under its place; a tab stays a tab.
  const clean = maskPasswords(one.sourceLine).replace(/[^\t]/gu, (c) =>
    printable(c) === c ? c : '\ufffd'.repeat(c.length),
  )
  const at = Math.min(one.column - 1, clean.length)
  const from = at > SHOWN_WIDTH - 40 ? at - 40 : 0
  const line =
    (from > 0 ? '…' : '') + clean.slice(from, from + SHOWN_WIDTH) + (clean.length > from + SHOWN_WIDTH ? '…' : '')
  const caretAt = at - from + (from > 0 ? 1 : 0)
  const pad = line.slice(0, caretAt).replace(/[^\t]/gu, ' ')
  const width = Math.max(1, Math.min(one.length, line.length - caretAt))
  const number = String(one.line).padStart(5)
  return [`${number} | ${line}`, `      | ${pad}${'^'.repeat(width)}`]
}

/** One diagnostic as text of several lines, without a final line break. */
export function formatDiagnostic(one: Diagnostic): string {
  const lines = [`${one.file}:${one.line}:${one.column}: ${one.level}: ${printable(one.message)}`, ...excerpt(one)]
  if (one.hint !== undefined) lines.push(`      = hint: ${printable(one.hint)}`)
  return lines.join('\n')
}

/** All of them, then a line that counts them. Empty text for none. */
export function formatDiagnostics(diagnostics: readonly Diagnostic[]): string {
  if (diagnostics.length === 0) return ''
  return `${diagnostics.map(formatDiagnostic).join('\n\n')}\n\n${countDiagnostics(diagnostics)}\n`
}

/** `3 errors, 1 warning`. */
export function countDiagnostics(diagnostics: readonly Diagnostic[]): string {
  const count = (level: Diagnostic['level']): string => {
    const number = diagnostics.filter((one) => one.level === level).length
    return number === 0 ? '' : `${number} ${level}${number === 1 ? '' : 's'}`
  }
  return [count('error'), count('warning')].filter((part) => part !== '').join(', ') || 'no problems'
}
