/** The windows against what the documents promise, told from the history of everything that happened. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import type { Principal } from '../../src/identity/principal.ts'
import type { Grant } from '../../src/policy/types.ts'
import { createJobWindows, type JobWindows } from '../../src/session/job-windows.ts'
import { grantOf, principalOf } from '../support/mint.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

const principal = (run: string, token = `${run}/t`): Principal => ({ ...principalOf(run), tokenSha256: token })
const windowed = (change: Partial<Grant> = {}): Grant => grantOf({ jobWindow: 45 * MINUTE, ...change })

/** `open 3` for a window that was used three times, `valid` for a token by itself, or the code of the refusal. */
function outcome(windows: JobWindows, request: Parameters<JobWindows['admit']>[0], now: number): string {
  try {
    const window = windows.admit(request, now)
    return window === undefined ? 'valid' : `open ${window.connections}`
  } catch (error) {
    if (error instanceof AccessError) return error.code
    throw error
  }
}

/** One way in, by its own clock. */
function doorOf(windows: JobWindows, grant = windowed()) {
  return (run: string, now: number, { token = `${run}/t`, over = false, address = 'home', by = grant } = {}) =>
    outcome(windows, { principal: principal(run, token), grant: by, address, over }, now)
}

test('a token that opened a window is good until it closes, from its own address', () => {
  const windows = createJobWindows()
  const enter = doorOf(windows)
  expect(enter('1', 0, { over: true })).toBe('token_expired')
  expect(enter('1', 0)).toBe('open 0')
  expect(enter('1', 40 * MINUTE, { over: true })).toBe('open 1')
  expect(enter('1', 40 * MINUTE, { over: true, address: 'elsewhere' })).toBe('address_mismatch')
  expect(enter('1', 45 * MINUTE - 1, { over: true })).toBe('open 2')
  expect(enter('1', 45 * MINUTE, { over: true })).toBe('token_expired')
})

test('a stolen copy is refused while the token is valid too, and for every rule that binds tokens', () => {
  const windows = createJobWindows()
  const enter = doorOf(windows)
  expect(enter('1', 0)).toBe('open 0')
  expect(enter('1', 1, { address: 'elsewhere' })).toBe('address_mismatch')
  const other = windowed({ rule: 'another', database: 'warehouse' })
  expect(enter('1', 1, { address: 'elsewhere', by: other })).toBe('address_mismatch')
  expect(enter('1', 1, { address: 'elsewhere', by: windowed({ rule: 'anywhere', anyAddress: true }) })).toBe('open 0')
  expect(enter('1', 1, { address: 'elsewhere', by: grantOf({ rule: 'no window' }) })).toBe('valid')
})

test('a fresh token of the same job attempt neither extends a window nor opens another one', () => {
  const windows = createJobWindows()
  const enter = doorOf(windows)
  enter('1', 0)
  expect(enter('1', 40 * MINUTE, { token: 'second' })).toBe('open 0')
  expect(windows.listOpen(40 * MINUTE)).toMatchObject([{ openedAt: 0, closesAt: 45 * MINUTE }])
  expect(enter('1', 50 * MINUTE, { token: 'third' })).toBe('valid')
  expect(enter('1', 51 * MINUTE, { token: 'third', over: true })).toBe('token_expired')
  expect(enter('2', 51 * MINUTE)).toBe('open 0')
})

test('a reload closes what the policy no longer gives, for good; a shorter window is shorter at once and stays so', () => {
  const windows = createJobWindows()
  const enter = doorOf(windows)
  enter('1', 0)
  enter('1', 0, { by: windowed({ database: 'warehouse' }) })
  expect(windows.closeDisallowed((_principal, grant) => (grant.database === 'warehouse' ? undefined : grant), 1)).toBe(
    1,
  )
  expect(enter('1', 2, { over: true })).toBe('token_expired')
  expect(enter('1', 2)).toBe('valid')

  enter('2', 0)
  const shorter = windowed({ jobWindow: 10 * MINUTE })
  expect(windows.closeDisallowed(() => shorter, 5 * MINUTE)).toBe(0)
  expect(enter('2', 9 * MINUTE, { over: true })).toBe('open 1')
  expect(enter('2', 11 * MINUTE, { over: true })).toBe('token_expired')

  enter('3', 20 * MINUTE)
  expect(windows.closeDisallowed((_principal, grant) => grantOf({ rule: grant.rule }), 21 * MINUTE)).toBe(1)
})

