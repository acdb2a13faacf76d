/** The rules of docs/architecture.md that a program can check, over the source itself. */
import { readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { expect, test } from 'vitest'
import { functionsOf, importsOf, nodesOf, parseSource, readSources } from './source-tree.ts'

/** A file or folder imports from its own and from those before it, nothing else. */
const LAYERS = [
  'errors',
  'telemetry',
  'wire',
  'sasl',
  'config',
  'identity',
  'policy',
  'credentials',
  'audit',
  'frontend',
  'upstream',
  'session',
  'http',
  'client',
  'proxy',
  'workers',
  'cli',
]

const MAX_FILE = 400
const MEDIAN_FILE = 120
const MAX_FUNCTION = 60

/** Functions over the limit, each with the reason and a limit of its own. */
const LONG_FUNCTIONS: Readonly<Record<string, number>> = {
  // The life of a connection in one piece, from top to bottom: that is what it is for.
  'src/session/handle-connection.ts openSession': 130,
  // Joins two pumps, two handlers and a tracker, which know each other; the rest of it is functions within.
  'src/session/relay.ts startRelay': 75,
  // One YAML text.
  'src/cli/demo/policy-file.ts policyFile': 85,
}

const sources = readSources('src/**/*.ts')
const imports = sources.flatMap(importsOf)
const manifest: { dependencies: Record<string, string> } = readJson('package.json')

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')) as T
}

const isRelative = (specifier: string): boolean => specifier.startsWith('.')
const isDemo = (path: string): boolean => path.startsWith('src/cli/demo/')
const resolved = (from: string, specifier: string): string => posix.join(posix.dirname(from), specifier)

/** `src/wire/reader.ts` is of `wire`, `src/errors.ts` of `errors`. */
const layerOf = (path: string): string => path.split('/')[1]?.replace(/\.ts$/, '') ?? ''

/** `@peculiar/x509/build/x` is of `@peculiar/x509`. */
const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

test('there is source, and every part of it has its place in the layers', () => {
  expect(sources.length).toBeGreaterThan(100)
  expect([...new Set(sources.map(({ path }) => layerOf(path)))].toSorted()).toEqual(LAYERS.toSorted())
})

test('imports of each kind and functions of each kind are seen', () => {
  const sample = parseSource(
    'src/x.ts',
    `import type { A } from './a.ts'
     import './b.ts'
     export * from './c.ts'
     export { d } from './d.ts'
     const e = () => import('./e.ts')
     let f: import('./f.ts').F
     class G { h() {\n\n } }
     function outer() {\n const inner = () => {\n\n }\n }`,
  )
  expect(importsOf(sample).map(({ specifier, dynamic }) => `${specifier}${dynamic ? ' later' : ''}`)).toEqual([
    './a.ts',
    './b.ts',
    './c.ts',
    './d.ts',
    './e.ts later',
    './f.ts',
  ])
  expect(functionsOf(sample).map(({ name, lines }) => `${name} ${lines}`)).toEqual(['e 1', 'h 3', 'inner 3', 'outer 2'])
})

test('a layer imports only from itself and from the layers above it', () => {
  const wrong = imports
    .filter(({ specifier }) => isRelative(specifier))
    .map(({ from, specifier }) => ({ from, to: resolved(from, specifier) }))
    .filter(({ from, to }) => !to.startsWith('src/') || LAYERS.indexOf(layerOf(to)) > LAYERS.indexOf(layerOf(from)))
    .map(({ from, to }) => `${from} imports ${to}`)
  expect(wrong).toEqual([])
})

test('the package runs without development dependencies: only the demo may import them, and nothing imports the demo but its command', () => {
  const allowed = new Set(Object.keys(manifest.dependencies))
  const wrong = imports.filter(({ from, specifier, dynamic }) => {
    if (isRelative(specifier)) {
      const to = resolved(from, specifier)
      return !isDemo(from) && isDemo(to) && !(dynamic && to === 'src/cli/demo/command.ts')
    }
    return !specifier.startsWith('node:') && !isDemo(from) && !allowed.has(packageOf(specifier))
  })
  expect(wrong).toEqual([])
})

test('a dependency that the package does not use is not in it', () => {
  const used = new Set(imports.map(({ specifier }) => packageOf(specifier)))
  expect(Object.keys(manifest.dependencies).filter((name) => !used.has(name))).toEqual([])
})

