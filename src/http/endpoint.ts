/** What each endpoint is given. */
import type { IncomingMessage } from 'node:http'
import type { SessionIdentity } from '../audit/recorder.ts'
import type { ProxyContext } from '../session/proxy-context.ts'
import type { Answer } from './answer.ts'

export interface Call {
  request: IncomingMessage
  proxy: ProxyContext
  /** Of the connection; grows as more is known, for the event of a refusal. */
  identity: SessionIdentity
  /** Reads the body, for which the client has its own time. @throws RequestError */
  body(): Promise<string>
  /** Fires when the client is gone or the answer would come too late, with the AccessError to answer. */
  signal: AbortSignal
}

/** @throws AccessError, RequestError */
export type Endpoint = (call: Call) => Promise<Answer> | Answer
