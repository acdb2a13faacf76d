/**
 * A real pgusher between hostile clients and a hostile PostgreSQL: damaged handshakes, logins, sessions and HTTP on its TLS port,
 * and a real server whose answers are damaged on the way. Afterwards nothing may be left of it, and the process must have kept its pace.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { availableParallelism, loadavg } from 'node:os'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { cancelRequest, passwordMessage, sslRequest } from '../src/wire/frontend.ts'
import { readMetrics, total } from '../test/support/nothing-left.ts'
import { approach, rawSession, startupOf } from '../test/support/raw-client.ts'
import { type Standalone, startStandalone } from '../test/support/standalone.ts'
import { flipBytes, mutateFrames, mutateText, slices } from './mutate.ts'
import type { Budget, Outcome } from './part.ts'
import { createRandom, type Random } from './random.ts'
import { RECORDED } from './recordings.ts'

const MiB = 1024 * 1024
const CONCURRENCY = 12
/** Milliseconds that a hostile client stays for an answer. */
const PATIENCE = 300
/** Characters of the log, where pgusher has ended. */
const LAST_WORDS = 3_000
/** Milliseconds that the histogram shows on a quiet machine: its resolution. */
const IDLE = 11
const MAX_GROWTH = 200 * MiB

/** Prints its own p99 in milliseconds when its standard input ends; the same resolution as prom-client's. */
const CONTROL = `
const { monitorEventLoopDelay } = require('node:perf_hooks')
const delay = monitorEventLoopDelay({ resolution: 10 })
delay.enable()
setInterval(() => {}, 5)
process.stdin.resume().on('end', () => { console.log(delay.percentile(99) / 1e6); process.exit() })`

type Attack = (stage: Standalone, random: Random, token: string) => Promise<Socket>

const ALL_UP = RECORDED.flatMap(({ session }) => session.up)

function send(socket: Socket, random: Random, bytes: Buffer): void {
  socket.on('error', () => {})
  for (const piece of bytes.length < 2_000 ? slices(random, bytes) : [bytes]) if (socket.writable) socket.write(piece)
}

async function dialled({ port }: Standalone): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' }).on('error', () => {})
  await Promise.race([once(socket, 'connect'), once(socket, 'close')])
  return socket
}

async function direct({ port, ca }: Standalone, protocols: string[]): Promise<TLSSocket> {
  const socket = connectTls({ port, host: '127.0.0.1', ca, servername: 'localhost', ALPNProtocols: protocols })
  socket.on('error', () => {})
  await Promise.race([once(socket, 'secureConnect'), once(socket, 'close')])
  return socket
}

const HTTP = [
  'POST /v1/token HTTP/1.1\r\nHost: pgusher:6432\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\nContent-Length: 52\r\n\r\n{"database":"shop-prod","user":"shop_migrator","x":1}',
  'DELETE /v1/token HTTP/1.1\r\nHost: pgusher:6432\r\nAuthorization: Bearer TOKEN\r\n\r\n',
  'GET /v1/audience HTTP/1.1\r\nHost: pgusher:6432\r\n\r\n',
  'POST /v1/whoami HTTP/1.1\r\nHost: pgusher:6432\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
]
const HTTP_WORDS = [
  '\r\n',
  'Content-Length: 9',
  'Transfer-Encoding: chunked\r\n',
  'Expect: 100-continue\r\n',
  'Upgrade: x\r\n',
  '/v1/',
  '%00',
]

const ATTACKS: Readonly<Record<string, Attack>> = {
  async noise(stage, random) {
    const socket = await dialled(stage)
    const begin = random.pick([
      sslRequest(),
      cancelRequest(random.below(99), random.bytes(4)),
      Buffer.from([0x16, 3, 1]),
    ])
    send(
      socket,
      random,
      Buffer.concat([random.chance(0.5) ? begin : flipBytes(random, begin), random.bytes(random.below(300))]),
    )
    return socket
  },
  async login(stage, random, token) {
    const client = await approach(stage, random.pick(['request', 'direct']))
    const messages = [startupOf({ token }), passwordMessage(token), ...random.pick(RECORDED).session.up.slice(0, 5)]
    const damaged = messages.map((message) => (random.chance(0.4) ? flipBytes(random, message, 8) : message))
    send(client.socket, random, Buffer.concat(damaged))
    return client.socket
  },
  async session(stage, random, token) {
    const client = await rawSession(stage, { token })
    const { up } = random.pick(RECORDED).session
    send(client.socket, random, Buffer.concat(mutateFrames(random, up, ALL_UP)))
    return client.socket
  },
  async http(stage, random, token) {
    const socket = await direct(stage, random.pick([['http/1.1'], ['http/1.1', 'postgresql'], ['h2'], []]).slice())
    const request = random.pick(HTTP).replace('TOKEN', random.chance(0.5) ? token : 'x.y.z')
    send(socket, random, Buffer.from(random.chance(0.8) ? mutateText(random, request, HTTP_WORDS) : request, 'latin1'))
    return socket
  },
  /** The answers are damaged behind pgusher's back; the client is an honest one. */
  async upstream(stage, random, token) {
    const client = await rawSession(stage, { token, database: 'warehouse' })
    const frames = random.pick(RECORDED).session.up
    client.send(...frames)
    return client.socket
  },
}

