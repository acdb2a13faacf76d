/** What keeps pgusher from starting although its configuration is right: in words, with the place in the file that asks for it. */
import { type Diagnostic, diagnostic, type Span } from '../config/diagnostics.ts'
import type { ListenAddress } from '../config/scalars.ts'
import { AccessError } from '../errors.ts'

/** A port, a Unix socket or a file that the configuration names. */
export type Opened = ListenAddress | { kind: 'file'; path: string }

/** Nothing is wrong with pgusher: the operator reads the diagnostic. */
export class StartFault extends Error {
  readonly diagnostic: Diagnostic

  constructor(found: Diagnostic, cause: unknown) {
    super(found.message, { cause })
    this.name = 'StartFault'
    this.diagnostic = found
  }
}

/** The fault in what was thrown, also where closing what was open already failed after it. */
export function startFaultIn(thrown: unknown): StartFault | undefined {
  if (thrown instanceof StartFault) return thrown
  return thrown instanceof SuppressedError ? startFaultIn(thrown.suppressed) : undefined
}

interface Words {
  message: string
  hint?: string
}

/**
 * @param setting its name in the configuration, e.g. `listen.address`
 * @param span where it stands there
 * @throws StartFault where the system, or we, refuse what `work` opens; anything else as it is
 */
export async function opening<T>(setting: string, span: Span, what: Opened, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    const words = wordsFor(what, thrown)
    if (words === undefined) throw thrown
    const message = words.message.startsWith(`${setting}: `) ? words.message : `${setting}: ${words.message}`
    throw new StartFault(diagnostic('error', span, message, words.hint), thrown)
  }
}

function wordsFor(what: Opened, thrown: unknown): Words | undefined {
  if (thrown instanceof AccessError)
    return { message: thrown.message, ...(thrown.hint === undefined ? {} : { hint: thrown.hint }) }
  const code = systemCode(thrown)
  if (code === undefined) return undefined
  if (code === 'EMFILE')
    return { message: `${nameOf(what)} cannot be opened: this process has no file descriptors left`, hint: FEW }
  const known = what.kind === 'tcp' ? portFault(what, code) : pathFault(what, code)
  return known ?? { message: `${nameOf(what)} cannot be opened: ${code}` }
}

const FEW =
  'a session takes two, and some thirty are taken before the first: raise "ulimit -n", or LimitNOFILE in the systemd unit'

/** Of the error itself or of what it was made of. */
function systemCode(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error)) return undefined
  if ('code' in thrown && typeof thrown.code === 'string' && /^E[A-Z]/.test(thrown.code)) return thrown.code
  return systemCode(thrown.cause)
}

function nameOf(what: Opened): string {
  if (what.kind !== 'tcp') return what.path
  return what.host.includes(':') ? `[${what.host}]:${what.port}` : `${what.host}:${what.port}`
}

function portFault(what: Extract<Opened, { kind: 'tcp' }>, code: string): Words | undefined {
  const name = nameOf(what)
  switch (code) {
    case 'EADDRINUSE':
      return {
        message: `${name} is in use by another process`,
        hint: `is another pgusher running? "ss -ltnp sport = :${what.port}" shows whose it is`,
      }
    case 'EADDRNOTAVAIL':
      return {
        message: `${what.host} is not an address of this host`,
        hint: '0.0.0.0 stands for all IPv4 addresses of the host, [::] for all of both kinds',
      }
    case 'EACCES':
      return {
        message: `this user may not listen on ${name}`,
        hint: 'ports below 1024 need the capability CAP_NET_BIND_SERVICE; take one above, such as 6432',
      }
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return { message: `${what.host} is no name that can be looked up here`, hint: 'write an address of this host' }
    default:
      return undefined
  }
}

/** Of sun_path in unix(7), less the NUL behind it; some systems have four bytes less. */
const MAX_SOCKET_PATH = 107

function pathFault({ kind, path }: Exclude<Opened, { kind: 'tcp' }>, code: string): Words | undefined {
  const user = `pgusher runs as uid ${process.geteuid?.() ?? '?'}, which must be able to write there`
  switch (code) {
    case 'ENOENT':
      return { message: `${path} cannot be made: there is no such directory`, hint: `make it; ${user}` }
    case 'ENOTDIR':
      return { message: `${path} cannot be made: a part of its path is not a directory` }
    case 'EACCES':
    case 'EPERM':
      // Of a socket Node says EACCES in place of ENOENT too.
      return { message: `${path} cannot be opened: no such directory, or permission denied`, hint: user }
    case 'EROFS':
      return {
        message: `${path} cannot be made: the file system is read-only`,
        hint: 'mount a directory there that can be written to; only audit and sockets need one',
      }
    case 'EISDIR':
      return { message: `${path} is a directory`, hint: 'name a file in it' }
    case 'EADDRINUSE':
      return {
        message: `${path} is taken: another process answers there, or it is a file and no socket`,
        hint: 'is another pgusher running? Else remove it',
      }
    case 'EINVAL':
    case 'ENAMETOOLONG':
      return kind === 'file'
        ? { message: `${path} is too long for a path` }
        : {
            message: `the path of a Unix socket has at most ${MAX_SOCKET_PATH} bytes, and this one ${Buffer.byteLength(path)}: ${path}`,
          }
    default:
      return undefined
  }
}
