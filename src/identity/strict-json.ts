/**
 * JSON as a verifier must read it. JSON.parse takes the last of two equal keys where another reader takes the first, and
 * rounds integers over 2^53, so that two repositories could have one id.
 */

const MAX_DEPTH = 32
/** Members and elements. The largest real token has some 60 claims and a list of 200; 64 KiB of `1,1,1` would cost 15 ms. */
const MAX_VALUES = 2_000
const INTEGER = /^-?(0|[1-9]\d*)$/
const QUOTE = 0x22
const BACKSLASH = 0x5c

/**
 * The value of a JSON text. Integers beyond 2^53 come out as decimal strings, smaller ones as numbers.
 * @throws SyntaxError for bad JSON, a fraction or exponent, a key that occurs twice in one object, depth over 32, or over
 *   2,000 members and elements.
 */
export function parseStrictJson(text: string): unknown {
  const members = countMembers(text)
  let kept = 0
  const value: unknown = JSON.parse(text, function (this: unknown, key, entry: unknown, context?: { source?: string }) {
    if (!Array.isArray(this)) kept += 1
    if (typeof entry !== 'number') return entry
    const source = context?.source ?? ''
    if (!INTEGER.test(source)) throw new SyntaxError(`number with a fraction or exponent at key ${JSON.stringify(key)}`)
    return Number.isSafeInteger(entry) ? entry : source
  })
  // The reviver sees what the object kept, and the root once as the member of a holder.
  if (kept - 1 !== members) throw new SyntaxError('a key occurs twice in one object')
  return value
}

/** The object that a JSON text is. @throws SyntaxError as `parseStrictJson`, and for any other value. */
export function parseStrictObject(text: string): Record<string, unknown> {
  const value = parseStrictJson(text)
  if (!isObject(value)) throw new SyntaxError('not a JSON object')
  return value
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Colons outside strings: one for each member that was written. Bounds depth and size, since the reviver recurses and is slow. */
function countMembers(text: string): number {
  let members = 0
  let depth = 0
  let values = 1
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charCodeAt(at)
    if (char === QUOTE) at = endOfString(text, at)
    else if (char === 0x3a) members += 1
    else if (char === 0x2c) values += 1
    else if (char === 0x7b || char === 0x5b) {
      depth += 1
      if (depth > MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH}`)
    } else if (char === 0x7d || char === 0x5d) depth -= 1
  }
  if (values > MAX_VALUES) throw new SyntaxError(`more than ${MAX_VALUES} members and elements`)
  return members
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const char = text.charCodeAt(at)
    if (char === BACKSLASH) at += 1
    else if (char === QUOTE) return at
  }
  return text.length
}
