/** A process whose clock is off. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const SHIFT_DATE = pathToFileURL(join(import.meta.dirname, 'shift-date.ts')).href

export interface ShiftedClock {
  env: Record<string, string>
  /** libfaketime, of Debian's package of that name, moves the process's clock; without it JavaScript's Date alone is moved. */
  by: 'libfaketime' | 'Date'
}

function libfaketime(): string | undefined {
  const found = (directory: string): string[] => {
    try {
      return readdirSync(directory)
    } catch {
      return []
    }
  }
  const [path] = found('/usr/lib').flatMap((triplet) =>
    found(join('/usr/lib', triplet, 'faketime'))
      .filter((name) => name === 'libfaketime.so.1')
      .map((name) => join('/usr/lib', triplet, 'faketime', name)),
  )
  return path
}

/** Tells where libfaketime is missing. */
export function clockShiftedBy(seconds: number): ShiftedClock {
  const library = libfaketime()
  if (library === undefined) {
    console.info('libfaketime is not installed (apt-get install libfaketime): the clock is shifted for JavaScript only')
    return { by: 'Date', env: { NODE_OPTIONS: `--import=${SHIFT_DATE}`, SHIFT_SECONDS: String(seconds) } }
  }
  const offset = `${seconds < 0 ? '' : '+'}${seconds}s`
  return { by: 'libfaketime', env: { LD_PRELOAD: library, FAKETIME: offset, FAKETIME_DONT_FAKE_MONOTONIC: '1' } }
}
