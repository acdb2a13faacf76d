/** The audit log as the demo reads it: with its own eyes, as any reader would. */
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Screen } from './screen.ts'

/** The fields of the audit schema that the demo shows. */
export interface AuditLine {
  event: string
  time: string
  pgusher: {
    outcome: string
    actor?: string
    idp?: { provider?: string }
    db?: { role?: string; login?: string }
    decision?: { code?: string; id?: string }
    credential?: { login?: string; reason?: string }
    query?: { class?: string }
    duration_s?: number
    totals?: { statements: number; errors: number }
  }
  cicd?: { pipeline?: { name?: string; run?: { id?: string } } }
  vcs?: { ref?: { head?: { name?: string } } }
  security_rule?: { name?: string }
  db?: { query?: { text?: string; summary?: string }; response?: { status_code?: string; returned_rows?: number } }
}

/** Complete lines only: the last one may still be on its way. */
export async function readAudit(file: string): Promise<AuditLine[]> {
  const lines = (await readFile(file, 'utf8')).split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as AuditLine)
}

/** Resolves with the log as soon as it `satisfies`. @throws Error after `timeout` ms */
export async function auditWith(
  file: string,
  satisfies: (lines: readonly AuditLine[]) => boolean,
  timeout = 10_000,
): Promise<AuditLine[]> {
  const deadline = Date.now() + timeout
  for (;;) {
    const lines = await readAudit(file)
    if (satisfies(lines)) return lines
    if (Date.now() > deadline) throw new Error(`the audit log ${file} does not have the events of the story`)
    await delay(20)
  }
}

const COLOURS = { success: 'green', denied: 'red', failure: 'yellow' } as const

/** One line of the terminal for one line of the log: when, what, which run, and the gist. */
export function showAudit(screen: Screen, line: AuditLine): void {
  const { event, time, pgusher, cicd } = line
  const colour = COLOURS[pgusher.outcome as keyof typeof COLOURS] ?? 'yellow'
  const job = `${pgusher.idp?.provider ?? ''} ${cicd?.pipeline?.run?.id ?? ''}`
  const { paint } = screen
  screen.line(
    `   ${paint('dim', time.slice(11, 23))} ${paint(colour, event.padEnd(18))} ${paint('cyan', job.padEnd(26))} ${gist(line)}`,
  )
}

function gist({ event, pgusher, db, security_rule, vcs }: AuditLine): string {
  const { query, duration_s: seconds, decision, totals, credential } = pgusher
  switch (event) {
    case 'session.started':
      return `${security_rule?.name} lets ${pgusher.actor ?? 'it'} in as ${pgusher.db?.role}`
    case 'session.denied':
      return `${decision?.code} ${decision?.id}, ref ${vcs?.ref?.head?.name}`
    case 'statement': {
      const sqlstate = db?.response?.status_code
      const outcome = sqlstate === undefined ? `${((seconds ?? 0) * 1000).toFixed(1)} ms` : `SQLSTATE ${sqlstate}`
      return `${query?.class ?? ''} ${db?.query?.summary ?? ''}, ${outcome}`
    }
    case 'session.ended':
      return `${totals?.statements} statements, ${totals?.errors} errors`
    default:
      return credential?.login ?? ''
  }
}
