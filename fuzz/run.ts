/** `npm run fuzz`: damaged sessions, logins, tokens and policies, in this process and against a real pgusher. See README.md. */
import { parseArgs } from 'node:util'
import { fuzzLive } from './live.ts'
import { PARSERS } from './parsers.ts'
import type { Budget, Outcome } from './part.ts'
import { fuzzPolicies } from './policies.ts'
import { fuzzSessions } from './sessions.ts'

interface Part {
  /** Of the seconds. */
  share: number
  run(budget: Budget): Promise<Outcome>
}

const PARTS: Readonly<Record<string, Part>> = {
  sessions: { share: 0.4, run: fuzzSessions },
  startup: { share: 0.06, run: PARSERS['startup']! },
  sasl: { share: 0.06, run: PARSERS['sasl']! },
  login: { share: 0.06, run: PARSERS['login']! },
  tokens: { share: 0.08, run: PARSERS['tokens']! },
  policies: { share: 0.09, run: fuzzPolicies },
  live: { share: 0.25, run: fuzzLive },
}

/** Milliseconds, at p99: what a session waits for others at most. */
const MAX_DELAY = 50

const USAGE = `npm run fuzz -- [options]
  --seconds N   at most, in all; 120 without it
  --count N     frames each way for sessions, a tenth of it and less for the other parts; 1000000 without it
  --seed N      the same seed plays the same cases; a random one without it
  --only PART   ${Object.keys(PARTS).join(', ')}
  --case N      one case of that part`

function settingsOf(argv: readonly string[]) {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      seconds: { type: 'string', default: '120' },
      count: { type: 'string', default: '1000000' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 0x7fffffff)) },
      only: { type: 'string' },
      case: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  const [seconds, count, seed] = [Number(values.seconds), Number(values.count), Number(values.seed)]
  const unknown = values.only !== undefined && PARTS[values.only] === undefined
  const bad = [seconds, count, seed].some((value) => !Number.isFinite(value) || value < 0)
  if (values.help || unknown || bad) throw new Error(USAGE)
  return { seconds, count, seed, only: values.only, case: values.case === undefined ? undefined : Number(values.case) }
}

function print({ part, cases, figures, p99, violations }: Outcome, seconds: number): void {
  const shown = Object.entries(figures).map(([name, value]) => `${name} ${value.toLocaleString('en')}`)
  shown.push(`${part === 'live' ? 'loop delay beyond that' : 'held the loop for'} ${p99.toFixed(2)} ms at p99`)
  console.log(
    `${part.padEnd(9)} ${cases.toLocaleString('en').padStart(9)} cases in ${seconds.toFixed(1).padStart(5)} s; ${shown.join(', ')}`,
  )
  for (const violation of violations) console.error(`  FAILED ${violation}`)
}

const settings = settingsOf(process.argv.slice(2))
console.log(
  `seed ${settings.seed}, ${settings.count.toLocaleString('en')} frames each way, at most ${settings.seconds} s`,
)
let failed = 0
for (const [name, { share, run }] of Object.entries(PARTS)) {
  if (settings.only !== undefined && settings.only !== name) continue
  const began = performance.now()
  const seconds = settings.only === undefined ? settings.seconds * share : settings.seconds
  const outcome = await run({ ...settings, deadline: began + seconds * 1_000, only: settings.case })
  if (!(outcome.p99 < MAX_DELAY)) outcome.violations.push(`${name}: ${outcome.p99.toFixed(1)} ms at p99`)
  print(outcome, (performance.now() - began) / 1_000)
  failed += outcome.violations.length
}
console.log(failed === 0 ? 'nothing failed' : `${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