test('a clock that is set back opens nothing that was closed', () => {
  const windows = createJobWindows()
  const enter = doorOf(windows)
  enter('1', HOUR)
  enter('2', HOUR)
  expect(windows.closeJobs(new Set([principal('1').jobKey]), HOUR + MINUTE)).toBe(1)
  expect(windows.closeDisallowed(() => undefined, HOUR + MINUTE)).toBe(1)
  expect(enter('1', HOUR - 1, { over: true })).toBe('token_expired')
  expect(enter('2', HOUR - 1, { over: true })).toBe('token_expired')
  expect(windows.listOpen(HOUR - 1)).toEqual([])
})

test('memory is bounded in windows and tokens, and old windows go first', () => {
  const limits = { windows: 20, tokensEach: 5, tokens: 30 }
  // Few jobs with many tokens, or many jobs.
  const step = fc.record({ run: fc.oneof(fc.nat(12), fc.nat(60)), token: fc.nat(12), minutes: fc.nat(60) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300, size: 'max' }), (steps) => {
      const windows = createJobWindows(limits)
      const enter = doorOf(windows)
      const names = new Set<string>()
      let now = 0
      for (const { run, token, minutes } of steps) {
        now += minutes * MINUTE
        enter(String(run), now, { token: `${run}/${token}` })
        names.add(`${run}/${token}`)
        expect(windows.size).toBeLessThanOrEqual(limits.windows)
        expect([...names].filter((name) => windows.knows(name)).length).toBeLessThanOrEqual(limits.tokens)
      }
      // The next window that is opened clears away what is a day over.
      enter('next', now + 25 * HOUR)
      expect(windows.size).toBe(1)
    }),
    { numRuns: 60 },
  )
})

test('a job with a token for each connection forgets its own oldest and nobody else is the worse for it', () => {
  const windows = createJobWindows({ windows: 20, tokensEach: 5, tokens: 30 })
  const enter = doorOf(windows)
  enter('1', 0)
  for (let token = 0; token < 12; token++) expect(enter('2', 1, { token: `2/${token}` })).toBe('open 0')
  expect(windows.knows('1/t')).toBe(true)
  expect(enter('2', 10 * MINUTE, { token: '2/6', over: true })).toBe('token_expired')
  expect(enter('2', 10 * MINUTE, { token: '2/7', over: true })).toBe('open 1')
})

interface Rule {
  allowed: boolean
  window: number | undefined
  anyAddress: boolean
  cap: number
}

type Step =
  | { kind: 'connect'; run: string; token: string; rule: string; address: string }
  | { kind: 'kill'; run: string }
  | { kind: 'reload'; rules: Record<string, Rule> }
  | { kind: 'wait'; by: number }

const TOKEN_LIFE = 5 * MINUTE
const ruleOf = fc.record<Rule>({
  allowed: fc.boolean(),
  window: fc.constantFrom(undefined, 7 * MINUTE, 20 * MINUTE, HOUR),
  anyAddress: fc.boolean(),
  cap: fc.constantFrom(1, 3, 100),
})
const rulesOf = fc.record({ r: ruleOf, s: ruleOf })
const stepOf: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('connect' as const),
      run: fc.constantFrom('1', '2'),
      token: fc.constantFrom('a', 'b'),
      rule: fc.constantFrom('r', 'r', 's'),
      address: fc.constantFrom('home', 'home', 'home', 'elsewhere'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('kill' as const), run: fc.constantFrom('1', '2') }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reload' as const), rules: rulesOf }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      by: fc.integer({ min: 1, max: 12 }).map((n) => n * MINUTE),
    }),
  },
)

/** What has happened; what should happen is told from this alone. */
type Happened =
  | { at: number; kind: 'first'; run: string; rule: string }
  | { at: number; kind: 'seen'; run: string; rule: string; token: string; address: string; bound: boolean }
  | { at: number; kind: 'used'; run: string; rule: string }
  | { at: number; kind: 'kill'; run: string }
  | { at: number; kind: 'policy'; rules: Record<string, Rule> }

