/** Names of the logins that pgusher makes: `<prefix><8 of the job's hash>_<8 random>`, at most 34 of 63 bytes. */
import { createHash, randomBytes } from 'node:crypto'

/** Lower case, so that nobody needs quotes; without 0, 1, 8 and 9 as in RFC 4648's base32. */
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'
const LETTERS = 8

function letters(bytes: Buffer): string {
  return Array.from(bytes.subarray(0, LETTERS), (byte) => ALPHABET[byte % ALPHABET.length]).join('')
}

/** Logins of one job look alike in pg_stat_activity; 40 random bits keep them apart. */
export function loginName(prefix: string, jobKey: string): string {
  return `${prefix}${letters(createHash('sha256').update(jobKey).digest())}_${letters(randomBytes(LETTERS))}`
}

/** Two that use the alphabet's ends: what matches both by a pattern is taken to match all. */
export function extremeLoginNames(prefix: string): string[] {
  return [ALPHABET.charAt(0), ALPHABET.charAt(ALPHABET.length - 1)].map((letter) => {
    const eight = letter.repeat(LETTERS)
    return `${prefix}${eight}_${eight}`
  })
}

/** False for roles that merely begin with the prefix. True alone does not make a role ours: words have eight letters too. */
export function isLoginName(prefix: string, name: string): boolean {
  const rest = name.slice(prefix.length)
  return name.startsWith(prefix) && /^[a-z2-7]{8}_[a-z2-7]{8}$/.test(rest)
}

/** Short form of a process's boot id, in the comment of its roles and in the application_name of its admin's connections. */
export function bootTag(boot: string): string {
  return createHash('sha256').update(boot).digest('hex').slice(0, 16)
}

const APPLICATION = 'pgusher '

export function applicationName(tag: string): string {
  return `${APPLICATION}${tag}`
}

/** Inverse of `applicationName`; undefined for other names. */
export function tagOfApplication(name: string): string | undefined {
  return name.startsWith(APPLICATION) ? name.slice(APPLICATION.length) : undefined
}

const CARRIER = 't_'

/** Of the role that carries a ticket, which nobody logs in as: `<prefix>t_<24 hex digits>`. @param id in hex */
export function carrierName(prefix: string, id: string): string {
  return `${carrierPrefix(prefix)}${id}`
}

/** The ticket's id; undefined for every other name, such as a login's. */
export function ticketOfCarrier(prefix: string, name: string): string | undefined {
  const id = name.slice(carrierPrefix(prefix).length)
  return name.startsWith(carrierPrefix(prefix)) && /^[0-9a-f]{24}$/.test(id) ? id : undefined
}

/** What the names of carriers begin with, and the names of others may. */
export function carrierPrefix(prefix: string): string {
  return `${prefix}${CARRIER}`
}
