/** Scalars of the configuration file that zod does not know. */
import { z } from 'zod'

const DURATION_UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZE_UNITS: Record<string, number> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

const DURATION = 'a duration such as 30s, 15m or 2h'

/** `30s`, `15m`, `1.5h`, `0`; milliseconds out. */
export const duration = z
  .string(DURATION)
  .regex(/^(0|\d{1,9}(\.\d{1,6})?(ms|s|m|h|d))$/, DURATION)
  .transform((text) => {
    const [, number, unit] = /^([\d.]+)([a-z]*)$/.exec(text) ?? []
    return Math.round(Number(number) * (DURATION_UNITS[unit ?? ''] ?? 1))
  })

/** As the file would say it, in the largest unit without a fraction: `30s`, `90m`. @param milliseconds whole, and not negative */
export function durationText(milliseconds: number): string {
  const [unit, length] = Object.entries(DURATION_UNITS).findLast(([, one]) => milliseconds % one === 0) ?? ['ms', 1]
  return milliseconds === 0 ? '0s' : `${milliseconds / length}${unit}`
}

/** The largest delay that a timer of Node takes is 2^31 - 1 ms, 24.8 days; a longer one would fire at once. */
const MAX_TIMER = 2 ** 31 - 1

/** A duration that a timer waits for: more than nothing, and no longer than a timer can wait. */
export const timerDuration = duration
  .refine((ms) => ms > 0, 'must be longer than nothing')
  .refine((ms) => ms <= MAX_TIMER, 'must be at most 24d')

const SIZE = 'a size such as 64KiB or 256MiB'

/** `64KiB`, `256MiB`; bytes out. */
export const size = z
  .string(SIZE)
  .regex(/^\d{1,9}(B|KiB|MiB|GiB)$/, SIZE)
  .transform((text) => {
    const [, number, unit] = /^(\d+)(\D+)$/.exec(text) ?? []
    return Number(number) * (SIZE_UNITS[unit ?? ''] ?? 1)
  })

export type ListenAddress = { kind: 'tcp'; host: string; port: number } | { kind: 'unix'; path: string }

const HOST_PORT = 'host:port, [ipv6]:port or unix:/path'

/** `0.0.0.0:6432`, `[::1]:6432`, `unix:/run/pgusher/.s.PGSQL.6432`. */
export const hostPort = z
  .string(HOST_PORT)
  .regex(/^(unix:\/.+|\[[0-9a-fA-F:.]+\]:\d{1,5}|[A-Za-z0-9.-]+:\d{1,5})$/, HOST_PORT)
  .transform((text): ListenAddress => {
    if (text.startsWith('unix:')) return { kind: 'unix', path: text.slice('unix:'.length) }
    const colon = text.lastIndexOf(':')
    return { kind: 'tcp', host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) }
  })
  .refine((address) => address.kind === 'unix' || address.port <= 65_535, 'a port is at most 65535')

/** A PostgreSQL identifier as data: 1 to 63 bytes of UTF-8 (NAMEDATALEN - 1), no NUL. Longer ones are refused, not cut. */
export const objectName = z
  .string()
  .min(1)
  .refine((name) => Buffer.byteLength(name) <= 63, 'a PostgreSQL name has at most 63 bytes')
  .refine((name) => !name.includes('\0'), 'a PostgreSQL name holds no NUL')

/** An address that only this machine reaches. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host)
}
