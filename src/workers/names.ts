/** What is a worker's own where the configuration has one name for all. */
import { extname } from 'node:path'

/** `ci-proxy-1` of `ci-proxy`. */
export function instanceOf(instance: string, worker: number): string {
  return `${instance}-${worker}`
}

/** `audit-1.jsonl` of `audit.jsonl`. */
export function auditFileOf(path: string, worker: number): string {
  const extension = extname(path)
  return `${path.slice(0, path.length - extension.length)}-${worker}${extension}`
}
