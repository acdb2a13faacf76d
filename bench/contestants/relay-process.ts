/**
 * pgusher's relay without its audit: the same pumps, scanner and statement tracker, and records that go nowhere. What it costs less
 * than `serve` is what the audit costs. Clients log in at PostgreSQL themselves. Arguments: own port, PostgreSQL's.
 */
import { connect, createServer, type Socket } from 'node:net'
import { startRelay } from '../../src/session/relay.ts'

const [port, upstreamPort] = process.argv.slice(2).map(Number)

const UNREAD = { settled: false, parsed: false, statements: [], text: undefined, normalized: undefined, secret: false }
const NO_AUDIT = { statement: () => {}, prefetch: () => {}, event: () => {}, read: () => UNREAD }
const GRANT = {
  ...{
    rule: 'bench',
    ruleset: 'bench',
    policyVersion: '',
    database: 'bench',
    role: 'bench',
    textMode: 'full' as const,
  },
  ...{ maxSession: 3_600_000, maxConnections: 1_000, windowConnections: 1_000 },
  ...{ anyAddress: false, functionCall: false, replication: false },
}
const HEADER = 5
const READY_FOR_QUERY = 0x5a

/** Where the first ReadyForQuery ends; undefined while it is not whole. */
function endOfLogin(bytes: Buffer): number | undefined {
  for (let at = 0; at + HEADER <= bytes.length; ) {
    const end = at + 1 + bytes.readInt32BE(at + 1)
    if (bytes[at] === READY_FOR_QUERY) return end <= bytes.length ? end : undefined
    at = end
  }
  return undefined
}

function serve(client: Socket): void {
  const upstream = connect({ port: upstreamPort ?? 0, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  let answers: Buffer = Buffer.alloc(0)
  const end = (): void => {
    client.destroy()
    upstream.destroy()
  }
  const fromClient = (chunk: Buffer): boolean => upstream.write(chunk)
  const fromUpstream = (chunk: Buffer): void => {
    const before = answers.length
    answers = Buffer.concat([answers, chunk])
    const ready = endOfLogin(answers)
    if (ready === undefined) return void client.write(chunk)
    // From here on the relay listens.
    client.off('data', fromClient).off('close', end).pause()
    upstream.off('data', fromUpstream).off('close', end).pause()
    client.write(answers.subarray(before, ready))
    startRelay({
      ...{ client, upstream, grant: GRANT, audit: NO_AUDIT, clientEncoding: 'UTF8' },
      clientRest: Buffer.alloc(0),
      upstreamRest: Buffer.from(answers.subarray(ready)),
      recorder: { accepting: true },
      onStatement: () => {},
      cancel: async () => {},
      onFailure: end,
    })
  }
  client
    .setNoDelay(true)
    .on('error', () => {})
    .on('data', fromClient)
    .on('close', end)
  upstream
    .on('error', () => {})
    .on('data', fromUpstream)
    .on('close', end)
}

createServer({ allowHalfOpen: true }, serve).listen(port, '127.0.0.1')
