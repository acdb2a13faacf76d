/** `${VAR}` and `${VAR:-default}` in string scalars. Nothing else: no `$VAR`, no nesting, no commands. */

export interface Expansion {
  text: string
  /** True where a variable stood in the text. */
  expanded: boolean
  /** Variables without a value and without a default. */
  unset: string[]
  /** A `${` that is neither form, as it stands in the text. */
  malformed: string[]
}

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/

/**
 * Expands a scalar after YAML was parsed, so that a value can't bring in YAML of its own. The value of a variable is not
 * looked at again. As in a shell, `:-` also replaces an empty value. `$${` stands for `${`.
 */
export function expandVariables(text: string, env: Readonly<Record<string, string | undefined>>): Expansion {
  const result: Expansion = { text: '', expanded: false, unset: [], malformed: [] }
  let rest = 0
  for (;;) {
    const open = text.indexOf('${', rest)
    if (open < 0) break
    if (open > rest && text[open - 1] === '$') {
      result.text += `${text.slice(rest, open - 1)}\${`
      rest = open + 2
      continue
    }
    result.text += text.slice(rest, open)
    const close = text.indexOf('}', open)
    const body = close < 0 ? '' : text.slice(open + 2, close)
    rest = close < 0 ? text.length : close + 1
    const [name = '', fallback] = splitDefault(body)
    if (close < 0 || !NAME.test(name)) {
      result.malformed.push(text.slice(open, rest))
      continue
    }
    result.expanded = true
    const value = Object.hasOwn(env, name) ? env[name] : undefined
    const chosen = fallback !== undefined && (value === undefined || value === '') ? fallback : value
    if (chosen === undefined) result.unset.push(name)
    else result.text += chosen
  }
  result.text += text.slice(rest)
  return result
}

function splitDefault(body: string): [string, string | undefined] {
  const at = body.indexOf(':-')
  return at < 0 ? [body, undefined] : [body.slice(0, at), body.slice(at + 2)]
}
