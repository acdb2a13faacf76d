import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const run = promisify(execFile)
const SLOT = new URL('../../src/audit/worker-slot.ts', import.meta.url).href

/** The first worker cannot start, as where there are too few file descriptors. Nothing else keeps the process alive. */
const PROGRAM = `
  import workers from 'node:worker_threads'
  import { EventEmitter } from 'node:events'
  import { syncBuiltinESMExports } from 'node:module'
  const { Worker } = workers
  let count = 0
  workers.Worker = function (url, options) {
    if (count++ > 0) return new Worker(url, { ...options, execArgv: [] })
    const broken = Object.assign(new EventEmitter(), { unref() {}, async terminate() {} })
    setImmediate(() => broken.emit('error', new Error('too many open files')))
    return broken
  }
  syncBuiltinESMExports()
  const { workerSlot } = await import(${JSON.stringify(SLOT)})
  const slot = workerSlot({ log() {}, onReady() {}, onClassified() {}, onCrash: () => slot.replace() })
  await slot.started
  console.log('ready:', slot.ready, 'workers:', count)
  await slot.close()
`

test('whoever waits for the first worker is not left alone when that cannot start', async () => {
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', PROGRAM])
  expect(stdout).toBe('ready: true workers: 2\n')
})
