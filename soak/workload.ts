/** Jobs that come and go, and what they do: everything that a session can do, each statement with a number in a comment. */
import { setTimeout as delay } from 'node:timers/promises'
import { createRandom, type Random } from '../fuzz/random.ts'
import { cancelRequest } from '../src/wire/frontend.ts'
import {
  bind,
  close,
  copyData,
  copyDone,
  copyFail,
  dial,
  execute,
  parse,
  query,
  type RawClient,
  rawSession,
  run,
  sync,
  terminate,
} from '../test/support/raw-client.ts'
import type { Standalone } from '../test/support/standalone.ts'

export interface Tally {
  sessions: number
  statements: number
  cancelled: number
  /** By SQLSTATE: connections that were refused. */
  refused: Record<string, number>
  /** What must not have happened, in words. */
  violations: string[]
}

export interface Workload {
  readonly tally: Tally
  /** A number that no other statement has. */
  tag(): string
  stop(): Promise<void>
}

/** Milliseconds between two things that a job does. */
const PAUSE = 30
const JOBS = 6

type Work = (client: RawClient, tag: () => string, stage: Standalone) => Promise<unknown>

/** Statements of a session that ended in an error have to be answered, too: each work reads up to its last ReadyForQuery. */
const WORKS: Readonly<Record<string, Work>> = {
  simple: (client, tag) => client.ask(query(`select 1 ${tag()}`)),
  rows: (client, tag) => client.ask(query(`select generate_series(1, 200) ${tag()}`)),
  several: (client, tag) => client.ask(query(`select 1 ${tag()}; select 2 ${tag()}`)),
  failing: (client, tag) => client.ask(query(`select 1/0 ${tag()}`)),
  extended: (client, tag) => client.ask(run(`select $1 ${tag()}`, ['text']), sync),
  prepared: async (client, tag) => {
    await client.ask(parse('s', `select 1 ${tag()}`), sync)
    await client.ask(bind('', 's'), execute(''), close('S', 's'), sync)
  },
  pipelined: (client, tag) =>
    client.ask(run(`select 1 ${tag()}`), run(`select 2 ${tag()}`), run(`select 1/0 ${tag()}`), sync),
  async transaction(client, tag) {
    await client.ask(query(`begin ${tag()}`))
    await client.ask(query(`create temp table if not exists t (a text) ${tag()}`))
    await client.ask(query(`rollback ${tag()}`))
  },
  async copyIn(client, tag) {
    await client.ask(query(`create temp table if not exists t (a text) ${tag()}`))
    client.send(query(`copy t from stdin ${tag()}`))
    await client.until('G')
    await client.ask(copyData('one\ntwo\n'), copyDone)
    client.send(query(`copy t from stdin ${tag()}`))
    await client.until('G')
    await client.ask(copyFail('enough'))
  },
  copyOut: (client, tag) => client.ask(query(`copy (select generate_series(1, 500)) to stdout ${tag()}`)),
  async cancelled(client, tag, stage) {
    client.send(query(`select pg_sleep(2) ${tag()}`))
    await delay(30)
    const canceller = await dial(stage)
    canceller.end(cancelRequest(client.key.processId, client.key.secret))
    await client.until('Z')
  },
}

const LEAVINGS: Readonly<Record<string, (client: RawClient, tag: () => string) => Promise<unknown>>> = {
  async terminate(client) {
    client.send(terminate)
    await client.rest()
  },
  reset: async (client) => client.reset(),
  async resetInStatement(client, tag) {
    client.send(query(`select pg_sleep(0.5) ${tag()}`))
    client.reset()
  },
  async finish(client) {
    client.finish()
    await client.rest()
  },
}

async function connect(stage: Standalone, random: Random, tally: Tally): Promise<RawClient | undefined> {
  const job = random.below(JOBS)
  const reader = job === 0
  const token = await (reader
    ? stage.issuer.token('gitlab')
    : stage.issuer.token('github', { run_id: String(900 + job) }))
  const user = reader ? 'shop_reader' : 'shop_migrator'
  const database = reader || random.chance(0.7) ? 'shop-prod' : 'warehouse'
  return rawSession(stage, { token, user, database }).catch((error: Error) => {
    const code = /^E (\w{5})/.exec(error.message)?.[1] ?? error.message
    tally.refused[code] = (tally.refused[code] ?? 0) + 1
    return undefined
  })
}

/** `clients` jobs at a time, until `stop`. */
export function startWorkload(stage: Standalone, clients: number, seed: number): Workload {
  const tally: Tally = { sessions: 0, statements: 0, cancelled: 0, refused: {}, violations: [] }
  let going = true
  const tag = (): string => `/*${++tally.statements}*/`
  const works = Object.entries(WORKS)
  const leavings = Object.values(LEAVINGS)

  async function live(random: Random): Promise<void> {
    const client = await connect(stage, random, tally)
    if (client === undefined) return
    tally.sessions++
    try {
      for (let left = 1 + random.below(25); left > 0 && going; left--) {
        const [name, work] = random.pick(works)
        if (name === 'cancelled') tally.cancelled++
        await work(client, tag, stage)
        await delay(random.below(PAUSE * 2))
      }
      await random.pick(leavings)(client, tag)
    } finally {
      client.socket.destroy()
    }
  }
  async function comeAndGo(index: number): Promise<void> {
    for (let round = 0; going; round++) {
      await live(createRandom(seed, index, round)).catch(
        (error: unknown) => void tally.violations.push(`a session broke: ${error}`),
      )
      await delay(PAUSE)
    }
  }
  const all = Array.from({ length: clients }, (_, index) => comeAndGo(index))
  return {
    tally,
    tag,
    async stop() {
      going = false
      await Promise.all(all)
    },
  }
}
