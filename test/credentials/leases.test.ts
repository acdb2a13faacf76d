import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type CredentialEvent, createLeases, type Leases } from '../../src/credentials/leases.ts'
import type { MintedCredential, Minter, RevokeReason } from '../../src/credentials/minter.ts'
import { AccessError } from '../../src/errors.ts'
import { grantOf, principalOf } from '../support/mint.ts'

/** A minter whose every answer the test decides, for orders of events that a real server does not show at will. */
function createManualMinter(linger = 0) {
  const live = new Set<string>()
  const pending: { resolve(): void; reject(error: Error): void }[] = []
  let count = 0
  let manual = false
  let broken: string | undefined
  const minter: Minter = {
    linger,
    async mint(_principal, grant, expiresAt): Promise<MintedCredential> {
      const login = `pgu_${++count}`
      if (manual) await new Promise<void>((resolve, reject) => pending.push({ resolve, reject }))
      live.add(login)
      const secret = { type: 'certificate' as const, cert: '', key: '' }
      return { kind: 'ephemeral-role', login, assumeRole: grant.role, secret, validUntil: expiresAt }
    },
    async revoke({ login }: MintedCredential, _reason: RevokeReason) {
      if (broken !== undefined) throw new Error(broken)
      live.delete(login)
    },
    async sweep() {
      return { removed: ['pgu_orphan'], failed: [{ login: 'pgu_stuck', reason: 'prepared transaction' }] }
    },
    async check() {
      return []
    },
    async close() {},
  }
  return {
    minter,
    live,
    minted: () => count,
    hold: () => {
      manual = true
    },
    pending,
    breakRevoke: (reason: string | undefined) => {
      broken = reason
    },
  }
}

const START = Date.UTC(2026, 10, 21)
let world: ReturnType<typeof createManualMinter>
let events: CredentialEvent[]
let leases: Leases

function begin(linger = 0): void {
  world = createManualMinter(linger)
  events = []
  leases = createLeases({ minterFor: () => world.minter, onEvent: (event) => events.push(event) })
}

/** Lets everything run that waits for nothing but promises. */
const settle = () => vi.advanceTimersByTimeAsync(0)
const said = () => events.map(({ event, login, reason }) => `${event} ${login} ${reason}`)

beforeEach(() => {
  vi.useFakeTimers({ now: START })
  begin()
})
afterEach(() => {
  vi.useRealTimers()
})

describe('sharing', () => {
  test('sessions of one job and grant share one credential, which goes with the last of them', async () => {
    const all = await Promise.all([1, 2, 3].map(() => leases.acquire(principalOf('1'), grantOf())))
    expect(new Set(all.map(({ credential }) => credential.login))).toEqual(new Set(['pgu_1']))
    expect(all[0]?.credential.validUntil).toBe(START + 1_800_000 + 60_000)
    all[0]?.release()
    all[0]?.release()
    all[1]?.release()
    await settle()
    expect([...world.live]).toEqual(['pgu_1'])
    all[2]?.release()
    await settle()
    expect([...world.live]).toEqual([])
    expect(said()).toEqual(['credential.issued pgu_1 minted', 'credential.revoked pgu_1 job_ended'])
    expect(events[0]).toMatchObject({
      kind: 'ephemeral-role',
      alias: 'shop-prod',
      ttlSeconds: 1_860,
      principal: { jobKey: principalOf('1').jobKey },
      grant: { rule: 'migrate-production' },
    })
  })

  test('invariant 33: another job, role, rule, database or policy has another credential', async () => {
    const grants = [{}, { role: 'shop_reader' }, { rule: 'other' }, { database: 'shop-test' }, { policyVersion: '1' }]
    for (const change of grants) await leases.acquire(principalOf('1'), grantOf(change))
    await leases.acquire(principalOf('2'), grantOf())
    expect(world.live.size).toBe(6)
  })

  test('a reloaded database entry has credentials of its own', async () => {
    const first = await leases.acquire(principalOf('1'), grantOf())
    const old = world
    world = createManualMinter()
    await leases.acquire(principalOf('1'), grantOf())
    expect([old.minted(), world.minted()]).toEqual([1, 1])
    first.release()
    await settle()
    // Taken back by the minter that made it.
    expect([old.live.size, world.live.size]).toEqual([0, 1])
  })

  test('a herd waits for one mint; its failure reaches all of them and leaves nothing', async () => {
    world.hold()
    const herd = Array.from({ length: 5 }, () => leases.acquire(principalOf('1'), grantOf()))
    const outcomes = Promise.allSettled(herd)
    await settle()
    expect(world.pending).toHaveLength(1)
    world.pending[0]?.reject(new AccessError('credential_failed', 'no'))
    for (const outcome of await outcomes)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'credential_failed' } })
    const next = leases.acquire(principalOf('1'), grantOf())
    await settle()
    world.pending[1]?.resolve()
    expect((await next).credential.login).toBe('pgu_2')
    expect(said()).toEqual(['credential.issued pgu_2 minted'])
  })
})

