/** What is kept once, asked for by two workers over their channels: the interfaces that connections use, without processes. */
import { expect, test } from 'vitest'
import type { Recorder } from '../../src/audit/recorder.ts'
import type { MintedCredential } from '../../src/credentials/minter.ts'
import { AccessError } from '../../src/errors.ts'
import type { Grant } from '../../src/policy/types.ts'
import { createAdmission } from '../../src/session/admission.ts'
import { createBars } from '../../src/session/bars.ts'
import type { FrontParts } from '../../src/session/front.ts'
import { createJobWindows } from '../../src/session/job-windows.ts'
import type { SharedState, Snapshot } from '../../src/session/proxy-context.ts'
import type { OwnState } from '../../src/session/shared-state.ts'
import { createChannel } from '../../src/workers/channel.ts'
import { createCredentialNumbers, createDesk, type Desk } from '../../src/workers/desk.ts'
import type { ToPrimary } from '../../src/workers/protocol.ts'
import { createRemoteState, type RemoteState } from '../../src/workers/remote-state.ts'
import { grantOf, principalOf } from '../support/mint.ts'
import { portPair } from './ports.ts'

const MINUTE = 60_000

function credentialOf(login: string): MintedCredential {
  const buffer = Buffer.from(login)
  const secret = {
    type: 'scram' as const,
    password: login,
    clientKey: buffer,
    serverKey: buffer,
    salt: buffer,
    iterations: 1,
  }
  return { kind: 'ephemeral-role', login, assumeRole: 'shop', secret, validUntil: 1 }
}

interface Stage {
  workers: { state: RemoteState; desk: Desk; bars: ReturnType<typeof createBars> }[]
  shared: OwnState
  /** Sessions that hold a credential, by login. */
  held: Map<string, number>
  accepting: boolean
}

function stageOf(version = 'v1'): Stage {
  const held = new Map<string, number>()
  const credentials = new Map<string, MintedCredential>()
  const leases: SharedState['leases'] = {
    async acquire({ jobKey }) {
      if (jobKey.includes('refused')) throw new AccessError('limit_sessions', 'this job holds enough')
      const credential = credentials.get(jobKey) ?? credentialOf(jobKey)
      credentials.set(jobKey, credential)
      const count = (by: number) => held.set(jobKey, (held.get(jobKey) ?? 0) + by)
      count(1)
      return { credential, release: () => count(-1), discard: () => credentials.delete(jobKey) }
    },
  }
  const limits = { maxUnauthenticated: 3, maxUnauthenticatedPerAddress: 2, maxSessions: 4 }
  const listen = { handshake_timeout: 15_000, max_unauthenticated: 10 }
  const snapshot = { config: { listen }, policy: { version } } as unknown as Snapshot
  const shared = {
    ...{ admission: createAdmission(() => limits), windows: createJobWindows(), bars: createBars(), leases },
    tickets: undefined,
    cancel: async () => 'unknown' as const,
  } as unknown as OwnState
  const stage: Stage = { workers: [], shared, held, accepting: true }
  const recorder = {
    get accepting() {
      return stage.accepting
    },
  } as Recorder
  const parts = { shared, recorder, current: () => snapshot } as unknown as FrontParts
  const numbers = createCredentialNumbers()
  for (let worker = 0; worker < 2; worker++) {
    const { ports } = portPair()
    const desk = createDesk(parts, numbers)
    createChannel<object, ToPrimary>(ports[0], desk.handlers, () => {})
    const primary = createChannel<ToPrimary, object>(ports[1], {}, () => {})
    const bars = createBars()
    stage.workers.push({ state: createRemoteState(primary, bars, () => snapshot), desk, bars })
  }
  return stage
}

/** As long as messages are under way. */
const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
}

const grant = (change: Partial<Grant> = {}): Grant => ({ ...grantOf({ policyVersion: 'v1' }), ...change })

test('a credential is one object for all sessions of a worker, and has its keys', async () => {
  const { workers } = stageOf()
  const job = principalOf('1')
  const [a, b] = await Promise.all([0, 1].map(() => workers[0]!.state.leases.acquire(job, grant())))
  const c = await workers[1]!.state.leases.acquire(job, grant())
  expect(a!.credential).toBe(b!.credential)
  expect(c.credential).toEqual(structuredClone(credentialOf(job.jobKey)))
  expect(c.credential).not.toBe(a!.credential)
})

