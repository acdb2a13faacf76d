import { threadCpuUsage } from 'node:process'

/**
 * Milliseconds of CPU that `work` takes this thread, the least of three: the first one also pays for the compiler. Not the clock,
 * so that a busy machine tells the same.
 */
export async function cpuOf(work: () => unknown): Promise<number> {
  const times: number[] = []
  for (let round = 0; round < 3; round++) {
    const before = threadCpuUsage()
    await work()
    const { user, system } = threadCpuUsage(before)
    times.push((user + system) / 1_000)
  }
  return Math.min(...times)
}
