/**
 * Calls between two processes over one channel of messages. What is sent within one turn of the loop goes as one message: a herd
 * of connects costs a system call for each turn and not for each connect.
 */
import { AccessError } from '../errors.ts'
import { type SentError, toError, toSent } from './sent-error.ts'

/** One end of a channel; messages arrive whole and in order. */
export interface Port {
  send(message: unknown): void
  onMessage(listener: (message: unknown) => void): void
  /** The other side is gone. */
  onClose(listener: () => void): void
}

/** What one side can be asked: a method for each call, with at most one argument, of plain data. */
type Methods<Calls> = { [Name in keyof Calls]: (argument: never) => unknown }
type ArgumentOf<Call> = Call extends (argument: infer Argument) => unknown ? Argument : never
type ResultOf<Call> = Call extends (argument: never) => infer Result ? Result : never

/** How the side that is asked does it. */
export type Handlers<Calls> = {
  [Name in keyof Calls]: (argument: ArgumentOf<Calls[Name]>) => ResultOf<Calls[Name]> | Promise<ResultOf<Calls[Name]>>
}

export interface Channel<Out extends Methods<Out>> {
  /**
   * @param within milliseconds for the answer; as long as it takes without it
   * @throws AccessError as the other side threw it; `draining` once that is gone, or where it has not answered in time
   */
  call<Name extends keyof Out & string>(
    name: Name,
    argument: ArgumentOf<Out[Name]>,
    within?: number,
  ): Promise<ResultOf<Out[Name]>>
  /** As `call`, where nobody waits; dropped once the other side is gone. */
  tell<Name extends keyof Out & string>(name: Name, argument: ArgumentOf<Out[Name]>): void
}

type Item =
  | [kind: 'call', id: number, name: string, argument: unknown]
  | [kind: 'tell', name: string, argument: unknown]
  | [kind: 'result', id: number, value: unknown]
  | [kind: 'error', id: number, error: SentError]

interface Waiting {
  resolve(value: unknown): void
  reject(error: unknown): void
  timer: NodeJS.Timeout | undefined
}

/** @param onFailure told what a handler threw that nobody waits for */
export function createChannel<Out extends Methods<Out>, In extends Methods<In>>(
  port: Port,
  handlers: Handlers<In>,
  onFailure: (name: string, error: unknown) => void,
): Channel<Out> {
  const waiting = new Map<number, Waiting>()
  const outbox = createOutbox(port, unsent)
  let closed = false
  let lastId = 0

  function handle(name: string, argument: unknown): unknown {
    if (!Object.hasOwn(handlers, name)) throw new TypeError(`there is no call "${name}"`)
    const handler = handlers[name as keyof In] as (argument: unknown) => unknown
    return handler(argument)
  }
  function answer(id: number, name: string, argument: unknown): void {
    const failed = (error: unknown): void => outbox.add(['error', id, toSent(error)])
    try {
      const result = handle(name, argument)
      if (result instanceof Promise) result.then((value) => outbox.add(['result', id, value]), failed)
      else outbox.add(['result', id, result])
    } catch (error) {
      failed(error)
    }
  }
  function hear(name: string, argument: unknown): void {
    const failed = (error: unknown): void => onFailure(name, error)
    try {
      const result = handle(name, argument)
      if (result instanceof Promise) result.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
  function settle(id: number, use: (one: Waiting) => void): void {
    const one = waiting.get(id)
    waiting.delete(id)
    clearTimeout(one?.timer)
    if (one !== undefined) use(one)
  }

  /** Whoever waits for it is told. */
  function unsent(item: Item, error: unknown): void {
    if (item[0] === 'call') settle(item[1], ({ reject }) => reject(error))
    else if (item[0] === 'tell') onFailure(item[1], error)
    else if (item[0] === 'result') outbox.add(['error', item[1], toSent(error)])
  }

  function take(item: Item): void {
    if (item[0] === 'call') answer(item[1], item[2], item[3])
    else if (item[0] === 'tell') hear(item[1], item[2])
    else if (item[0] === 'result') settle(item[1], ({ resolve }) => resolve(item[2]))
    else settle(item[1], ({ reject }) => reject(toError(item[2])))
  }
  port.onMessage((message) => {
    // What the other side sends must not end this process with all the others that it carries.
    try {
      for (const item of message as Item[]) take(item)
    } catch (error) {
      onFailure('a message that is none of ours', error)
    }
  })
  port.onClose(() => {
    closed = true
    for (const id of [...waiting.keys()]) settle(id, ({ reject }) => reject(gone()))
  })
  return {
    call(name, argument, within) {
      if (closed) return Promise.reject(gone())
      const id = ++lastId
      const { promise, resolve, reject } = Promise.withResolvers<unknown>()
      const late = (): void => settle(id, (one) => one.reject(silent(name, within)))
      const timer = within === undefined ? undefined : setTimeout(late, within).unref()
      waiting.set(id, { resolve, reject, timer })
      outbox.add(['call', id, name, argument])
      return promise as ReturnType<Channel<Out>['call']> as never
    },
    tell(name, argument) {
      if (!closed) outbox.add(['tell', name, argument])
    },
  }
}

/** @param onUnsent told of an item that is no plain data, which is a fault of ours and costs only itself */
function createOutbox(port: Port, onUnsent: (item: Item, error: unknown) => void): { add(item: Item): void } {
  let items: Item[] = []
  const send = (batch: readonly Item[]): void => {
    try {
      port.send(batch)
    } catch (error) {
      const [only, ...others] = batch
      if (only !== undefined && others.length === 0) onUnsent(only, error)
      else for (const item of batch) send([item])
    }
  }
  const flush = (): void => {
    const batch = items
    items = []
    send(batch)
  }
  return {
    add(item) {
      if (items.push(item) === 1) setImmediate(flush)
    },
  }
}

function silent(name: string, within: number | undefined): AccessError {
  return new AccessError('draining', 'a process of pgusher does not answer', {
    hint: 'Connect again in a moment.',
    cause: new Error(`no answer to "${name}" within ${within} ms`),
  })
}

function gone(): AccessError {
  return new AccessError('draining', 'pgusher is shutting down', {
    hint: 'Connect again: another replica or its successor answers.',
  })
}
