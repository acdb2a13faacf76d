/** What stands between a job and PostgreSQL, and how a job reaches it. */
import type { Stage } from '../stage.ts'

/** `tls`: from the client; `both`: toward PostgreSQL as well. */
export const VARIANTS = ['plain', 'tls', 'both'] as const
export type Variant = (typeof VARIANTS)[number]

/** What a client connects with, always to 127.0.0.1. */
export interface Address {
  port: number
  user: string
  password: string
  database: string
  tls: boolean
}

export interface Contestant {
  /** Whose CPU time and memory count, with their children; empty for no proxy at all. */
  pids: readonly number[]
  version: string
  /** Made anew for each run, since tokens are short-lived. @param job another number is another job; job 0 without it */
  address(variant: Variant, job?: number): Promise<Address>
  /** Audit events recorded so far; absent where there are none. */
  events?(): Promise<number>
  /** Minted credentials that are not taken back yet; absent where there are none. */
  credentials?(): Promise<number>
  stop(): Promise<void>
}

/** @returns why it takes no part, for one that is not installed */
export type Start = (stage: Stage) => Promise<Contestant | string>
