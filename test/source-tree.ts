/** The source as syntax trees, for the tests that hold it to its own rules. The parser is the one that vitest itself brings. */
import { globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseAst } from 'vitest/node'

const ROOT = fileURLToPath(new URL('../', import.meta.url))

export interface Node {
  type: string
  start: number
  end: number
  [key: string]: unknown
}

export interface Source {
  /** From the repository's root. */
  path: string
  text: string
  lines: number
  ast: Node
}

export interface Import {
  from: string
  /** `./x.ts`, `node:fs`, `pg`. */
  specifier: string
  dynamic: boolean
}

export interface FunctionSize {
  path: string
  name: string
  /** Lines of its own: a function within it is counted by itself. */
  lines: number
}

export function parseSource(path: string, text: string): Source {
  return { path, text, lines: text.trimEnd().split('\n').length, ast: asNode(parseAst(text, { lang: 'ts' })) }
}

export function readSources(pattern: string): Source[] {
  return globSync(pattern, { cwd: ROOT })
    .toSorted()
    .map((path) => parseSource(path, readFileSync(`${ROOT}${path}`, 'utf8')))
}

/** Its nodes, depth first, itself included. */
export function* nodesOf(node: Node): Generator<Node> {
  yield node
  for (const child of childrenOf(node)) yield* nodesOf(child)
}

function childrenOf(node: Node): Node[] {
  return Object.values(node).flatMap((value) => (Array.isArray(value) ? value : [value]).filter(isNode))
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'
}

function asNode(value: unknown): Node {
  if (!isNode(value)) throw new TypeError('no syntax tree')
  return value
}

/** Imports of values and of types, re-exports, and `import('…')`. */
export function importsOf({ path, ast }: Source): Import[] {
  return [...nodesOf(ast)].flatMap((node) => {
    const source = node['source']
    if (!/^(Import|Export\w*)Declaration$|^ImportExpression$|^TSImportType$/.test(node.type) || !isNode(source))
      return []
    return [{ from: path, specifier: String(source['value']), dynamic: node.type === 'ImportExpression' }]
  })
}

const FUNCTIONS = new Set(['FunctionDeclaration', 'FunctionExpression', 'ArrowFunctionExpression'])

export function functionsOf({ path, text, ast }: Source): FunctionSize[] {
  const found: FunctionSize[] = []
  const span = ({ start, end }: Node): number => text.slice(start, end).split('\n').length

  /** @returns the lines of all functions within, which are not their parent's */
  function visit(node: Node, outer: string): number {
    const name = nameOf(node) ?? outer
    const inner = childrenOf(node).reduce((sum, child) => sum + visit(child, name), 0)
    if (!FUNCTIONS.has(node.type)) return inner
    const lines = span(node)
    found.push({ path, name, lines: lines - inner })
    return lines > 1 ? lines : 0
  }

  visit(ast, '(file)')
  return found
}

/** Of a function, or of what it is assigned to. */
function nameOf(node: Node): string | undefined {
  const id = node['id'] ?? node['key']
  return isNode(id) && typeof id['name'] === 'string' ? id['name'] : undefined
}
