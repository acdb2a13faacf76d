/** Load-time findings about rules that give tickets where none can be given. */
import { quote } from '../config/quote.ts'
import type { RuleConfig } from '../config/schema.ts'
import type { Path } from '../config/yaml-source.ts'
import type { Report } from './report.ts'

export function checkTickets(report: Report, at: Path, { allow }: RuleConfig): void {
  const { config, isBroken } = report.loaded
  const place = [...at, 'allow', 'ticket_life']
  if (allow?.ticket_life === undefined || isBroken(place)) return
  if (config.tickets === undefined && !isBroken(['tickets'])) {
    report.warning(
      place,
      'no tickets are given: tickets.key is not configured',
      'set tickets.key, as `openssl rand -base64 32` prints one',
    )
  }
  for (const name of allow.database) {
    const database = Object.hasOwn(config.databases, name) ? config.databases[name] : undefined
    if (database?.credentials.kind !== 'client-certificate') continue
    report.warning(
      place,
      `database ${quote(name)} gives no tickets: they are kept in its catalog, and with client certificates pgusher writes nothing there`,
      'use credentials of kind ephemeral-role, or a rule without ticket_life for it',
    )
  }
}
