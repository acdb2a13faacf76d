/** CopyBoth turns a session into a stream of the write-ahead log: it passes only where the rule grants replication. */
import { expect, test } from 'vitest'
import type { AccessError } from '../../src/errors.ts'
import { createBackendHandler, maxBackendLength } from '../../src/session/from-backend.ts'
import { StatementTracker } from '../../src/session/statement-tracker.ts'
import { createFrameScanner } from '../../src/wire/frame-scanner.ts'
import { byte, frame, int16 } from '../../src/wire/writer.ts'

const copyBothResponse = frame(0x57, byte(0), int16(0))
const readyForQuery = frame(0x5a, byte(0x49))

function relayed(replication: boolean): { bytes: Buffer; stopped: AccessError | undefined } {
  const released: Buffer[] = []
  let stopped: AccessError | undefined
  const handler = createBackendHandler(new StatementTracker(() => {}), {
    replication,
    inject: () => {},
    stop: (_reason, error) => {
      stopped = error
    },
    onParameter: () => {},
    onFatal: () => {},
  })
  const scanner = createFrameScanner(handler, maxBackendLength)
  scanner.scan(Buffer.concat([readyForQuery, copyBothResponse, readyForQuery]), (bytes) => released.push(bytes))
  return { bytes: Buffer.concat(released), stopped }
}

test('invariant 21: CopyBothResponse ends a session without replication, and none of it reaches the job', () => {
  const { bytes, stopped } = relayed(false)
  expect(bytes).toEqual(readyForQuery)
  expect(stopped).toMatchObject({ code: 'upstream_lost', message: expect.stringContaining('CopyBothResponse') })
})

test('invariant 21: with replication granted it passes', () => {
  const { bytes, stopped } = relayed(true)
  expect(bytes).toEqual(Buffer.concat([readyForQuery, copyBothResponse, readyForQuery]))
  expect(stopped).toBeUndefined()
})
