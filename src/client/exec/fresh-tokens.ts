/** A token for each connection, as fresh as the CI system gives it, without asking once for each of a pool's connections. */
import { AccessError, asAccessError } from '../../errors.ts'
import { expiryOf } from '../claims.ts'
import type { TokenSource } from '../token-source.ts'

/** Milliseconds that a token is used again at most, and the part of its life: the server shall see it with most of its life ahead. */
const REUSE = 60_000
const REUSE_SHARE = 0.25
/** A token that ends within this time, in milliseconds, is not worth sending. */
const LAST_MOMENT = 5_000

export interface Token {
  text: string
  /** Milliseconds since the epoch; undefined where it is none that can be read. */
  expiresAt: number | undefined
}

export interface FreshTokens {
  /** @throws AccessError of the source, where there is no token that still lives either */
  current(): Promise<Token>
}

export interface FreshTokensOptions {
  source: TokenSource
  audience: string
  signal: AbortSignal
  /** A fetch failed, and the last token still lives. */
  onStale(error: AccessError): void
  now?: () => number
}

export function createFreshTokens(options: FreshTokensOptions): FreshTokens {
  const { source, audience, signal, onStale, now = Date.now } = options
  let last: (Token & { reuseUntil: number }) | undefined
  let flight: Promise<Token> | undefined

  async function fetch(): Promise<Token> {
    const fetchedAt = now()
    try {
      const text = await source.fetch(audience, signal)
      const expiresAt = expiryOf(text)
      const reuse = expiresAt === undefined ? 0 : Math.min(REUSE, (expiresAt - fetchedAt) * REUSE_SHARE)
      last = { text, expiresAt, reuseUntil: source.refetchable ? fetchedAt + reuse : Number.POSITIVE_INFINITY }
      return last
    } catch (thrown) {
      if (last === undefined || (last.expiresAt ?? 0) < now() + LAST_MOMENT) throw asTokenError(thrown, source)
      onStale(asTokenError(thrown, source))
      return last
    }
  }

  return {
    async current() {
      if (last !== undefined && now() < last.reuseUntil) return last
      flight ??= fetch().finally(() => {
        flight = undefined
      })
      return await flight
    },
  }
}

/** Sources speak to the job's author already; what is not theirs is named with them. */
function asTokenError(thrown: unknown, source: TokenSource): AccessError {
  if (thrown instanceof AccessError || !(thrown instanceof Error)) return asAccessError(thrown)
  return new AccessError('token_missing', `no token from ${source.name}: ${thrown.message}`, { cause: thrown })
}
