/** CPU time and resident memory of processes with all their threads and children, from proc(5). */
import { readdir, readFile } from 'node:fs/promises'

/** Of `/proc/<pid>/stat`, which Linux gives in 1/100 s (USER_HZ) on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100
const NANOSECONDS = 1e9

export interface CpuReading {
  /** User and system, of living processes and of those that they waited for, seconds in steps of 10 ms. */
  coarse: number
  /** Nanoseconds on a CPU by thread; empty where the kernel does not say (CONFIG_SCHED_INFO). */
  threads: ReadonlyMap<string, number>
}

/** Undefined for a process that is gone. The second field is the command in brackets, which may hold spaces and brackets itself. */
async function statOf(pid: number): Promise<string[] | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
}

/** With what they started, and so on. */
async function withDescendants(roots: readonly number[]): Promise<number[]> {
  const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const parents = await Promise.all(all.map(async (pid) => [pid, Number((await statOf(pid))?.[1])] as const))
  const family = new Set(roots)
  for (let size = -1; size !== family.size; ) {
    size = family.size
    for (const [pid, parent] of parents) if (family.has(parent)) family.add(pid)
  }
  return [...family]
}

export async function readCpu(roots: readonly number[]): Promise<CpuReading> {
  const threads = new Map<string, number>()
  let ticks = 0
  for (const pid of await withDescendants(roots)) {
    const fields = await statOf(pid)
    // utime and stime are of the whole thread group, cutime and cstime of children that ended.
    for (const index of [11, 12, 13, 14]) ticks += Number(fields?.[index] ?? 0)
    for (const thread of await readdir(`/proc/${pid}/task`).catch(() => [])) {
      const schedule = await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').catch(() => undefined)
      if (schedule !== undefined) threads.set(thread, Number(schedule.split(' ')[0]))
    }
  }
  return { coarse: ticks / TICKS_PER_SECOND, threads }
}

/** Seconds. By the threads' own clocks, unless one of them ended in between and took its time along. */
export function cpuBetween(before: CpuReading, after: CpuReading): number {
  const coarse = after.coarse - before.coarse
  const lost = [...before.threads.keys()].some((thread) => !after.threads.has(thread))
  if (lost || after.threads.size === 0) return coarse
  let nanoseconds = 0
  for (const [thread, time] of after.threads) nanoseconds += time - (before.threads.get(thread) ?? 0)
  return nanoseconds / NANOSECONDS
}

/** Bytes, shared pages included. */
export async function residentBytes(roots: readonly number[]): Promise<number> {
  let bytes = 0
  for (const pid of await withDescendants(roots)) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
    bytes += Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024
  }
  return bytes
}
