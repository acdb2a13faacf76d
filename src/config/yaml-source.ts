/**
 * One YAML file as plain data with positions. Only the simple half of YAML 1.2 is taken: what makes two readers of a
 * policy see different things (anchors, aliases, merge keys, tags, directives, several documents, duplicate keys) is refused.
 */
import { type Document, isAlias, isMap, isScalar, isSeq, type Node, parseAllDocuments, type Scalar, visit } from 'yaml'
import { type Diagnostic, diagnostic, type Span } from './diagnostics.ts'
import { expandVariables } from './expand.ts'
import { isSecret } from './tree.ts'

export type Path = readonly (string | number)[]

/** How a scalar stands in the file, for messages about quoting. */
export interface ScalarSource {
  /** As written, without expansion; only a plain (unquoted) scalar can be a number or a boolean. */
  source: string
  plain: boolean
  /** True where a variable stood in it. */
  expanded: boolean
}

export interface YamlSource {
  file: string
  /** Plain objects, arrays and scalars; variables are expanded. Undefined where the file does not parse. */
  value: unknown
  diagnostics: Diagnostic[]
  /** Values that are reported already, because a variable in them has no value. */
  broken: Path[]
  /** Where a path stands; for a missing one its nearest ancestor. `key` points at the key rather than at the value. */
  locate(path: Path, prefer?: 'key' | 'value'): Span
  scalar(path: Path): ScalarSource | undefined
}

interface Place {
  key?: readonly [number, number]
  value?: readonly [number, number]
  scalar?: ScalarSource
}

interface Reader {
  file: string
  text: string
  /** Offset of each line's first character. */
  lineStarts: readonly number[]
  places: Map<string, Place>
  diagnostics: Diagnostic[]
  broken: Path[]
  env: Readonly<Record<string, string | undefined>>
}

export function readYaml(file: string, text: string, env: Readonly<Record<string, string | undefined>>): YamlSource {
  const reader: Reader = {
    file,
    text,
    lineStarts: lineStartsOf(text),
    places: new Map(),
    diagnostics: [],
    broken: [],
    env,
  }
  const document = parse(reader)
  let value: unknown
  if (document !== undefined) {
    refuseConstructs(reader, document)
    value = convert(reader, document.contents, [])
  }
  return {
    file,
    value,
    diagnostics: reader.diagnostics,
    broken: reader.broken,
    locate: (path, prefer = 'value') => locate(reader, path, prefer),
    scalar: (path) => reader.places.get(JSON.stringify(path))?.scalar,
  }
}

/** The parser's own LineCounter does not know the lines of a quoted scalar that is broken off. */
function lineStartsOf(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}

function spanAt({ file, text, lineStarts }: Reader, from: number, to: number): Span {
  let line = 0
  for (let above = lineStarts.length; above - line > 1; ) {
    const middle = (line + above) >> 1
    if ((lineStarts[middle] ?? 0) <= from) line = middle
    else above = middle
  }
  const start = lineStarts[line] ?? 0
  const end = text.indexOf('\n', start)
  const sourceLine = text.slice(start, end < 0 ? undefined : end).replace(/\r$/, '')
  // An error at the end of a line stands behind its last character.
  const column = Math.min(Math.max(0, from - start), sourceLine.length)
  const length = Math.max(1, Math.min(to - from, sourceLine.length - column))
  return { file, line: line + 1, column: column + 1, length, sourceLine }
}

function report(reader: Reader, range: readonly [number, number], message: string, hint?: string): void {
  reader.diagnostics.push(diagnostic('error', spanAt(reader, range[0], range[1]), message, hint))
}

function reportDuplicate(reader: Reader, range: readonly [number, number]): void {
  report(reader, range, 'this key stands here twice', 'keep one of them; the other would be ignored')
}

const TOO_DEEP = 'the file is nested too deeply'
/** After the first few, syntax errors are only echoes of each other. */
const MAX_SYNTAX_ERRORS = 5
/** Reported in our own words, and the rest of the document can still be read. */
const HARMLESS: ReadonlySet<string> = new Set(['DUPLICATE_KEY', 'MULTIPLE_DOCS', 'TAG_RESOLVE_FAILED', 'BAD_ALIAS'])

/** The file's one document, or undefined where its syntax is broken, because nothing after that can be trusted. */
function parse(reader: Reader): Document | undefined {
  let documents: Document[]
  try {
    const options = {
      version: '1.2',
      schema: 'core',
      intAsBigInt: true,
      prettyErrors: false,
    } as const
    documents = [...parseAllDocuments(reader.text, options)]
  } catch (thrown) {
    // The parser descends recursively: a megabyte of `[` exhausts the stack.
    if (!(thrown instanceof RangeError)) throw thrown
    report(reader, [0, 1], TOO_DEEP)
    return undefined
  }
  const [document, second] = documents
  const errors = documents.flatMap((one) => one.errors)
  if (errors.some((error) => error.message.includes('call stack'))) {
    report(reader, [0, 1], TOO_DEEP)
    return undefined
  }
  const syntax = errors.filter((error) => !HARMLESS.has(error.code))
  const unquoted = syntax.find(({ pos: [at] }) => reader.text.startsWith('${', at - 1))
  if (unquoted !== undefined) {
    // What follows in the file is an echo of this one.
    report(
      reader,
      [unquoted.pos[0] - 1, unquoted.pos[0] + 1],
      'a variable inside { } or [ ] needs quotes',
      `write "\${NAME}"`,
    )
    return undefined
  }
  for (const error of syntax.slice(0, MAX_SYNTAX_ERRORS)) report(reader, error.pos, `not valid YAML: ${error.message}`)
  for (const error of errors.filter((one) => one.code === 'DUPLICATE_KEY')) {
    reportDuplicate(reader, error.pos)
  }
  if (second !== undefined) {
    const from = second.range?.[0] ?? 0
    report(
      reader,
      [from, from + 1],
      'a second YAML document begins here',
      'keep one document; put further rules into files and name them under `include`',
    )
  }
  return syntax.length > 0 ? undefined : document
}

