import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { sanitiseStartup } from '../../src/frontend/sanitise-startup.ts'

const sanitise = (parameters: Record<string, string>, replicationAllowed = false) =>
  sanitiseStartup(new Map(Object.entries({ user: 'u', database: 'd', ...parameters })), { replicationAllowed })

describe('settings', () => {
  test('ordinary ones pass, from parameters and from options, and user and database are none', () => {
    const result = sanitise({
      client_encoding: 'UTF8',
      DateStyle: 'ISO',
      TimeZone: 'UTC',
      extra_float_digits: '3',
      search_path: 'app, public',
      application_name: 'psql',
      options: '-c statement_timeout=5s --lock-timeout=1s -cmy.setting=a\\ b',
    })
    expect(Object.fromEntries(result.settings)).toEqual({
      client_encoding: 'UTF8',
      datestyle: 'ISO',
      timezone: 'UTC',
      extra_float_digits: '3',
      search_path: 'app, public',
      statement_timeout: '5s',
      lock_timeout: '1s',
      'my.setting': 'a b',
    })
    expect(result).toMatchObject({ applicationName: 'psql', replication: undefined, oauthbearer: false })
  })

  test("a parameter of its own wins over options, as in PostgreSQL's startup", () => {
    const result = sanitise({ options: '-c datestyle=SQL -c application_name=a', DateStyle: 'ISO' })
    expect(result.settings.get('datestyle')).toBe('ISO')
    expect(result.applicationName).toBe('a')
  })

  test('invariant 5: two spellings of one name are a duplicate', () => {
    expect(() => sanitise({ DateStyle: 'ISO', datestyle: 'SQL' })).toThrow('names the parameter "datestyle" twice')
  })

  test('invariant 5: nothing that names an identity or a startup parameter comes out, whatever is sent', () => {
    const names = fc.constantFrom('role', 'ROLE', 'session_authorization', 'Session-Authorization', 'is_superuser')
    const others = fc.constantFrom('user', 'USER', 'database', 'Options', 'replication', '_pq_.x', 'geqo', 'my.role')
    const written = fc.tuple(fc.oneof(names, others), fc.constantFrom('-c ', '-c', '--'), fc.boolean())
    const parameter = fc.dictionary(fc.oneof(names, fc.constantFrom('USER', 'geqo', 'Replication')), fc.string())
    fc.assert(
      fc.property(fc.array(written), parameter, (words, parameters) => {
        const options = words
          .map(([name, form, escaped]) => `${form}${escaped ? `${name.slice(0, 1)}\\${name.slice(1)}` : name}=x`)
          .join(' ')
        try {
          const { settings } = sanitise({ ...parameters, options })
          for (const name of settings.keys()) expect(['geqo', 'my.role']).toContain(name)
        } catch (error) {
          expect(['role_not_allowed', 'protocol_violation']).toContain((error as { code?: string }).code)
        }
      }),
    )
  })

  test.each([
    [{ role: 'postgres' }, 'role'],
    [{ ROLE: 'postgres' }, 'role'],
    [{ session_authorization: 'postgres' }, 'session_authorization'],
    [{ options: '-c role=postgres' }, 'role'],
    [{ options: '-crole=postgres' }, 'role'],
    [{ options: '--role=postgres' }, 'role'],
    [{ options: '-c r\\ole=postgres' }, 'role'],
    [{ options: '-c geqo=off --Session-Authorization=postgres' }, 'session_authorization'],
    [{ options: '-c is_superuser=on' }, 'is_superuser'],
  ])('%j is refused by name', (parameters, name) => {
    const call = () => sanitise(parameters as Record<string, string>)
    expect(call).toThrow(`startup parameter "${name}" is refused: pgusher sets the role of a session`)
    expect(call).toThrow(expect.objectContaining({ code: 'role_not_allowed', sqlstate: '42501' }))
  })

  test.each([
    [{ options: '-c user=postgres' }, 'startup parameter "user" is refused'],
    [{ Database: 'x' }, 'startup parameter "database" is refused'],
    [{ options: '--options=x' }, 'startup parameter "options" is refused'],
    [{ options: '-c replication=on' }, 'startup parameter "replication" is refused'],
    [{ options: '-c _pq_.x=1' }, 'startup parameter "_pq_.x" is refused'],
    [{ 'a b': 'x' }, 'startup parameter "a b" is not the name of a setting'],
    [{ options: '-c pgusher.role=x' }, 'pgusher knows "pgusher.auth" only'],
    [{ options: '-c pgusher.auth=none' }, 'as oauthbearer or password'],
    [{ options: '-D /tmp' }, 'connection option "-D" is refused'],
  ])('%j is a protocol violation', (parameters, message) => {
    const call = () => sanitise(parameters as Record<string, string>)
    expect(call).toThrow(message)
    expect(call).toThrow(expect.objectContaining({ code: 'protocol_violation' }))
  })
})

describe('pgusher.auth', () => {
  test('asks for OAUTHBEARER and does not go upstream', () => {
    for (const options of ['-cpgusher.auth=oauthbearer', '--pgusher.auth=OAuthBearer', '-c PGUSHER.AUTH=oauthbearer']) {
      const result = sanitise({ options })
      expect(result.oauthbearer).toBe(true)
      expect(result.settings.size).toBe(0)
    }
    expect(sanitise({ 'pgusher.auth': 'oauthbearer' }).oauthbearer).toBe(true)
    expect(sanitise({ options: '-c pgusher.auth=password' }).oauthbearer).toBe(false)
  })
})

describe('invariant 21: replication', () => {
  test.each(['true', 't', 'TRUE', 'yes', 'y', 'on', '1', 'database'])('%s is refused unless granted', (replication) => {
    expect(() => sanitise({ replication })).toThrow('replication connections are not granted')
    expect(() => sanitise({ replication })).toThrow(expect.objectContaining({ sqlstate: '42501' }))
    const expected = replication === 'database' ? 'database' : 'true'
    expect(sanitise({ replication }, true).replication).toBe(expected)
  })

  test.each(['false', 'f', 'no', 'off', 'of', '0'])('%s is an ordinary session', (replication) => {
    expect(sanitise({ replication }).replication).toBeUndefined()
  })

  test.each(['', 'o', 'maybe', 'Database', '2'])('%j is no value', (replication) => {
    const call = () => sanitise({ replication }, true)
    expect(call).toThrow('invalid value for parameter "replication"')
    expect(call).toThrow(expect.objectContaining({ sqlstate: '22023' }))
  })
})
