/**
 * Stands before the scanner of a session whose rule limits statements: a Query or Parse goes on to it only when it was decided, in its
 * place in the stream. What stands before it is sent on, and what comes behind it waits. Other messages pass as they come.
 */
import { FrontendMessage as F } from '../wire/constants.ts'
import type { FrameScanner } from '../wire/frame-scanner.ts'
import type { Refusal } from './pending.ts'
import { MAX_TEXT_BYTES } from './statement-text.ts'

/** Undefined: it may run. */
export type Verdict = Refusal | undefined

export interface StatementGate extends FrameScanner {
  /** A statement waits for its verdict: nothing is to be read from the client. */
  readonly waiting: boolean
  /** Calls `then` when nothing waits any more: in the turn of `resume`, behind it. */
  whenFree(then: () => void): void
}

export interface GateHooks {
  /** `body` is that of a whole Query or Parse. Never rejects. */
  decide(type: number, body: Buffer): Verdict | Promise<Verdict>
  /** For a message that is longer than a text which can be read. */
  tooLong(): Refusal
  /** The next Query or Parse that the scanner sees goes upstream as one that fails, until this is called without a refusal. */
  refuse(refusal: Verdict): void
  /** Nothing more is to be read. */
  hold(): void
  /** `scan` is to be called, with no bytes if there are none, and reading goes on. */
  resume(): void
}

const HEADER = 5
/** Of a body: a text, and a name before it or types behind it. */
const MAX_BODY = MAX_TEXT_BYTES + 1024
const EMPTY = Buffer.alloc(0)

export function createStatementGate(inner: FrameScanner, hooks: GateHooks): StatementGate {
  const rest = createRest()
  /** Bytes of the message at hand that are still to come and go straight on. */
  let skip = 0
  /** The message at hand is refused as it passes, too long to be kept. */
  let refusing = false
  /** Nothing is decided any more: behind Terminate, and behind what is no message. */
  let open = false
  let waiting = false
  /** Of the statement that waited. */
  let decided: { verdict: Verdict } | undefined
  let whenFree: (() => void)[] = []

  function wait(verdict: Promise<Verdict>): void {
    waiting = true
    hooks.hold()
    void verdict.then((answer) => {
      waiting = false
      decided = { verdict: answer }
      hooks.resume()
      const then = whenFree
      whenFree = []
      if (!waiting) for (const call of then) call()
      else whenFree = then
    })
  }

  function verdictOf(type: number, body: Buffer): Verdict | Promise<Verdict> {
    if (decided === undefined) return hooks.decide(type, body)
    const { verdict } = decided
    decided = undefined
    return verdict
  }

  function scan(chunk: Buffer, release: (bytes: Buffer) => void): boolean {
    if (waiting) {
      rest.add(chunk)
      return true
    }
    if (rest.length === 0) return walk(chunk, release)
    rest.add(chunk)
    return rest.length < rest.wanted || walk(rest.take(), release)
  }

  function walk(input: Buffer, release: (bytes: Buffer) => void): boolean {
    let at = 0
    /** Where the bytes begin that go on next. */
    let from = 0
    const pass = (to: number): boolean => {
      const part = input.subarray(from, to)
      from = to
      return part.length === 0 || inner.scan(part, release)
    }
    const skipOn = (): void => {
      const part = Math.min(skip, input.length - at)
      skip -= part
      at += part
    }
    /** @returns false when the scanner stopped */
    const endLong = (): boolean => {
      if (!refusing || skip > 0) return true
      const going = pass(at)
      refusing = false
      hooks.refuse(undefined)
      return going
    }

    skipOn()
    if (!endLong()) return false
    while (!open && input.length - at >= HEADER) {
      const type = input[at]!
      const declared = input.readInt32BE(at + 1)
      if (declared < 4 || type === F.Terminate) {
        open = true
        break
      }
      const body = declared - 4
      if ((type !== F.Query && type !== F.Parse) || body > MAX_BODY) {
        if (type === F.Query || type === F.Parse) {
          if (!pass(at)) return false
          refusing = true
          hooks.refuse(hooks.tooLong())
        }
        skip = HEADER + body
        skipOn()
        if (!endLong()) return false
        continue
      }
      const end = at + HEADER + body
      if (end > input.length) {
        const going = pass(at)
        rest.add(input.subarray(at))
        rest.wanted = HEADER + body
        return going
      }
      const verdict = verdictOf(type, input.subarray(at + HEADER, end))
      if (verdict instanceof Promise) {
        const going = pass(at)
        rest.add(input.subarray(at))
        if (going) wait(verdict)
        return going
      }
      if (verdict !== undefined) {
        if (!pass(at)) return false
        hooks.refuse(verdict)
        const going = pass(end)
        hooks.refuse(undefined)
        if (!going) return false
      }
      at = end
    }
    if (open) at = input.length
    const going = pass(at)
    if (at < input.length) rest.add(input.subarray(at))
    return going
  }

  return {
    scan,
    get atBoundary() {
      return inner.atBoundary
    },
    get between() {
      return inner.between && rest.length === 0
    },
    get violation() {
      return inner.violation
    },
    get waiting() {
      return waiting
    },
    whenFree: (then) => void (waiting ? whenFree.push(then) : then()),
  }
}

/** Copies of bytes that wait for more, or for a verdict. Room follows the bytes that came. */
function createRest() {
  let buffer: Buffer = EMPTY
  let length = 0
  return {
    /** Bytes at which it is worth to look again. */
    wanted: 0,
    get length() {
      return length
    },
    add(bytes: Buffer): void {
      if (length + bytes.length > buffer.length) {
        const larger = Buffer.allocUnsafeSlow(Math.max(1024, length + bytes.length, buffer.length * 2))
        buffer.copy(larger, 0, 0, length)
        buffer = larger
      }
      length += bytes.copy(buffer, length)
    },
    /** Gives them away, with their memory: what goes on from here may be kept by a write. */
    take(): Buffer {
      const bytes = buffer.subarray(0, length)
      buffer = EMPTY
      length = 0
      this.wanted = 0
      return bytes
    },
  }
}
