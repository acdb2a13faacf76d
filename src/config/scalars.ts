/** Scalars of the configuration file that zod does not know. */
import { z } from 'zod'

const DURATION_UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZE_UNITS: Record<string, number> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

/** `30s`, `15m`, `1.5h`, `0`; milliseconds out. */
export const duration = z
  .string()
  .regex(/^(0|\d+(\.\d+)?(ms|s|m|h|d))$/, 'a duration such as 30s, 15m or 2h')
  .transform((text) => {
    const [, number, unit] = /^([\d.]+)([a-z]*)$/.exec(text) ?? []
    return Math.round(Number(number) * (DURATION_UNITS[unit ?? ''] ?? 1))
  })

/** `64KiB`, `256MiB`; bytes out. */
export const size = z
  .string()
  .regex(/^\d+(B|KiB|MiB|GiB)$/, 'a size such as 64KiB or 256MiB')
  .transform((text) => {
    const [, number, unit] = /^(\d+)(\D+)$/.exec(text) ?? []
    return Number(number) * (SIZE_UNITS[unit ?? ''] ?? 1)
  })

export type ListenAddress = { kind: 'tcp'; host: string; port: number } | { kind: 'unix'; path: string }

/** `0.0.0.0:6432`, `[::1]:6432`, `unix:/run/pgusher/.s.PGSQL.6432`. */
export const hostPort = z
  .string()
  .regex(/^(unix:\/.+|\[[0-9a-fA-F:.]+\]:\d{1,5}|[A-Za-z0-9.-]+:\d{1,5})$/, 'host:port, [ipv6]:port or unix:/path')
  .transform((text): ListenAddress => {
    if (text.startsWith('unix:')) return { kind: 'unix', path: text.slice('unix:'.length) }
    const colon = text.lastIndexOf(':')
    return { kind: 'tcp', host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) }
  })

/** A PostgreSQL identifier as data: 1 to 63 bytes of UTF-8 (NAMEDATALEN - 1), no NUL. Longer ones are refused, not cut. */
export const objectName = z
  .string()
  .min(1)
  .refine((name) => Buffer.byteLength(name) <= 63, 'a PostgreSQL name has at most 63 bytes')
  .refine((name) => !name.includes('\0'), 'a PostgreSQL name holds no NUL')
