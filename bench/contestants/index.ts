/** All contestants, in the order of the tables. */
import type { Start } from './contestant.ts'
import { direct } from './direct.ts'
import { haproxy } from './haproxy.ts'
import { pgbouncer } from './pgbouncer.ts'
import { pgusher, pgusherCold } from './pgusher.ts'
import { relay } from './relay.ts'

export const NAMES = ['direct', 'pgbouncer', 'haproxy', 'pgusher', 'pgusher-cold', 'relay'] as const
export type Name = (typeof NAMES)[number]

export const CONTESTANTS: Readonly<Record<Name, Start>> = {
  direct,
  pgbouncer,
  haproxy,
  pgusher,
  'pgusher-cold': pgusherCold,
  relay,
}
