/** The worker thread's side of `classifier.ts`. The parser stays out of the main thread: some inputs trap or hang it. */
import { parentPort } from 'node:worker_threads'
import { loadModule } from 'libpg-query'
import type { Classification } from './classification.ts'
import { analyze } from './sql-analysis.ts'

export interface ClassifyRequest {
  id: number
  sql: string
}

/** First a message with `ready`, then one answer a request, in order. */
export type WorkerMessage =
  | { type: 'ready' }
  | { type: 'classified'; id: number; classification: Classification }
  /** Not a syntax error: the parser's memory may be damaged, so this worker is to be replaced. */
  | { type: 'crashed'; id: number; reason: string }

const port = parentPort
if (port !== null) {
  await loadModule()
  const answer = ({ id, sql }: ClassifyRequest): WorkerMessage => {
    try {
      return { type: 'classified', id, classification: analyze(sql) }
    } catch (error) {
      // The message of a parser's exception can quote the text; its name cannot.
      return { type: 'crashed', id, reason: error instanceof Error ? error.name : 'unknown' }
    }
  }
  port.on('message', (request: ClassifyRequest) => {
    port.postMessage(answer(request))
  })
  port.postMessage({ type: 'ready' } satisfies WorkerMessage)
}
