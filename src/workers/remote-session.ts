/** A session of a worker, for whoever ends sessions in the primary. */
import type { LiveSession } from '../session/registry.ts'
import type { Channel } from './channel.ts'
import type { SessionRecord, ToWorker } from './protocol.ts'
import { toSent } from './sent-error.ts'

/** What it tells of itself is as it was when it was asked for. */
export function remoteSession(record: SessionRecord, worker: Channel<ToWorker>): LiveSession {
  const { id: session } = record
  return {
    ...record,
    get ended() {
      // With its worker it is over as well.
      return worker.call('ended', session).catch(() => {})
    },
    record: (event) => worker.tell('record', { session, event }),
    end: (reason, error) => worker.tell('end', { session, reason, error: toSent(error) }),
    // A CancelRequest goes by its key.
    cancel: () => Promise.resolve(),
  }
}
