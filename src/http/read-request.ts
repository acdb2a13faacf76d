/** What a request holds, in bounds: path, Bearer, body. */
import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { AccessError } from '../errors.ts'
import { parseStrictObject } from '../identity/strict-json.ts'
import { RequestError } from './answer.ts'

const MAX_BODY = 80 * 1024
/** What is read of a longer one and dropped, since closing on unread bytes sends RST and the client never sees the answer. */
const MAX_DROPPED = 1024 * 1024

/** @throws RequestError */
export function targetOf({ url = '' }: IncomingMessage): URL {
  const target = URL.parse(url, 'https://pgusher.invalid')
  if (target === null) throw new RequestError(400, 'bad_request', 'the path of the request is malformed')
  return target
}

/**
 * What follows `Authorization: Bearer`; not verified, not empty.
 * @param what e.g. `the OIDC token of the job`
 * @throws AccessError `token_missing`
 */
export function bearerOf({ headers: { authorization } }: IncomingMessage, what: string): string {
  const [, secret] = /^bearer +(\S+) *$/i.exec(authorization ?? '') ?? []
  if (secret !== undefined) return secret
  const hint = `Send the header "Authorization: Bearer …" with ${what}.`
  if (authorization === undefined) throw new AccessError('token_missing', 'the request has no token', { hint })
  // `Bearer $TOKEN` with a variable that is empty is the usual mistake.
  const empty = /^bearer *$/i.test(authorization)
  throw new AccessError(
    'token_missing',
    empty
      ? 'the header Authorization has no token: it is empty behind "Bearer"'
      : 'the header Authorization is no Bearer',
    { hint },
  )
}

/** @throws RequestError for what is too long; the error of the connection where it ends too early */
export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes <= MAX_BODY) chunks.push(chunk)
    if (bytes > MAX_DROPPED) break
  }
  if (bytes > MAX_BODY) throw new RequestError(413, 'body_too_large', `the body is longer than ${MAX_BODY} bytes`)
  return Buffer.concat(chunks).toString('utf8')
}

/**
 * JSON or a form. `curl -d '{…}'` calls JSON a form, so what begins with a brace is JSON whatever it is called.
 * @throws RequestError
 */
export function parseBody<Schema extends z.ZodType>(text: string, schema: Schema): z.output<Schema> {
  const parsed = schema.safeParse(/^\s*\{/.test(text) ? fromJson(text) : fromForm(text))
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const at = issue?.path.join('.')
  const missing = issue?.code === 'invalid_type' && issue.message.endsWith('received undefined')
  throw malformed(missing ? `${at} is missing` : `${at ? `${at}: ` : ''}${issue?.message ?? 'of another shape'}`)
}

function fromJson(text: string): unknown {
  try {
    return parseStrictObject(text)
  } catch {
    throw malformed('it is not JSON with unique keys')
  }
}

function fromForm(text: string): unknown {
  const fields = new URLSearchParams(text.trim())
  const names = [...fields.keys()]
  if (new Set(names).size < names.length) throw malformed('a field is there twice')
  return Object.fromEntries(fields)
}

function malformed(why: string): RequestError {
  const wanted = '{"database":"shop-prod","user":"shop_migrator"}'
  return new RequestError(
    400,
    'bad_request',
    `the body is not as wanted: ${why}. Send JSON such as ${wanted}, or a form`,
  )
}