/** The path to the database `warehouse`: what PostgreSQL answers is damaged now and then, as long as `hostile`. */
async function startDamagedPath(port: number, random: Random): Promise<{ port: number; heal(): void; close(): void }> {
  let hostile = false
  const links = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1')
    for (const socket of [client, upstream]) {
      links.add(socket)
      socket
        .on('error', () => {})
        .on('close', () => {
          links.delete(socket)
          client.destroy()
          upstream.destroy()
        })
    }
    client.pipe(upstream)
    upstream.on('data', (chunk: Buffer) => {
      const damaged = hostile && random.chance(0.1)
      const cut = damaged && random.chance(0.2) ? chunk.subarray(0, random.below(chunk.length)) : chunk
      client.write(damaged ? flipBytes(random, cut) : cut)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const timer = setInterval(() => {
    hostile = !hostile
  }, 50)
  return {
    port: (server.address() as AddressInfo).port,
    heal() {
      clearInterval(timer)
      hostile = false
      for (const socket of links) socket.destroy()
    },
    close: () => server.close(),
  }
}

async function over(socket: Socket): Promise<void> {
  socket.resume()
  if (socket.destroyed) return
  let timer: NodeJS.Timeout | undefined
  await Promise.race([
    once(socket, 'close').catch(() => {}),
    new Promise<void>((late) => {
      timer = setTimeout(late, PATIENCE)
    }),
  ])
  clearTimeout(timer)
  socket.destroy()
}

async function resident(pid: number): Promise<number> {
  return Number(/VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}

async function attack(stage: Standalone, budget: Budget, outcome: Outcome): Promise<void> {
  const token = await stage.issuer.token('github', {}, { lifeSeconds: 300 })
  const kinds = Object.entries(ATTACKS)
  let next = 0
  const worker = async (): Promise<void> => {
    while (performance.now() < budget.deadline && outcome.cases < budget.count / 100) {
      const random = createRandom(budget.seed, 4711, next++)
      const [name, run] = random.pick(kinds)
      outcome.figures[name] = (outcome.figures[name] ?? 0) + 1
      outcome.cases++
      // A refusal is an answer.
      const socket = await run(stage, random, token).catch(() => undefined)
      if (socket !== undefined) await over(socket)
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, worker))
}

/** What a process that has nothing to do sees of the same machine: it tells a slow pgusher from a busy machine. */
function startControl(): () => Promise<number> {
  const child = spawn(process.execPath, ['-e', CONTROL], { stdio: ['pipe', 'pipe', 'inherit'] })
  return async () => {
    const told = once(child.stdout, 'data')
    child.stdin.end()
    return Number(String((await told)[0]))
  }
}

/** What the process says of itself, and what is left of all of them. */
async function judge(stage: Standalone, outcome: Outcome, before: number, control: number): Promise<void> {
  const samples = await readMetrics(stage.httpAddress)
  const delay = (samples.get('nodejs_eventloop_lag_p99_seconds') ?? Number.NaN) * 1_000
  // Where others take the cores, everybody is late, and one who works more so than one who is idle: told, and not judged.
  const busy = (loadavg()[0] ?? 0) > 1.5 * availableParallelism()
  outcome.p99 = busy && Number.isFinite(delay) ? 0 : Math.max(0, delay - Math.max(0, control - IDLE))
  if (busy) outcome.figures['busy machine, load'] = Math.round(loadavg()[0] ?? 0)
  const growth = (await resident(stage.pid)) - before
  Object.assign(outcome.figures, {
    'loop delay p99 ms': Math.round(delay),
    'the same of an idle process': Math.round(control),
    'MiB grown': Math.round(growth / MiB),
    connections: total(samples, 'pgusher_connections_total'),
    events: total(samples, 'pgusher_audit_events_total'),
  })
  if (growth > MAX_GROWTH) outcome.violations.push(`live: resident memory grew by ${Math.round(growth / MiB)} MiB`)
  outcome.violations.push(...(await unexpected(stage)).map((line) => `live: ${line}`))
  outcome.violations.push(...(await stage.left(30_000)).map((left) => `live: left: ${left}`))
}

/** Log lines that tell of a fault of pgusher's own. */
async function unexpected({ logFile }: Standalone): Promise<string[]> {
  const lines = (await readFile(logFile, 'utf8')).split('\n').filter((line) => line.startsWith('{'))
  const wrong = lines.filter((line) => {
    const { code, msg } = JSON.parse(line) as { code?: string; msg: string }
    return code === 'internal_error' || msg.includes('in an unexpected way')
  })
  return wrong.slice(0, 5)
}

export async function fuzzLive(budget: Budget): Promise<Outcome> {
  const outcome: Outcome = { part: 'live', cases: 0, figures: {}, p99: Number.NaN, violations: [] }
  const time = budget.deadline - performance.now()
  let damagedPort = 0
  await using stage = await startStandalone({
    config: (config) => {
      const warehouse = config.databases['warehouse']!
      const databases =
        damagedPort === 0 ? config.databases : { ...config.databases, warehouse: { ...warehouse, port: damagedPort } }
      const tickets = { key: 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=' }
      return { ...config, databases, tickets, listen: { ...config.listen, handshake_timeout: '2s' } }
    },
  })
  const path = await startDamagedPath(stage.server.port, createRandom(budget.seed, 815))
  damagedPort = path.port
  await stage.reload()
  // Reading resets the histogram of delays.
  await readMetrics(stage.httpAddress)
  const before = await resident(stage.pid)
  const control = startControl()
  await attack(stage, { ...budget, deadline: performance.now() + time }, outcome)
  const idleDelay = await control()
  path.heal()
  if (stage.pgusher.child?.exitCode !== null) {
    const lastWords = (await readFile(stage.logFile, 'utf8')).slice(-LAST_WORDS)
    outcome.violations.push(`live: pgusher has ended:\n${lastWords}`)
  } else await judge(stage, outcome, before, idleDelay)
  path.close()
  return outcome
}
