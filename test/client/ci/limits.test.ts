/** Token services, commands and files that misbehave: an error that says so, in time, without a secret in it. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { withAudience } from '../../../src/client/ci/actions.ts'
import { findTokenSource, type TokenSource } from '../../../src/client/token-source.ts'
import { ownClaims, tokenFrom } from '../../../src/client/token-text.ts'
import { AccessError } from '../../../src/errors.ts'
import { eventually } from '../../support/postgres.ts'
import { forged } from '../../support/tokens.ts'

const SECRET = 'request-secret-0123456789abcdef'
const TOKEN = forged({ alg: 'RS256' }, { sub: 'one' })
const PATH = '/usr/bin:/bin'

let directory: string
let server: Server
let answer: RequestListener
let requests: string[] = []

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-limits-'))
  server = createServer((request, response) => {
    requests.push(request.url ?? '')
    answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})

afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await rm(directory, { recursive: true, force: true })
})

function github(): Promise<TokenSource> {
  requests = []
  const { port } = server.address() as AddressInfo
  return findTokenSource({
    env: {
      GITHUB_ACTIONS: 'true',
      ACTIONS_ID_TOKEN_REQUEST_URL: `http://127.0.0.1:${port}/token?v=2`,
      ACTIONS_ID_TOKEN_REQUEST_TOKEN: SECRET,
    },
  })
}

async function failure(source: TokenSource | Promise<TokenSource>, signal?: AbortSignal): Promise<AccessError> {
  const thrown = await (await source).fetch('https://aud', signal).catch((error: unknown) => error)
  expect(thrown).toBeInstanceOf(AccessError)
  expect(JSON.stringify({ ...(thrown as AccessError) }) + String(thrown)).not.toContain(SECRET)
  return thrown as AccessError
}

test.each<[string, RequestListener, RegExp]>([
  [
    'refuses',
    (_, response) => void response.writeHead(403).end(`{"message":"no: ${SECRET}"}`),
    /status 403: .*no: \[masked\]/,
  ],
  ['shows a page to log in', (_, response) => void response.writeHead(200).end('<html>log in</html>'), /not JSON/],
  ['leaves the token out', (_, response) => void response.writeHead(200).end('{"count":0}'), /without "value"/],
  ['answers null', (_, response) => void response.writeHead(200).end('null'), /without "value"/],
  ['has something else there', (_, response) => void response.writeHead(200).end('{"value":"secret"}'), /is no token/],
  ['has nothing there', (_, response) => void response.writeHead(200).end('{"value":" "}'), /is empty/],
])('a token service that %s', async (_name, listener, message) => {
  answer = listener
  expect((await failure(github())).message).toMatch(message)
  expect(requests).toEqual(['/token?v=2&audience=https%3A%2F%2Faud'])
})

test("the proxy of the runner's environment is used, as its own tools do", async () => {
  answer = (_, response) => void response.writeHead(200).end(JSON.stringify({ value: TOKEN }))
  const { port } = server.address() as AddressInfo
  requests = []
  const env = {
    GITHUB_ACTIONS: 'true',
    HTTP_PROXY: `http://127.0.0.1:${port}`,
    ACTIONS_ID_TOKEN_REQUEST_URL: 'http://token.ci.invalid/?v=2',
    ACTIONS_ID_TOKEN_REQUEST_TOKEN: SECRET,
  }
  expect(await (await findTokenSource({ env })).fetch('a')).toBe(TOKEN)
  expect(requests).toEqual(['http://token.ci.invalid/?v=2&audience=a'])
})

test('a redirect is not followed: it would carry the secret to another place', async () => {
  answer = (_, response) => void response.writeHead(302, { location: '/elsewhere' }).end()
  expect((await failure(github())).message).toMatch(/refused .* status 302/)
  expect(requests).toHaveLength(1)
})

test('an endless answer and a connection that breaks are given up, after three attempts', async () => {
  answer = (_, response) => void response.writeHead(200).end('x'.repeat(200_000))
  expect((await failure(github())).message).toMatch(/asked 3 times: an answer of more than 131072 bytes/)
  expect(requests).toHaveLength(3)
})

test('a signal ends the wait at once', async () => {
  const abort = new AbortController()
  answer = () => abort.abort(new AccessError('draining', 'enough'))
  expect((await failure(github(), abort.signal)).message).toBe('enough')
})

const command = (tokenCommand: string): Promise<TokenSource> =>
  findTokenSource({ env: { PATH, SECRET, DIRECTORY: directory }, tokenCommand })

test('a command that fails is told with its last words, secrets masked', async () => {
  const { message } = await failure(command('echo first >&2; echo "no: password=hunter2hunter2" >&2; exit 7'))
  expect(message).toBe('the command of --token-command ended with exit code 7: first no: password=[masked]')
})

test('what a command prints is never shown', async () => {
  expect((await failure(command('echo "$SECRET and more"'))).message).toMatch(
    /^the output of --token-command is no token/,
  )
  expect((await failure(command('yes "$SECRET"'))).message).toMatch(/printed more than 128 KiB/)
  expect((await failure(command('true'))).message).toMatch(/is empty/)
})

test('a command has no standard input, so that it takes nothing from the job', async () => {
  expect(await (await command(`cat; echo ${TOKEN}`)).fetch('')).toBe(TOKEN)
})

test('a command that is given up ends with all that it started', async () => {
  const abort = new AbortController()
  const source = await command('sleep 60 & echo $! > "$DIRECTORY/pid"; wait')
  const given = failure(source, abort.signal)
  const pid = await eventually(
    async () => Number(await readFile(join(directory, 'pid'), 'utf8').catch(() => '')) || undefined,
  )
  abort.abort(new AccessError('draining', 'enough'))
  expect((await given).message).toBe('enough')
  await eventually(async () => (await isAlive(Number(pid))) === false)
})

/** A zombie that nobody has waited for yet is not alive. */
async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z')
  return !/\) [ZX]/.test(stat)
}

