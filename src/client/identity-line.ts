/** Who this job is for pgusher, in one line. */
import { printable } from '../config/quote.ts'
import type { OwnIdentity } from './claims.ts'
import { hostAndPort, type ServerAddress } from './server-address.ts'

export interface IdentityLine {
  /** For people: `GitHub Actions`. */
  provider: string
  identity: OwnIdentity | undefined
  database: string
  user: string
  server: ServerAddress
}

/** `GitHub Actions, repository acme/shop, ref refs/heads/main, role shop_migrator, database shop-prod at …` */
export function identityLine({ provider, identity, database, user, server }: IdentityLine): string {
  const { repositoryUrl, pipelineName, ref } = identity?.job ?? {}
  const claim = (name: string): string | undefined => identity?.claims.get(name)
  const repository = claim('repository') ?? claim('project_path') ?? repositoryUrl
  const parts: (readonly [string, string | undefined])[] = [['repository', repository]]
  if (repository === undefined)
    parts.push(pipelineName === undefined ? ['subject', claim('sub')] : ['pipeline', pipelineName])
  parts.push(['ref', ref ?? claim('ref')], ['role', user], ['database', database])
  const told = parts.flatMap(([word, value]) => (value === undefined ? [] : [`${word} ${printable(value)}`]))
  return [printable(provider), ...told].join(', ').concat(` at ${hostAndPort(server)}`)
}

/** `14:03:20 UTC`, with the day where it is not today's. */
export function clockTime(at: number, now: number = Date.now()): string {
  const [day, time] = new Date(at).toISOString().slice(0, 19).split('T')
  const today = new Date(now).toISOString().slice(0, 10)
  return day === today ? `${time} UTC` : `${day} ${time} UTC`
}
