/** Numbers that a seed decides, so that a case can be played again. */

export interface Random {
  /** 0 ≤ n < below. */
  below(below: number): number
  chance(probability: number): boolean
  pick<T>(all: readonly T[]): T
  bytes(length: number): Buffer
}

/** xorshift128, seeded through splitmix32: small seeds that lie beside each other give unlike sequences. */
export function createRandom(seed: number, ...salt: readonly number[]): Random {
  let mixed = seed >>> 0
  const splitmix = (): number => {
    mixed = (mixed + 0x9e3779b9) >>> 0
    let z = mixed
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return (z ^ (z >>> 16)) >>> 0
  }
  for (const one of salt) mixed = (splitmix() ^ Math.imul(one + 1, 0x27d4eb2d)) >>> 0
  let [a, b, c, d] = [splitmix(), splitmix(), splitmix(), splitmix() | 1]
  const next = (): number => {
    let t = d
    const s = a
    d = c
    c = b
    b = s
    t ^= t << 11
    t ^= t >>> 8
    a = (t ^ s ^ (s >>> 19)) >>> 0
    return a
  }
  const below = (limit: number): number => Math.floor((next() / 0x1_0000_0000) * limit)
  return {
    below,
    chance: (probability) => next() / 0x1_0000_0000 < probability,
    pick: (all) => all[below(all.length)]!,
    bytes: (length) => Buffer.from(Array.from({ length }, () => below(256))),
  }
}