test('no production dependency runs a script when it is installed', () => {
  const lock: { packages: Record<string, { hasInstallScript?: boolean; dev?: boolean }> } =
    readJson('package-lock.json')
  const scripted = Object.entries(lock.packages).filter(([, one]) => one.hasInstallScript === true && one.dev !== true)
  expect(scripted.map(([name]) => name)).toEqual([])
})

test("pg-protocol never reads what a job sends: its parser misreads a frontend's messages and takes negative lengths", () => {
  const users = imports
    .filter(({ specifier }) => packageOf(specifier) === 'pg-protocol')
    .map(({ from }) => layerOf(from))
  expect([...new Set(users)].filter((layer) => layer !== 'upstream' && layer !== 'credentials')).toEqual([])
})

test('the environment is read by commands only', () => {
  const wrong = sources
    .filter(({ path }) => layerOf(path) !== 'cli')
    .filter(({ ast, path }) => {
      const importsEnv = imports.some(({ from, specifier }) => from === path && specifier === 'node:process')
      return importsEnv || [...nodesOf(ast)].some((node) => node.type === 'MemberExpression' && isProcessEnv(node))
    })
  expect(wrong.map(({ path }) => path)).toEqual([])
})

function isProcessEnv(node: { [key: string]: unknown }): boolean {
  const { object, property } = node as { object?: { name?: string }; property?: { name?: string; value?: string } }
  return object?.name === 'process' && (property?.name ?? property?.value) === 'env'
}

test('Node runs the source as it is: no enums, namespaces or parameter properties', () => {
  const kinds = new Set(['TSEnumDeclaration', 'TSModuleDeclaration', 'TSParameterProperty', 'TSExportAssignment'])
  const wrong = sources.flatMap(({ path, ast }) =>
    [...nodesOf(ast)].filter(({ type }) => kinds.has(type)).map(({ type }) => `${path}: ${type}`),
  )
  expect(wrong).toEqual([])
})

test(`no file has more than ${MAX_FILE} lines, and most have less than ${MEDIAN_FILE}`, () => {
  const sizes = sources.map(({ lines }) => lines).toSorted((a, b) => a - b)
  expect(sources.filter(({ lines }) => lines > MAX_FILE).map(({ path, lines }) => `${path}: ${lines}`)).toEqual([])
  expect(sizes[Math.floor(sizes.length / 2)]).toBeLessThan(MEDIAN_FILE)
})

test(`no function has more than ${MAX_FUNCTION} lines of its own, but for those that are named here`, () => {
  const long = sources
    .flatMap(functionsOf)
    .map(({ path, name, lines }) => ({ name: `${path} ${name}`, lines }))
    .filter(({ name, lines }) => lines > (LONG_FUNCTIONS[name] ?? MAX_FUNCTION))
  expect(long).toEqual([])
})

test('the list of long functions holds no one that has become short', () => {
  const long = sources.flatMap(functionsOf).filter(({ lines }) => lines > MAX_FUNCTION)
  const names = new Set(long.map(({ path, name }) => `${path} ${name}`))
  expect(Object.keys(LONG_FUNCTIONS).filter((name) => !names.has(name))).toEqual([])
})

test('no drawers, nothing put off, no check switched off, no test left out', () => {
  const all = [...sources, ...['test', 'bench', 'fuzz', 'soak'].flatMap((place) => readSources(`${place}/**/*.ts`))]
  const drawers = all.filter(({ path }) => /(^|\/)(utils?|helpers?|common|misc|shared)(\.ts|\/)/.test(path))
  expect(drawers.map(({ path }) => path)).toEqual([])
  // The words are put together, so that this file does not hold what it looks for.
  const marks = new RegExp(
    `\\b(?:${['TO', 'DO'].join('')}|${['FIX', 'ME'].join('')})\\b|@ts-(?:ignore|nocheck|expect-error)`,
  )
  const leftOut = /\b(test|it|describe)\.(only|skip|todo)\b/
  const wrong = all.flatMap(({ path, text }) =>
    text
      .split('\n')
      .map((line, index) => ({ line, at: `${path}:${index + 1}` }))
      .filter(({ line }) => marks.test(line) || (path.startsWith('test/') && leftOut.test(line)))
      .map(({ at, line }) => `${at}: ${line.trim()}`),
  )
  expect(wrong).toEqual([])
})