test.each(['', '--endpoint-url=https://other', 'a\nb', 'a'.repeat(1_001)])(
  'an audience that could be something else is not asked for: %j',
  async (audience) => {
    const thrown = await (await github()).fetch(audience).catch((error: unknown) => error)
    expect(thrown).toMatchObject({ code: 'token_missing', message: expect.stringMatching(/audience/) })
    expect(requests).toEqual([])
  },
)

test('files: none, a directory, too long, with white space around the token', async () => {
  const file = (name: string) => findTokenSource({ env: {}, tokenFile: join(directory, name) })
  expect((await failure(file('none'))).message).toMatch(
    /^the file ".*none" with the token cannot be read: no such file$/,
  )
  expect((await failure(file('.'))).message).toMatch(/cannot be read: it is a directory$/)
  await writeFile(join(directory, 'long'), 'a'.repeat(100_000))
  expect((await failure(file('long'))).message).toMatch(/is longer than 64 KiB, so it is no token$/)
  await writeFile(join(directory, 'padded'), `\n ${TOKEN}\r\n`)
  expect(await (await file('padded')).fetch('')).toBe(TOKEN)
})

test('whatever is no token is refused, and none of it is repeated', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 12, unit: 'grapheme' }), (text) => {
      fc.pre(!/^\s*(?:[\w-]+\.[\w-]+\.[\w-]+|pgut_[\w-]+)\s*$/.test(text) && text.trim().length > 11)
      const thrown = (() => {
        try {
          return tokenFrom(text, 'it')
        } catch (error) {
          return error
        }
      })()
      expect(thrown).toBeInstanceOf(AccessError)
      expect(String(thrown)).not.toContain(text.trim())
    }),
  )
})

test('any claims survive the way through a token and white space around it', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.string()), fc.constantFrom('', '\n', ' \r\n'), (claims, space) => {
      const token = forged({ alg: 'RS256' }, claims)
      expect(ownClaims(tokenFrom(`${space}${token}${space}`, 'it'))).toEqual({ ...claims })
    }),
  )
})

test('an audience of any kind arrives as it is, behind a query or without one', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.constantFrom('?a=1', ''), (audience, query) => {
      const url = new URL(withAudience(`http://ci/token${query}`, audience))
      expect(url.searchParams.get('audience')).toBe(audience)
      expect(url.searchParams.get('a')).toBe(query === '' ? null : '1')
    }),
  )
})