function refuseConstructs(reader: Reader, document: Document): void {
  const directives = document.directives
  if (directives?.yaml.explicit === true || Object.keys(directives?.tags ?? {}).length > 1) {
    report(
      reader,
      [0, 1],
      'YAML directives (%YAML, %TAG) are not taken',
      'remove the directive; files are read as YAML 1.2',
    )
  }
  visit(document, {
    Node(_key, node) {
      const range: readonly [number, number] = [node.range?.[0] ?? 0, node.range?.[1] ?? 1]
      if (isAlias(node))
        report(
          reader,
          range,
          'YAML aliases (*name) are not taken',
          'write the value out, so that a reviewer sees it where it counts; in quotes where it begins with *',
        )
      else if (node.anchor !== undefined)
        report(
          reader,
          range,
          'YAML anchors (&name) are not taken',
          'write the value out where it is used; in quotes where it begins with &',
        )
      if (!isAlias(node) && node.tag !== undefined)
        report(reader, range, 'YAML tags are not taken', 'quote the value to make it a string')
    },
  })
}

function convert(reader: Reader, node: unknown, path: Path, key?: readonly [number, number]): unknown {
  const place: Place = {}
  if (key !== undefined) place.key = key
  const range = (node as Node | null)?.range
  if (range !== undefined && range !== null) place.value = [range[0], range[1]]
  reader.places.set(JSON.stringify(path), place)
  if (isMap(node)) return convertMap(reader, node.items, path)
  if (isSeq(node)) return node.items.map((item, index) => convert(reader, item, [...path, index]))
  if (isScalar(node)) return convertScalar(reader, node, place, path)
  return undefined
}

function convertMap(
  reader: Reader,
  items: readonly { key: unknown; value: unknown }[],
  path: Path,
): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const { key, value } of items) {
    const range: readonly [number, number] = [
      (key as Node | null)?.range?.[0] ?? 0,
      (key as Node | null)?.range?.[1] ?? 1,
    ]
    if (!isScalar(key)) {
      if (!isAlias(key)) report(reader, range, 'a key must be a simple word')
      continue
    }
    const name = typeof key.value === 'string' ? key.value : (key.source ?? String(key.value))
    if (name === '<<') {
      report(reader, range, 'the YAML merge key << is not taken', 'write the keys out where they belong')
    } else if (name === '__proto__') {
      report(reader, range, 'this key is not taken')
    } else if (Object.hasOwn(result, name)) {
      // The parser tells `1` from `"1"`; as names they are one.
      reportDuplicate(reader, range)
    } else result[name] = convert(reader, value, [...path, name], range)
  }
  return result
}

function convertScalar(reader: Reader, node: Scalar, place: Place, path: Path): unknown {
  const plain = node.type === 'PLAIN'
  place.scalar = { source: node.source ?? String(node.value), plain, expanded: false }
  if (typeof node.value === 'bigint') return Number(node.value)
  if (typeof node.value !== 'string') return node.value
  const expansion = expandVariables(node.value, reader.env)
  place.scalar.expanded = expansion.expanded
  const range = place.value ?? [0, 1]
  if (expansion.unset.length > 0 || expansion.malformed.length > 0) reader.broken.push(path)
  for (const name of expansion.unset) {
    report(
      reader,
      range,
      `the environment variable ${name} is not set`,
      `set it, or give a default: \${${name}:-value}`,
    )
  }
  for (const text of expansion.malformed) {
    report(
      reader,
      range,
      isSecret(path) ? 'it holds a ${ that does not begin a variable' : `${text} is not a variable`,
      `write \${NAME} or \${NAME:-default}; a literal \${ is written $\${`,
    )
  }
  return expansion.text
}

function locate(reader: Reader, path: Path, prefer: 'key' | 'value'): Span {
  for (let length = path.length; length >= 0; length--) {
    const place = reader.places.get(JSON.stringify(path.slice(0, length)))
    if (place === undefined) continue
    // A mapping or list is pointed at by its key, and so is a value that is not there.
    const scalarHere = place.scalar !== undefined && place.scalar.source !== ''
    const useValue = length === path.length && prefer === 'value' && scalarHere
    const range = (useValue ? place.value : (place.key ?? place.value)) ?? [0, 1]
    return spanAt(reader, range[0], range[1])
  }
  return spanAt(reader, 0, 1)
}
