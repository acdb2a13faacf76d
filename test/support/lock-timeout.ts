/**
 * What an admin of pgusher that waits for a lock is told, who gives up after a second: where the machine was busy with something else
 * for that long the wait is over before the test has done its part, and gets up to two more tries.
 * @param again before each of them
 */
export async function withinLockTimeout<T extends { message: string }>(
  attempt: () => Promise<T>,
  again: () => Promise<void>,
): Promise<T> {
  for (let left = 2; ; left--) {
    const told = await attempt()
    if (left === 0 || !/55P03|lock timeout/.test(told.message)) return told
    await again()
  }
}
