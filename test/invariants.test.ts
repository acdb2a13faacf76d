/**
 * docs/invariants.md is a map from what must always hold to the tests that show it. The map is complete, leads to tests that exist
 * and are not left out, and no test claims an invariant without standing in it.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type Node, nodesOf, readSources, type Source } from './source-tree.ts'

const COUNT = 43
const NUMBERS = Array.from({ length: COUNT }, (_, index) => index + 1)

interface NamedTest {
  /** From `test/` on. */
  file: string
  /** As it stands in the source, with its placeholders. */
  name: string
  /** True where it stands in an `if`: a machine may lack what it needs. */
  conditional: boolean
  /** `each`, `skip`, `runIf`, …, of the call and of those around it. */
  modifiers: string[]
}

/** `test`, `test.each(…)`, `describe.skipIf(…)`: the words of the callee. Undefined for any other call. */
function calleeWords(node: Node): string[] | undefined {
  if (node.type === 'Identifier') return [String(node['name'])]
  if (node.type === 'MemberExpression') {
    const inner = calleeWords(node['object'] as Node)
    return inner && [...inner, String((node['property'] as Node)['name'])]
  }
  if (node.type === 'CallExpression') return calleeWords(node['callee'] as Node)
  return undefined
}

/** The text of a string or of a template literal, placeholders and all. */
function textOf(node: Node | undefined, { text }: Source): string | undefined {
  if (node?.type === 'Literal' && typeof node['value'] === 'string') return node['value']
  return node?.type === 'TemplateLiteral' ? text.slice(node.start + 1, node.end - 1) : undefined
}

function testsOf(source: Source): NamedTest[] {
  const nodes = [...nodesOf(source.ast)]
  const conditions = nodes.filter(({ type }) => type === 'IfStatement')
  const calls = nodes.flatMap((node) => {
    const [root, ...modifiers] = node.type === 'CallExpression' ? (calleeWords(node) ?? []) : []
    const name = textOf((node['arguments'] as Node[] | undefined)?.[0], source)
    return /^(?:test|it|describe)$/.test(root ?? '') && name !== undefined ? [{ node, name, modifiers }] : []
  })
  const within = (outer: Node, inner: Node): boolean => outer.start <= inner.start && inner.end <= outer.end
  return calls.map(({ node, name }) => ({
    file: source.path.replace(/^test\//, ''),
    name,
    conditional: conditions.some((condition) => within(condition, node)),
    modifiers: calls.filter((call) => within(call.node, node)).flatMap((call) => call.modifiers),
  }))
}

interface Line {
  number: number
  title: string
  /** What stands beside the list of tests. */
  reason: string
  tests: { file: string; name: string }[]
}

function linesOf(document: string): Line[] {
  return document
    .split(/^### (?=\d)/m)
    .slice(1)
    .map((section) => {
      const [, number = '', title = ''] = /^(\d+)\. (.+)$/m.exec(section) ?? []
      const tests = [...section.matchAll(/^- `([\w./-]+\.test\.ts)`: (.+)$/gm)]
      const reason =
        section
          .split('\n')
          .slice(1)
          .join('\n')
          .split(/^(?:- |## )/m)[0] ?? ''
      return {
        ...{ number: Number(number), title, reason: reason.trim() },
        tests: tests.map(([, file = '', name = '']) => ({ file, name })),
      }
    })
}

const all = readSources('test/**/*.test.ts')
  .filter(({ path }) => path !== 'test/invariants.test.ts')
  .flatMap(testsOf)
const lines = linesOf(readFileSync(new URL('../docs/invariants.md', import.meta.url), 'utf8'))

/** The map leaves the number out: the heading has it. */
const isMeant = (entry: { file: string; name: string }, number: number, one: NamedTest): boolean =>
  one.file === entry.file && (one.name === entry.name || one.name === `invariant ${number}: ${entry.name}`)

test('the map has every number once, in order, each with its reason', () => {
  expect(lines.map(({ number }) => number)).toEqual(NUMBERS)
  expect(lines.filter(({ reason }) => reason.length < 60).map(({ title }) => title)).toEqual([])
})

describe.each(NUMBERS)('number %i', (number) => {
  const named = all.filter(({ name }) => name.startsWith(`invariant ${number}: `))
  const entries = lines.find((line) => line.number === number)?.tests ?? []

  test('has a test of its name that every machine runs', () => {
    expect(named.filter(({ conditional }) => !conditional).length).toBeGreaterThan(0)
  })

  test('has tests in the map, and they exist', () => {
    expect(entries.length).toBeGreaterThan(0)
    expect(entries.filter((entry) => !all.some((one) => isMeant(entry, number, one)))).toEqual([])
  })

  test('has no test that the map does not know', () => {
    const unknown = named.filter((one) => !entries.some((entry) => isMeant(entry, number, one)))
    expect(unknown.map(({ file, name }) => `- \`${file}\`: ${name.replace(/^invariant \d+: /, '')}`)).toEqual([])
  })

  test('is not left out', () => {
    const mapped = all.filter((one) => entries.some((entry) => isMeant(entry, number, one)))
    const left = mapped.filter(({ modifiers }) =>
      modifiers.some((word) => /^(?:skip|todo|only|fails|runIf)/.test(word)),
    )
    expect(left.map(({ file, name }) => `${file}: ${name}`)).toEqual([])
  })
})

test('no test names an invariant that there is not, or in another way', () => {
  const strays = all.filter(({ name }) => /\binvariants?\b/i.test(name) && !/^invariant (\d+): \S/.test(name))
  const beyond = all.filter(({ name }) => Number(/^invariant (\d+): /.exec(name)?.[1] ?? 1) > COUNT)
  expect([...strays, ...beyond].map(({ file, name }) => `${file}: ${name}`)).toEqual([])
})
