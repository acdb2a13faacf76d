/** Reading and mending plain data by path. */
import type { Path } from './yaml-source.ts'

export function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function valueAt(root: unknown, path: Path): unknown {
  let value = root
  for (const step of path) {
    if (Array.isArray(value) && typeof step === 'number') value = value[step]
    else if (isMapping(value) && typeof step === 'string' && Object.hasOwn(value, step)) value = value[step]
    else return undefined
  }
  return value
}

/** Changes the tree. Nothing happens where the parent is missing. */
export function setAt(root: unknown, path: Path, value: unknown): void {
  const last = path.at(-1)
  const parent = valueAt(root, path.slice(0, -1))
  if (isMapping(parent) && typeof last === 'string') parent[last] = value
  else if (Array.isArray(parent) && typeof last === 'number') parent[last] = value
}

/** Takes out the value or, where it is an element of a list, the key that holds the list, so that no index moves. */
export function removeAt(root: unknown, path: Path): void {
  const last = path.at(-1)
  if (last === undefined) return
  if (typeof last === 'number') {
    removeAt(root, path.slice(0, -1))
    return
  }
  const parent = valueAt(root, path.slice(0, -1))
  if (isMapping(parent)) delete parent[last]
}

export function startsWith(path: Path, prefix: Path): boolean {
  return prefix.length <= path.length && prefix.every((step, index) => step === path[index])
}

/** A value that no message repeats: messages reach shared terminals, logs of CI jobs and the audit. */
export function isSecret(path: Path): boolean {
  return path.at(-1) === 'password'
}
