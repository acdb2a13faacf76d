/**
 * A recorder in a process of its own, so that limits and a standard output of its own can be set: `{ config }` opens it,
 * `{ record }` records so many statements, `{ close }` closes it. Answers `{ accepting, failure, lag }` to every message.
 */
import { openRecorder } from '../../src/audit/open.ts'
import type { Recorder } from '../../src/audit/recorder.ts'
import type { AuditConfig } from '../../src/config/schema.ts'
import { identity, statement } from './records.ts'

export type Command = { config: AuditConfig } | { record: number } | { close: true } | { look: true }

export interface Answer {
  accepting: boolean
  failure: string | undefined
  /** The longest that the event loop stood still, in milliseconds, since the last answer. */
  lag: number
}

let recorder: Recorder | undefined
let lag = 0
let last = performance.now()
setInterval(() => {
  const now = performance.now()
  lag = Math.max(lag, now - last - 10)
  last = now
}, 10).unref()

async function run(command: Command): Promise<void> {
  if ('config' in command)
    recorder = await openRecorder(command.config, { instance: 'child', log: () => {}, classifyWithin: 20_000 })
  if ('record' in command) {
    const session = recorder?.session(identity, 'full')
    for (let n = 0; n < command.record; n++) session?.statement(statement(`select ${n % 10} from public.orders`))
  }
  if ('close' in command) await recorder?.close()
}

process.on('message', (command: Command) => {
  void run(command).then(
    () => {
      process.send?.({ accepting: recorder?.accepting ?? false, failure: recorder?.failure, lag } satisfies Answer)
      lag = 0
      if ('close' in command) process.disconnect()
    },
    (error: Error) => process.send?.({ accepting: false, failure: error.message, lag } satisfies Answer),
  )
})
