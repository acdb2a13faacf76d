// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables of our configuration look like that
/** Damaged configurations: each loads or has problems that point into it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatDiagnostics } from '../src/config/diagnostics.ts'
import { evaluate } from '../src/policy/evaluate.ts'
import { loadPolicy } from '../src/policy/load.ts'
import { principalOf } from '../test/support/mint.ts'
import { mutateText } from './mutate.ts'
import { type Budget, type Case, type Outcome, playCases } from './part.ts'

const EXAMPLE = readFileSync(new URL('../config/pgusher.example.yaml', import.meta.url), 'utf8')
const WORDS = [
  '{}',
  '[]',
  'null',
  '&a ',
  '*a',
  '!!str ',
  '|',
  '${',
  '${X}',
  '- ',
  ': ',
  '{ glob: "',
  '{ in: [',
  'deny:',
  '30s',
  '1e9',
]
const ENV = { PGUSHER_ADMIN_PASSWORD: 'x' }

const playPolicy =
  (path: string): Case =>
  async (random, input) => {
    const lines = EXAMPLE.split('\n')
    for (let left = 1 + random.below(4); left > 0; left--) {
      const at = random.below(lines.length)
      lines[at] = mutateText(random, lines[at] ?? '', WORDS)
    }
    const text = lines.join('\n')
    input(text)
    writeFileSync(path, text)
    const result = await loadPolicy(path, ENV, { checkFiles: false })
    if (result.ok) {
      evaluate(result.policy, principalOf('1'), { user: 'shop_migrator', database: 'shop-prod' }, Date.now())
      return
    }
    if (result.diagnostics.length === 0) throw new Error('refused without a reason')
    if (!/errors?(, \d+ warnings?)?\n$/.test(formatDiagnostics(result.diagnostics)))
      throw new Error('a summary is missing')
  }

export async function fuzzPolicies(budget: Budget): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), 'pgusher-fuzz-'))
  try {
    return await playCases(
      'policies',
      budget,
      (cases) => cases >= budget.count / 200,
      playPolicy(join(directory, 'pgusher.yaml')),
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
}