describe('time', () => {
  test('a job that reconnects while the credential lingers gets the same one', async () => {
    begin(2_000)
    const first = await leases.acquire(principalOf('1'), grantOf())
    first.release()
    await vi.advanceTimersByTimeAsync(1_900)
    const second = await leases.acquire(principalOf('1'), grantOf())
    expect(second.credential).toBe(first.credential)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(world.live.size).toBe(1)
    second.release()
    await vi.advanceTimersByTimeAsync(1_999)
    expect(world.live.size).toBe(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(world.live.size).toBe(0)
  })

  test('a credential with less than 30 s left serves no new session, and lasts as long as its own', async () => {
    const first = await leases.acquire(principalOf('1'), grantOf({ maxSession: 60_000 }))
    await vi.advanceTimersByTimeAsync(90_000)
    expect((await leases.acquire(principalOf('1'), grantOf({ maxSession: 60_000 }))).credential.login).toBe('pgu_1')
    await vi.advanceTimersByTimeAsync(1_000)
    expect((await leases.acquire(principalOf('1'), grantOf({ maxSession: 60_000 }))).credential.login).toBe('pgu_2')
    first.release()
    await settle()
    expect([...world.live]).toEqual(['pgu_1', 'pgu_2'])
  })

  test('who comes while it is taken back gets a new one', async () => {
    const first = await leases.acquire(principalOf('1'), grantOf())
    first.release()
    const second = await leases.acquire(principalOf('1'), grantOf())
    expect(second.credential.login).toBe('pgu_2')
    await settle()
    expect([...world.live]).toEqual(['pgu_2'])
  })
})

describe('limits', () => {
  test('invariant 16: a job at its limit is told so before anything is minted, and others are not concerned', async () => {
    const grant = grantOf({ maxConnections: 2 })
    const held = [await leases.acquire(principalOf('1'), grant), await leases.acquire(principalOf('1'), grant)]
    await expect(leases.acquire(principalOf('1'), { ...grant, role: 'shop_reader' })).rejects.toMatchObject({
      code: 'limit_sessions',
      sqlstate: '53300',
      // A sentence, as every HINT.
      hint: expect.stringMatching(/^[A-Z].*\.$/),
      message: 'this job holds 2 sessions, and rule "migrate-production" allows no more than 2',
    })
    expect(world.minted()).toBe(1)
    await leases.acquire(principalOf('2'), grant)
    held[0]?.release()
    await leases.acquire(principalOf('1'), grant)
  })

  test('a failed mint holds no place', async () => {
    world.hold()
    const grant = grantOf({ maxConnections: 1 })
    for (let attempt = 0; attempt < 3; attempt++) {
      const failing = expect(leases.acquire(principalOf('1'), grant)).rejects.toThrow('down')
      await settle()
      world.pending[attempt]?.reject(new Error('down'))
      await failing
    }
  })
})

describe('failures and the end', () => {
  test('what could not be taken back is said once, tried again, and said to be gone', async () => {
    world.breakRevoke('a lock is in the way')
    const lease = await leases.acquire(principalOf('1'), grantOf())
    lease.release()
    await settle()
    expect(said()).toEqual(['credential.issued pgu_1 minted', 'credential.revoke_failed pgu_1 a lock is in the way'])
    await vi.advanceTimersByTimeAsync(15_000)
    expect(events).toHaveLength(2)
    world.breakRevoke(undefined)
    await vi.advanceTimersByTimeAsync(15_000)
    expect(said().at(-1)).toBe('credential.revoked pgu_1 job_ended')
    expect(world.live.size).toBe(0)
  })

  test('what the clock and two sweeps try again at the same time is gone once', async () => {
    world.breakRevoke('the server is away')
    const lease = await leases.acquire(principalOf('1'), grantOf())
    expect(leases.uses(world.minter)).toBe(true)
    lease.release()
    await settle()
    expect(leases.uses(world.minter)).toBe(true)
    world.breakRevoke(undefined)
    await Promise.all([leases.sweepNow(), leases.sweepNow(), vi.advanceTimersByTimeAsync(1_000)])
    expect(said().filter((text) => text.startsWith('credential.revoked'))).toEqual([
      'credential.revoked pgu_1 job_ended',
    ])
    expect(leases.uses(world.minter)).toBe(false)
  })

  test('a credential that the server does not take is given to no new session, and goes with its last one', async () => {
    const first = await leases.acquire(principalOf('1'), grantOf())
    first.discard()
    const second = await leases.acquire(principalOf('1'), grantOf())
    expect(second.credential.login).not.toBe(first.credential.login)
    first.release()
    await settle()
    expect([...world.live]).toEqual([second.credential.login])
  })

  test('a sweep reports orphans by database, and tries again what failed', async () => {
    world.breakRevoke('no')
    const lease = await leases.acquire(principalOf('1'), grantOf())
    lease.release()
    await settle()
    world.breakRevoke(undefined)
    expect(await leases.sweepNow(['shop-test'])).toEqual({
      removed: ['shop-prod', 'shop-test'].map((alias) => ({ login: 'pgu_orphan', alias })),
      failed: ['shop-prod', 'shop-test'].map((alias) => ({
        login: 'pgu_stuck',
        alias,
        reason: 'prepared transaction',
      })),
    })
    expect(world.live.size).toBe(0)
  })

  test('a database that cannot be looked at does not keep the others from being swept', async () => {
    const failing = createLeases({
      minterFor: (alias) => {
        if (alias === 'down') throw new AccessError('upstream_unreachable', 'down is down')
        return world.minter
      },
      onEvent: () => {},
    })
    const { removed, failed } = await failing.sweepNow(['down', 'shop-prod'])
    expect(removed).toEqual([{ login: 'pgu_orphan', alias: 'shop-prod' }])
    expect(failed[0]).toEqual({ login: '', alias: 'down', reason: 'down is down' })
    await expect(
      failing.acquire(principalOf('1'), grantOf({ database: 'down', maxConnections: 1 })),
    ).rejects.toMatchObject({ code: 'upstream_unreachable' })
    await expect(
      failing.acquire(principalOf('1'), grantOf({ database: 'down', maxConnections: 1 })),
    ).rejects.toMatchObject({ code: 'upstream_unreachable' })
  })

  test('the end takes everything back: in use, lingering and half made', async () => {
    begin(60_000)
    await leases.acquire(principalOf('1'), grantOf())
    const lingering = await leases.acquire(principalOf('2'), grantOf())
    lingering.release()
    world.hold()
    const halfMade = leases.acquire(principalOf('3'), grantOf())
    const refused = expect(halfMade).rejects.toMatchObject({ code: 'draining' })
    await settle()
    const end = leases.revokeAll('shutdown')
    world.pending[0]?.resolve()
    expect(await end).toEqual([])
    await refused
    expect(world.live.size).toBe(0)
    expect(said().filter((text) => text.endsWith('shutdown'))).toHaveLength(3)
    await expect(leases.acquire(principalOf('4'), grantOf())).rejects.toMatchObject({ code: 'draining' })
    expect(vi.getTimerCount()).toBe(0)
  })

  test('the end names what it could not take back', async () => {
    await leases.acquire(principalOf('1'), grantOf())
    world.breakRevoke('a lock is in the way')
    expect(await leases.revokeAll('shutdown')).toEqual([
      { login: 'pgu_1', alias: 'shop-prod', reason: 'a lock is in the way' },
    ])
    expect(vi.getTimerCount()).toBe(0)
  })
})
