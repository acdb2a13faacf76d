/** What a provider's documentation shows of its tokens, as data, with the least that a rule for them names. */
import type { JobFields } from '../../../src/identity/principal.ts'

export interface Sample {
  /** Which of a provider's editions, where it has several. */
  edition?: string
  /** An entry of `issuers`. */
  issuer: { preset: string; audience: string } & Readonly<Record<string, unknown>>
  match: Readonly<Record<string, unknown>>
  /** The whole payload. */
  claims: Readonly<Record<string, unknown>>
  /** What pgusher reads out of it, all of it. */
  job: JobFields
}

export const AUDIENCE = 'https://pgusher.acme.example'
export const COMMIT = '4f1c8f0b7a0d0c3f2a9be1d6c5e4f3a2b1c0d9e8'
