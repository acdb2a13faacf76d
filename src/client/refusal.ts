/** A refusal as the job's author sees it: the server's words, and the token's own claims beside what was wanted. */
import { printable } from '../config/quote.ts'
import { AccessError } from '../errors.ts'
import type { OwnIdentity } from './claims.ts'

export interface Refusal {
  sqlstate: string
  message: string
  detail: string | undefined
  hint: string | undefined
}

export interface RefusalContext {
  database: string
  user: string
  identity: OwnIdentity | undefined
}

/** From the fields of an ErrorResponse. */
export function refusalFromFields(fields: ReadonlyMap<string, string>): Refusal {
  const [sqlstate = '', message = 'without a reason'] = [fields.get('C'), fields.get('M')]
  return { sqlstate, message, detail: fields.get('D'), hint: fields.get('H') }
}

export function refusalFromError({ sqlstate, message, detail, hint }: AccessError): Refusal {
  return { sqlstate, message, detail, hint }
}

/** The same refusal of another connection has another denial id. */
export function withoutDenialId(message: string): string {
  return message.replace(/ ?\[D-\w+\]/g, '')
}

/** Why something failed, for people; with a way on where the error knows one. Whole lines. */
export function errorText(thrown: unknown): string {
  const hint = thrown instanceof AccessError ? thrown.hint : undefined
  return `pgusher: ${reasonOf(thrown)}\n${hint === undefined ? '' : `  hint: ${printable(hint)}\n`}`
}

export function reasonOf(thrown: unknown): string {
  return printable(thrown instanceof Error ? thrown.message : String(thrown))
}

const MAX_CLAIMS = 40

interface ClaimRow {
  claim: string
  own: string
  /** Empty where the server did not say that it wants anything of it. */
  wanted: string
}

/** As the server's DETAIL has it: `claim ref: wanted "refs/heads/main", got "refs/heads/fix-1"`. */
const WANTED = /^claim (\S+): (wanted|refused) (.+), got (.+)$/
/** `claim ref: "refs/heads/fix-1"`: the token's own, which are shown from the token. */
const OWN = /^(?:claim \S+: .*|this job's token has:)$/
/** What follows may be in the table, and MESSAGE names the rule. */
const HEADING = /^rule ".*":$/

function readDetail(refusal: Refusal, identity: OwnIdentity | undefined): { rows: ClaimRow[]; others: string[] } {
  const rows: ClaimRow[] = []
  const lines: string[] = []
  for (const line of (refusal.detail ?? '').split('\n')) {
    const [, claim, verb, wanted = '', got = ''] = WANTED.exec(line) ?? []
    if (claim !== undefined) {
      const own = identity?.claims.get(claim) ?? printable(got)
      rows.push({ claim: printable(claim), own, wanted: printable(verb === 'refused' ? `not ${wanted}` : wanted) })
    } else if (line !== '' && !(identity !== undefined && OWN.test(line))) lines.push(line)
  }
  const others = lines.filter((line, at) => !HEADING.test(line) || !HEADING.test(lines[at + 1] ?? line))
  // An unknown database or a full pgusher has nothing to do with who the job is.
  if (rows.length === 0 && !/^(?:28|42501)/.test(refusal.sqlstate)) return { rows, others }
  const asked = new Set(rows.map(({ claim }) => claim))
  for (const [claim, own] of identity?.claims ?? []) {
    if (!asked.has(claim) && rows.length < MAX_CLAIMS) rows.push({ claim, own, wanted: '' })
  }
  return { rows, others }
}

/** Several lines for a terminal or a CI log, each ending in a line feed. */
export function refusalText(refusal: Refusal, context: RefusalContext): string {
  const { rows, others } = readDetail(refusal, context.identity)
  const lines = [
    `pgusher: refused: role ${printable(context.user)} on database ${printable(context.database)} (SQLSTATE ${printable(refusal.sqlstate)})`,
    `  ${printable(refusal.message)}`,
    ...others.map((line) => `  ${printable(line)}`),
    ...(refusal.hint === undefined ? [] : [`  hint: ${printable(refusal.hint)}`]),
    ...claimTable(rows).map((line) => `  ${line}`),
  ]
  return `${lines.join('\n')}\n`
}

function claimTable(rows: readonly ClaimRow[]): string[] {
  if (rows.length === 0) return []
  const wanted = rows.some((row) => row.wanted !== '')
  const table = [{ claim: 'claim', own: "this job's token", wanted: wanted ? 'wanted' : '' }, ...rows]
  const width = (column: 'claim' | 'own'): number => Math.min(60, Math.max(...table.map((row) => row[column].length)))
  const [first, second] = [width('claim'), width('own')]
  return table.map((row) => `${row.claim.padEnd(first)}  ${row.own.padEnd(second)}  ${row.wanted}`.trimEnd())
}

/** For a job's summary page. */
export function refusalMarkdown(refusal: Refusal, context: RefusalContext): string {
  const { rows, others } = readDetail(refusal, context.identity)
  const code = (text: string): string => (text === '' ? '' : `<code>${escapeMarkdown(text)}</code>`)
  const table = rows.map(({ claim, own, wanted }) => `| ${code(claim)} | ${code(own)} | ${code(wanted)} |`)
  return [
    `### No access by pgusher: role ${code(context.user)} on database ${code(context.database)}`,
    `> ${escapeMarkdown(refusal.message)}`,
    ...others.map((line) => `> ${escapeMarkdown(line)}`),
    ...(refusal.hint === undefined ? [] : [`**Next step:** ${escapeMarkdown(refusal.hint)}`]),
    ...(table.length === 0
      ? []
      : [['| claim | this job’s token | wanted |', '| --- | --- | --- |', ...table].join('\n')]),
    `SQLSTATE ${code(refusal.sqlstate)}`,
    '',
  ].join('\n\n')
}

/** Claims come from whoever can push a branch: whatever Markdown or HTML could take for its own becomes a character reference. */
function escapeMarkdown(text: string): string {
  return printable(text).replace(/[^\p{L}\p{N} .,:;/"-]/gu, (one) => `&#${one.codePointAt(0)};`)
}
