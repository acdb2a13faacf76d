/** The names of finished audit files: `<path>.<UTC time>-<first seq>`. */
import * as fs from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

const SUFFIX = /^\.(\d{8}T\d{6}\.\d{3}Z)-(\d+)(?:-(\d+))?$/

/**
 * Moves the file out of the way and returns its new path. Never onto an existing file: rename would silently replace it.
 * @throws the system's error.
 */
export async function setAside(path: string, now: number, firstSeq: number): Promise<string> {
  const time = new Date(now).toISOString().replaceAll('-', '').replaceAll(':', '')
  const stem = `${path}.${time}-${firstSeq}`
  for (let attempt = 0; ; attempt++) {
    const name = attempt === 0 ? stem : `${stem}-${attempt}`
    const taken = await fs.lstat(name).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
    )
    if (taken && attempt < 100) continue
    await fs.rename(path, name)
    return name
  }
}

/** The finished files of `path`, oldest first; a file whose name is not exactly one of ours is none of them. @throws the system's error. */
export async function rotatedFiles(path: string): Promise<string[]> {
  const folder = dirname(path)
  const base = basename(path)
  const finished = (await fs.readdir(folder))
    .filter((name) => name.startsWith(base) && SUFFIX.test(name.slice(base.length)))
    .map((name) => ({ name, order: SUFFIX.exec(name.slice(base.length)) }))
    .sort((a, b) => {
      const [, timeA = '', seqA] = a.order ?? []
      const [, timeB = '', seqB] = b.order ?? []
      return timeA === timeB ? Number(seqA) - Number(seqB) : timeA < timeB ? -1 : 1
    })
  return finished.map(({ name }) => join(folder, name))
}

/** Removes the oldest finished files beyond `keep`. */
export async function pruneRotated(path: string, keep: number): Promise<string[]> {
  const finished = await rotatedFiles(path)
  const surplus = finished.slice(0, Math.max(0, finished.length - keep))
  for (const name of surplus) await fs.rm(name, { force: true })
  return surplus
}
