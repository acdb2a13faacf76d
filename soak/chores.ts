/** What an operator and the world do meanwhile: reloads, good and broken, keys that change, statements that crash the SQL parser, workers that are killed. */
import { readFile, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { query, rawSession, terminate } from '../test/support/raw-client.ts'
import { eventually } from '../test/support/shop.ts'
import type { Standalone } from '../test/support/standalone.ts'

/** Milliseconds. */
const EVERY = { reload: 20_000, rotation: 60_000, crash: 15_000, kill: 45_000 }
/** PostgreSQL refuses it by its depth (54001); the parser's worker dies of it. The number stands in front, since the record is cut at 64 KiB. */
const CRASHING = `select ${'1+'.repeat(50_000)}1`

export interface Chores {
  counts: { reloads: number; refusedReloads: number; rotations: number; crashes: number; killed: number }
  violations: string[]
  stop(): Promise<void>
}

/** Processes of `serve --workers`. */
async function workersOf({ pid }: Standalone): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return text.trim().split(/\s+/).filter(Boolean).map(Number)
}

/** @param withWorkers one of them is killed now and then */
export function startChores(stage: Standalone, tag: () => string, withWorkers: boolean): Chores {
  const counts = { reloads: 0, refusedReloads: 0, rotations: 0, crashes: 0, killed: 0 }
  const violations: string[] = []
  const stopping = new AbortController()

  async function regularly(milliseconds: number, work: (round: number) => Promise<unknown>): Promise<void> {
    for (let round = 1; ; round++) {
      await delay(milliseconds, undefined, { signal: stopping.signal }).catch(() => {})
      if (stopping.signal.aborted) return
      await work(round).catch((error: unknown) => void violations.push(`a chore failed: ${error}`))
    }
  }
  async function reload(round: number): Promise<void> {
    if (round % 3 !== 0) {
      if (await stage.reload()) counts.reloads++
      else violations.push('a good configuration was refused')
      return
    }
    const good = await readFile(stage.configFile, 'utf8')
    await writeFile(stage.configFile, good.slice(0, good.length / 2))
    if (await stage.pgusher.reload()) violations.push('half a configuration was taken')
    else counts.refusedReloads++
    await writeFile(stage.configFile, good)
  }
  async function rotate(): Promise<void> {
    await stage.issuer.rotateKeys('github')
    counts.rotations++
  }
  async function crash(): Promise<void> {
    const client = await rawSession(stage, { token: await stage.issuer.token('gitlab'), user: 'shop_reader' })
    const answer = await client.ask(query(`${tag()} ${CRASHING}`))
    if (!answer.some((text) => text.startsWith('E 54001') || text.startsWith('C ')))
      violations.push(`the crashing statement: ${answer}`)
    client.send(terminate)
    await client.rest()
    counts.crashes++
  }
  async function kill(round: number): Promise<void> {
    const workers = await workersOf(stage)
    process.kill(workers[round % workers.length]!, 'SIGKILL')
    counts.killed++
    // Another takes its place.
    await eventually(async () => (await workersOf(stage)).length === workers.length, 15_000)
  }
  const all = [regularly(EVERY.reload, reload), regularly(EVERY.rotation, rotate), regularly(EVERY.crash, crash)]
  if (withWorkers) all.push(regularly(EVERY.kill, kill))
  return {
    counts,
    violations,
    async stop() {
      stopping.abort()
      await Promise.all(all)
    },
  }
}
