/** Real sessions, recorded between pgusher and PostgreSQL 18 by record.ts, cut into what the fuzzer plays. */
import { readFileSync } from 'node:fs'
import { framesOf } from './mutate.ts'

export interface RecordedSession {
  name: string
  /** Without its four bytes of length. */
  startup: Buffer
  /** Messages of the login, without the StartupMessage. */
  login: { up: Buffer[]; down: Buffer[] }
  /** Messages behind the first ReadyForQuery. */
  session: { up: Buffer[]; down: Buffer[] }
}

const PASSWORD = 'p'.charCodeAt(0)
const READY = 'Z'.charCodeAt(0)

function cut({ name, up, down }: { name: string; up: string; down: string }): RecordedSession {
  const fromClient = Buffer.from(up, 'base64')
  const startupEnd = fromClient.readInt32BE(0)
  const [upFrames, downFrames] = [framesOf(fromClient.subarray(startupEnd)), framesOf(Buffer.from(down, 'base64'))]
  const first = upFrames.findIndex((frame) => frame[0] !== PASSWORD)
  const ready = downFrames.findIndex((frame) => frame[0] === READY) + 1
  return {
    name,
    startup: fromClient.subarray(4, startupEnd),
    login: { up: upFrames.slice(0, first), down: downFrames.slice(0, ready) },
    session: { up: upFrames.slice(first), down: downFrames.slice(ready) },
  }
}

export const RECORDED: readonly RecordedSession[] = (
  JSON.parse(readFileSync(new URL('recordings.json', import.meta.url), 'utf8')) as {
    name: string
    up: string
    down: string
  }[]
).map(cut)