/** The promise of docs/long-jobs.md about one connection that the policy allows. */
function promised(
  past: readonly Happened[],
  { run, rule, token, address }: Step & { kind: 'connect' },
  now: number,
  over: boolean,
  { window, anyAddress, cap }: Rule,
): string {
  if (window === undefined) return over ? 'token_expired' : 'valid'
  const isOwn = (one: Happened) => 'run' in one && one.run === run && (!('rule' in one) || one.rule === rule)
  const seen = past.filter((one) => one.kind === 'seen')
  if (over && !seen.some((one) => isOwn(one) && one.token === token)) return 'token_expired'
  const home = seen.find((one) => one.token === token && one.bound)?.address
  if (!anyAddress && home !== undefined && home !== address) return 'address_mismatch'
  const opened = past.findIndex((one) => one.kind === 'first' && isOwn(one))
  if (opened < 0) return 'open 0'
  const since = past.slice(opened + 1)
  const openedAt = past[opened]?.at ?? 0
  const windowsSince = since.flatMap((one) => (one.kind === 'policy' ? [one.rules[rule]] : []))
  const inForce = past.slice(0, opened).findLast((one) => one.kind === 'policy')
  const all = [...(inForce?.kind === 'policy' ? [inForce.rules[rule]] : []), ...windowsSince]
  const ended =
    since.some((one) => one.kind === 'kill' && isOwn(one)) ||
    all.some((one) => one?.allowed !== true || now >= openedAt + (one.window ?? 0))
  if (ended) return over ? 'token_expired' : 'valid'
  const used = since.filter((one) => one.kind === 'used' && isOwn(one)).length
  if (over && used >= cap) return 'limit_rate'
  return `open ${used + (over ? 1 : 0)}`
}

test('whatever the order of connections, waiting, kills and reloads: as promised', () => {
  fc.assert(
    fc.property(rulesOf, fc.array(stepOf, { maxLength: 60, size: 'max' }), (firstRules, steps) => {
      const windows = createJobWindows()
      let now = 0
      let rules: Record<string, Rule> = firstRules
      const past: Happened[] = [{ at: now, kind: 'policy', rules }]
      const grantNow = (rule: string): Grant => {
        const { window, anyAddress, cap } = rules[rule]!
        const base = grantOf({ rule, anyAddress, windowConnections: cap })
        return window === undefined ? base : { ...base, jobWindow: window }
      }
      for (const step of steps) {
        if (step.kind === 'wait') now += step.by
        if (step.kind === 'kill') {
          windows.closeJobs(new Set([principal(step.run).jobKey]), now)
          past.push({ at: now, kind: 'kill', run: step.run })
        }
        if (step.kind === 'reload') {
          rules = step.rules
          windows.closeDisallowed((_job, { rule }) => (rules[rule]?.allowed === true ? grantNow(rule) : undefined), now)
          past.push({ at: now, kind: 'policy', rules })
        }
        if (step.kind !== 'connect' || rules[step.rule]?.allowed !== true) continue
        const { run, rule, address } = step
        const token = `${run}${step.token}`
        // The second token of a job is fetched later than its first.
        const over = now >= (step.token === 'a' ? TOKEN_LIFE : 4 * TOKEN_LIFE)
        const wanted = promised(past, { ...step, token }, now, over, rules[rule]!)
        const request = { principal: principal(run, token), grant: grantNow(rule), address, over }
        expect(outcome(windows, request, now), JSON.stringify({ step, now, past })).toBe(wanted)
        if (rules[rule]?.window === undefined || wanted === 'address_mismatch' || isStranger(past, step, token, over))
          continue
        if (!past.some((one) => one.kind === 'first' && one.run === run && one.rule === rule))
          past.push({ at: now, kind: 'first', run, rule })
        past.push({ at: now, kind: 'seen', run, rule, token, address, bound: rules[rule]?.anyAddress !== true })
        if (over && wanted.startsWith('open')) past.push({ at: now, kind: 'used', run, rule })
      }
    }),
    { numRuns: 2_000 },
  )
})

/** An expired token that never came while it was valid leaves nothing behind. */
function isStranger(
  past: readonly Happened[],
  { run, rule }: { run: string; rule: string },
  token: string,
  over: boolean,
) {
  return over && !past.some((one) => one.kind === 'seen' && one.run === run && one.rule === rule && one.token === token)
}
