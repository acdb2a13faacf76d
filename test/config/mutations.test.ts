// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables of our configuration look like that
import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatDiagnostics } from '../../src/config/diagnostics.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import { writeConfig } from './write-config.ts'

const EXAMPLE = await readFile(new URL('../../config/pgusher.example.yaml', import.meta.url), 'utf8')
const LINES = EXAMPLE.split('\n').filter((line) => !/^\s*(#|$)/.test(line))
const ENV = { PGUSHER_ADMIN_PASSWORD: 'x' }

const PIECE = fc.constantFrom(
  '',
  ' ',
  '{}',
  '[]',
  'null',
  '3',
  '"',
  '- ',
  ': ',
  '&a ',
  '*a',
  '!!str ',
  'true',
  '\t',
  '# ',
  '|',
  '${',
  '${X}',
  '__proto__',
  '\u0000',
  '🙂',
  '@',
)

/** A line of the example, damaged: a piece put in the place of some characters. */
const DAMAGE = fc.record({ line: fc.nat(LINES.length - 1), from: fc.nat(60), length: fc.nat(12), piece: PIECE })

test('a damaged file loads or has problems that point into it, and never anything else', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(DAMAGE, { minLength: 1, maxLength: 4 }), async (damages) => {
      const lines = [...LINES]
      for (const { line, from, length, piece } of damages) {
        const old = lines[line] ?? ''
        lines[line] = old.slice(0, from) + piece + old.slice(from + length)
      }
      const result = await loadPolicy(await writeConfig(lines.join('\n')), ENV, { checkFiles: false })
      if (result.ok) return
      expect(result.diagnostics.length).toBeGreaterThan(0)
      for (const one of result.diagnostics) {
        expect(one.line).toBeLessThanOrEqual(lines.length + 1)
        expect(one.column).toBeGreaterThan(0)
        if (one.sourceLine !== undefined) expect(one.column).toBeLessThanOrEqual(one.sourceLine.length + 1)
      }
      expect(formatDiagnostics(result.diagnostics)).toMatch(/errors?(, \d+ warnings?)?\n$/)
    }),
    { numRuns: 150 },
  )
})
