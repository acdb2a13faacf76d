/** What is a worker's own where the configuration has one name for all. */
import { readdir } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'

/** `ci-proxy-1` of `ci-proxy`. */
export function instanceOf(instance: string, worker: number): string {
  return `${instance}-${worker}`
}

/** `audit-1.jsonl` of `audit.jsonl`. */
export function auditFileOf(path: string, worker: number): string {
  const extension = extname(path)
  return `${path.slice(0, path.length - extension.length)}-${worker}${extension}`
}

/** The files of that form beside `path`, also of workers that are not there any more, by number. @throws the system's error */
export async function workerAuditFiles(path: string): Promise<string[]> {
  const names = new Set(await readdir(dirname(path)))
  const extension = extname(path)
  const stem = `${basename(path, extension)}-`
  return [...names]
    .filter((name) => name.startsWith(stem) && name.endsWith(extension))
    .map((name) => Number(name.slice(stem.length, name.length - extension.length)))
    .filter((worker) => Number.isInteger(worker) && worker > 0 && names.has(basename(auditFileOf(path, worker))))
    .sort((a, b) => a - b)
    .map((worker) => join(dirname(path), basename(auditFileOf(path, worker))))
}
