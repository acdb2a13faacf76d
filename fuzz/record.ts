/** `node fuzz/record.ts`: records what pgusher and PostgreSQL say to each other in real sessions, both ways, for fuzz/recordings.json. */

import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { DatabaseInput } from '../test/support/pgusher-config.ts'
import {
  bind,
  close,
  copyData,
  copyDone,
  copyFail,
  describe,
  execute,
  flush,
  functionCall,
  parse,
  query,
  type RawClient,
  rawSession,
  run,
  sync,
  terminate,
} from '../test/support/raw-client.ts'
import { startStandalone } from '../test/support/standalone.ts'

type Work = (client: RawClient) => Promise<unknown>

const SESSIONS: Readonly<Record<string, Work>> = {
  simple: async (client) => {
    await client.ask(query('select 1; select 2, null; select generate_series(1, 30)'))
    await client.ask(query('begin; create temp table t (a int); insert into t values (1), (2); commit'))
    await client.ask(query('select 1/0; select 2'))
    await client.ask(query(''), query('-- nothing'))
    await client.ask(query("set client_encoding to 'LATIN1'"))
    await client.ask(query("do $$ begin raise notice 'hello'; end $$"))
  },
  extended: async (client) => {
    await client.ask(parse('s', 'select $1::int, $2', [23]), describe('S', 's'), sync)
    for (let n = 0; n < 20; n++) await client.ask(bind('', 's', [String(n), 'text']), execute(''), sync)
    await client.ask(bind('p', 's', ['7', null]), describe('P', 'p'), execute('p', 1), close('P', 'p'), sync)
    await client.ask(run('select generate_series(1, 10)'), close('S', 's'), sync)
    await client.ask(query('begin'))
    await client.ask(
      parse('g', 'select generate_series(1, 10)'),
      bind('g', 'g'),
      execute('g', 3),
      execute('g', 3),
      sync,
    )
    await client.ask(query('rollback'))
  },
  pipelined: async (client) => {
    await client.ask(...Array.from({ length: 30 }, (_, n) => run(`select ${n}`)), sync)
    client.send(run('select 1'), run('select 1/0'), run('select 3'), sync, run('select 4'), flush, sync)
    await client.until('Z', 2)
  },
  copying: async (client) => {
    client.send(query('create temp table c (a text); copy c from stdin'))
    await client.until('G')
    await client.ask(copyData('one\ntwo\n'), copyData('three\n'), copyDone)
    await client.ask(query('copy c to stdout'))
    client.send(query('copy c from stdin'))
    await client.until('G')
    await client.ask(copyFail('enough'))
    client.send(parse('', 'copy c from stdin'), bind('', ''), execute(''), flush)
    await client.until('G')
    await client.ask(copyData('four\n'), copyDone, sync)
  },
  listening: async (client) => {
    await client.ask(query('listen channel; notify channel, $$payload$$'))
    await client.ask(query("set application_name to 'another'"))
    await client.ask(functionCall(1598, []))
    await client.ask(query('select repeat($$x$$, 3000)'))
  },
}

interface Tap {
  up: Buffer[]
  down: Buffer[]
}

/** Notes each connection by itself. */
async function startTap(port: number): Promise<{ port: number; taps: Tap[]; close(): void }> {
  const taps: Tap[] = []
  const server = createServer((client: Socket) => {
    const upstream = connect(port, '127.0.0.1')
    const tap: Tap = { up: [], down: [] }
    taps.push(tap)
    client.on('error', () => upstream.destroy()).on('data', (chunk) => tap.up.push(chunk))
    upstream.on('error', () => client.destroy()).on('data', (chunk) => tap.down.push(chunk))
    client.pipe(upstream)
    upstream.pipe(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, taps, close: () => server.close() }
}

export interface Recording {
  name: string
  /** From the StartupMessage on. */
  up: string
  down: string
}

const recordings: Recording[] = []
let tapPort = 0
await using stage = await startStandalone({
  config: (config) => {
    const shop: DatabaseInput = config.databases['shop-prod']!
    const [first, ...others] = config.rules ?? []
    const allow = { ...first!.allow!, function_call: true }
    const databases = { ...config.databases, 'shop-prod': tapPort === 0 ? shop : { ...shop, port: tapPort } }
    return { ...config, databases, rules: [{ ...first!, allow }, ...others] }
  },
})
const tap = await startTap(stage.server.port)
tapPort = tap.port
await stage.reload()
for (const [name, work] of Object.entries(SESSIONS)) {
  const client = await rawSession(stage, { token: await stage.issuer.token('github') })
  await work(client)
  client.send(terminate)
  await client.rest()
  const { up, down } = tap.taps.findLast(({ up }) => Buffer.concat(up).includes('pgusher.job'))!
  recordings.push({ name, up: Buffer.concat(up).toString('base64'), down: Buffer.concat(down).toString('base64') })
}
await writeFile(new URL('recordings.json', import.meta.url), `${JSON.stringify(recordings, null, 1)}\n`)
console.log(recordings.map(({ name, up, down }) => `${name}: ${up.length} and ${down.length} characters`).join('\n'))
tap.close()
