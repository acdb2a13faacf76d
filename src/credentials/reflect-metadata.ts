/**
 * The part of the Reflect metadata proposal that @peculiar/x509's container (tsyringe) demands to be there before it is
 * loaded: import this first. Four functions in place of a dependency; a polyfill that is already there is left alone.
 */
const store = new WeakMap<object, Map<unknown, unknown>>()

function defineMetadata(key: unknown, value: unknown, target: object): void {
  const own = store.get(target) ?? new Map<unknown, unknown>()
  store.set(target, own.set(key, value))
}

function getOwnMetadata(key: unknown, target: object): unknown {
  return store.get(target)?.get(key)
}

function getMetadata(key: unknown, target: object): unknown {
  for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at)) {
    if (store.get(at)?.has(key) === true) return getOwnMetadata(key, at)
  }
  return undefined
}

function metadata(key: unknown, value: unknown): (target: object) => void {
  return (target) => defineMetadata(key, value, target)
}

if (!('getMetadata' in Reflect)) Object.assign(Reflect, { defineMetadata, getOwnMetadata, getMetadata, metadata })
