/** The commands' side of the control socket. */
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { type Command, Option } from 'commander'
import { formatDiagnostics } from '../config/diagnostics.ts'
import { loadConfig } from '../config/load.ts'
import { quote } from '../config/quote.ts'
import { AccessError } from '../errors.ts'

export interface SocketOptions {
  config?: string
  socket?: string
}

export function addSocketOptions(command: Command): Command {
  return command
    .addOption(new Option('-c, --config <file>', 'configuration file, for its control.socket').conflicts(['socket']))
    .option('--socket <path>', 'the control socket itself')
}

/** Ends the command with wrong usage where neither is given. @throws AccessError where the configuration names no socket */
export async function socketPath({ config, socket }: SocketOptions, command: Command): Promise<string> {
  if (socket !== undefined) return socket
  if (config === undefined) command.error('error: give --config or --socket, to say which pgusher is meant')
  const result = await loadConfig(config, process.env, { checkFiles: false })
  // An operator's shell seldom has the passwords that the file takes from the environment; the socket stands in it all the same.
  const loaded = result.ok ? result.loaded : result.partial
  if (loaded === undefined) {
    process.stderr.write(formatDiagnostics(result.ok ? [] : result.diagnostics))
    throw new AccessError('internal_error', `the control socket is not known: ${quote(config)} cannot be read`)
  }
  const path = loaded.config.control?.socket
  if (path !== undefined) return path
  throw new AccessError(
    'internal_error',
    `${quote(config)} has no control.socket, so there is nobody to ask; add control: { socket: … } and restart pgusher`,
  )
}

/**
 * @param body sent as JSON by POST; GET without it
 * @returns the answer's body
 * @throws AccessError with what pgusher said, or why it could not be reached
 */
export async function ask(socket: string, path: string, body?: unknown): Promise<unknown> {
  const { status, text } = await exchange(socket, path, body).catch((thrown: unknown) => {
    throw new AccessError('internal_error', unreachable(socket, thrown), { cause: thrown })
  })
  const answer = parsed(text)
  if (status === 200 && answer !== undefined) return answer
  const told = typeof answer === 'object' && answer !== null && 'error' in answer ? answer.error : undefined
  throw new AccessError('internal_error', typeof told === 'string' ? told : `pgusher answered with status ${status}`)
}

async function exchange(socketPath: string, path: string, body: unknown): Promise<{ status: number; text: string }> {
  const text = body === undefined ? undefined : JSON.stringify(body)
  const headers =
    text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
  const sent = request({ socketPath, path, method: text === undefined ? 'GET' : 'POST', headers, timeout: 15_000 })
  sent.on('timeout', () => sent.destroy(new Error('no answer within 15 s'))).end(text)
  const [response]: [IncomingMessage] = (await once(sent, 'response')) as [IncomingMessage]
  const chunks: Buffer[] = await response.toArray()
  return { status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is none: pgusher does not run, or its configuration names another',
  ECONNREFUSED: 'nobody listens there: pgusher does not run',
  EACCES: "it is pgusher's own: be that user, or root",
  EPERM: "it is pgusher's own: be that user, or root",
}

function unreachable(socket: string, thrown: unknown): string {
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
  const why = REASONS[code] ?? (thrown instanceof Error ? thrown.message : String(thrown))
  return `the control socket ${quote(socket)} cannot be used: ${why}`
}
