/** Records one session: its identity is serialised here, once, and each statement only adds what is its own. */
import type { TextMode } from '../config/schema.ts'
import type { Classification } from './classification.ts'
import type { Classifier } from './classifier.ts'
import type { EventStream } from './event-stream.ts'
import { identityBlock } from './identity-block.ts'
import type { SessionAudit, SessionIdentity, StatementRecord } from './recorder.ts'
import { STATEMENT_OVERHEAD_BYTES, type StatementLine } from './statement-line.ts'
import type { TextPart, TextParts } from './statement-text.ts'

/** What all sessions share. */
export interface SessionAuditParts {
  maxEvent: number
  stream: EventStream
  /** Of all sessions: filled and written at once. */
  line: StatementLine
  classifier: Classifier
  texts: TextParts
}

/** However long the identity is, so much of the text is kept. */
const MIN_TEXT_BYTES = 256

export function sessionAudit(parts: SessionAuditParts, identity: SessionIdentity, textMode: TextMode): SessionAudit {
  const { stream, classifier, texts, line } = parts
  const { order } = stream
  const block = identityBlock(identity)
  const room = parts.maxEvent - block.bytes - STATEMENT_OVERHEAD_BYTES
  const budget = Math.max(MIN_TEXT_BYTES, room)
  let sessionSeq = 0

  const write = (at: number, own: number, record: StatementRecord, part: TextPart): void => {
    line.fill({ at, seq: stream.nextSeq(), sessionSeq: own }, block, part, record)
    stream.append(line)
  }

  const partOf = (record: StatementRecord, known: Classification): TextPart => {
    const part = texts.make(record, textMode, known, parts.maxEvent, known.settled)
    return part.bytes <= room ? part : texts.make(record, textMode, known, budget, false)
  }

  return {
    statement(record) {
      if (stream.ended()) return
      const at = stream.now()
      const own = ++sessionSeq
      const units = record.text?.length ?? 0
      const part = texts.cached(record, textMode)
      if (part !== undefined && part.bytes <= room) {
        if (order.idle) write(at, own, record, part)
        else order.add(() => write(at, own, record, part), units)
        return
      }
      const text = record.text ?? ''
      const known = record.text === undefined ? classifier.givenUp('') : classifier.peek(text)
      if (known !== undefined) {
        order.add(() => write(at, own, record, partOf(record, known)), units)
        return
      }
      let late: Classification | undefined
      const ready = classifier.classify(text).then((classification) => {
        late = classification
      })
      order.addWhen(ready, () => write(at, own, record, partOf(record, late ?? classifier.givenUp(text))), units)
    },
    prefetch(text) {
      if (classifier.peek(text) === undefined) void classifier.classify(text)
    },
    read: (text) => classifier.decide(text),
    event(event) {
      stream.record(event, { identity, sessionSeq: ++sessionSeq, textMode })
    },
  }
}
