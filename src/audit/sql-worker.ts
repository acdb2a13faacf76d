/** The worker thread's side of `classifier.ts`. The parser stays out of the main thread: some inputs trap or hang it. */
import { parentPort } from 'node:worker_threads'
import { loadModule } from 'libpg-query'
import { plainReports } from '../telemetry/plain-reports.ts'
import type { Classification } from './classification.ts'
import { analyze } from './sql-analysis.ts'

/** First a message with `ready`, then one answer to each text. */
export type WorkerMessage =
  | { type: 'ready' }
  | { type: 'classified'; classification: Classification }
  /** Not a syntax error: the parser's memory may be damaged, so this worker is to be replaced. */
  | { type: 'crashed'; reason: string }

const port = parentPort
if (port !== null) {
  plainReports()
  await loadModule()
  const answer = (sql: string): WorkerMessage => {
    try {
      return { type: 'classified', classification: analyze(sql) }
    } catch (error) {
      // The message of a parser's exception can quote the text; its name cannot.
      return { type: 'crashed', reason: error instanceof Error ? error.name : 'unknown' }
    }
  }
  port.on('message', (sql: string) => {
    port.postMessage(answer(sql))
  })
  // The first run compiles the parser's code, which no statement should wait for.
  analyze("select a from b.c where d = 'e'")
  port.postMessage({ type: 'ready' } satisfies WorkerMessage)
}