test('limits are counted over both, and a release counts once however often it is called', async () => {
  const { workers, shared, held } = stageOf()
  const [one, two] = workers.map(({ state }) => state)
  const leave = await one!.admission.enter('10.0.0.1')
  await two!.admission.enter('10.0.0.1')
  await expect(one!.admission.enter('10.0.0.1')).rejects.toThrow('too many connections from 10.0.0.1')
  await two!.admission.enter('10.0.0.2')
  await expect(one!.admission.enter('10.0.0.3')).rejects.toThrow('too many connections are waiting')
  leave()
  leave()
  await settled()
  expect(shared.admission.unauthenticated).toBe(2)
  const jobs = ['1', '2', '3', '4'].map(principalOf)
  const leases = await Promise.all(jobs.map((job, index) => workers[index % 2]!.state.leases.acquire(job, grant())))
  await expect(one!.leases.acquire(principalOf('5'), grant())).rejects.toThrow('pgusher serves 4 sessions already')
  leases[0]!.release()
  leases[0]!.release()
  await settled()
  expect(held.get(jobs[0]!.jobKey)).toBe(0)
  expect(shared.admission.sessions).toBe(3)
  // A job that is refused for itself holds no place.
  await expect(one!.leases.acquire(principalOf('refused'), grant())).rejects.toThrow('this job holds enough')
  expect(shared.admission.sessions).toBe(3)
})

test('what a worker held is given back when it is gone, also what was under way', async () => {
  const { workers, shared, held } = stageOf()
  const [one, two] = workers
  const job = principalOf('1')
  await one!.state.admission.enter('10.0.0.1')
  await one!.state.leases.acquire(job, grant())
  await two!.state.leases.acquire(job, grant())
  const late = one!.state.leases.acquire(job, grant()).catch((error: AccessError) => error.code)
  one!.desk.clear()
  expect(await late).toBe('draining')
  expect([held.get(job.jobKey), shared.admission.sessions, shared.admission.unauthenticated]).toEqual([1, 1, 0])
  expect([one!.desk.size, two!.desk.size]).toEqual([0, 1])
})

test('a window that one worker opened is open at the other, and its connections are counted over both', async () => {
  const { workers } = stageOf()
  const [one, two] = workers.map(({ state }) => state.windows)
  const principal = principalOf('1')
  const windowed = grant({ jobWindow: 45 * MINUTE, windowConnections: 2 })
  const request = { principal, grant: windowed, address: '10.0.0.1', over: false }
  expect(await two!.knows(principal.tokenSha256)).toBe(false)
  expect(await one!.admit(request, 0)).toMatchObject({ connections: 0 })
  expect(await two!.knows(principal.tokenSha256)).toBe(true)
  const over = { ...request, over: true }
  expect(await two!.admit(over, MINUTE)).toMatchObject({ connections: 1 })
  await expect(two!.admit({ ...over, address: '10.0.0.2' }, MINUTE)).rejects.toMatchObject({ code: 'address_mismatch' })
  expect(await one!.admit(over, MINUTE)).toMatchObject({ connections: 2 })
  await expect(two!.admit(over, MINUTE)).rejects.toMatchObject({ code: 'limit_rate' })
  await expect(one!.check(over, MINUTE)).rejects.toMatchObject({ code: 'limit_rate' })
  await expect(one!.admit(over, 46 * MINUTE)).rejects.toMatchObject({ code: 'token_expired' })
  // Without windows there is nothing to ask for.
  expect(() => one!.admit({ ...over, grant: grant() }, MINUTE)).toThrow('has no job_window')
})

test('a job that keeps trying at any worker stays barred where the next worker begins', async () => {
  const { workers, shared } = stageOf()
  const { state, bars } = workers[0]!
  const principal = principalOf('1')
  const target = { jobKey: principal.jobKey }
  const why = { user: 'ops', reason: 'enough' }
  for (const one of [shared.bars, bars]) one.bar(target, why, 1)
  const [before] = shared.bars.list()
  const until = before!.until
  before!.until = until - MINUTE
  expect(() => state.bars.refuse(principal)).toThrow('the operator (ops) has ended this job: enough')
  await settled()
  expect(shared.bars.list()[0]!.until).toBeGreaterThanOrEqual(until)
  const next = createBars()
  for (const bar of shared.bars.list()) next.put(bar)
  expect(() => next.refuse(principal)).toThrow('enough')
})

test("while the primary's audit cannot be written no session starts: its credential could not be on record", async () => {
  const stage = stageOf()
  stage.accepting = false
  const refused = stage.workers[0]!.state.leases.acquire(principalOf('1'), grant())
  await expect(refused).rejects.toMatchObject({ code: 'audit_unavailable' })
  expect(stage.shared.admission.sessions).toBe(0)
})
