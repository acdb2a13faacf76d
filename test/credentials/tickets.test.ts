/** What a ticket is good for and when no more, over carriers that are kept in memory; PostgreSQL's are in test/integration. */
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { messageOf } from '../../src/credentials/failure.ts'
import type { TicketCarriers } from '../../src/credentials/ticket-carriers.ts'
import type { CarrierComment } from '../../src/credentials/ticket-comment.ts'
import { createTickets, type Tickets } from '../../src/credentials/tickets.ts'
import { principalOf } from '../support/mint.ts'

const MINUTE = 60_000
const [KEY, NEXT] = [randomBytes(32).toString('base64'), randomBytes(32).toString('base64')]

interface Catalog {
  carriers: TicketCarriers
  comments: Map<string, CarrierComment>
  reads: number
}

function catalogOf(): Catalog {
  const comments = new Map<string, CarrierComment>()
  const catalog: Catalog = {
    comments,
    reads: 0,
    carriers: {
      async create(id, comment, tags, most) {
        if ([...comments.values()].filter(({ job }) => tags.includes(job)).length >= most) return false
        comments.set(id, comment)
        return true
      },
      async read(id) {
        catalog.reads++
        return comments.get(id)
      },
      remove: async (id) => comments.delete(id),
      async removeTagged(tags) {
        const due = [...comments]
          .filter(([, { job, runs }]) => [job, ...runs].some((tag) => tags.includes(tag)))
          .map(([id]) => id)
        for (const id of due) comments.delete(id)
        return due
      },
      removeExpired: async () => ({ removed: [], failed: [] }),
    },
  }
  return catalog
}

/** One process over these databases. */
function processOf(databases: Record<string, Catalog | undefined>, keys = [KEY], now = () => 0): Tickets {
  return createTickets({
    keys: () => keys,
    aliases: () => Object.keys(databases),
    minterFor: (alias) => {
      const found = databases[alias]
      return found === undefined ? {} : { carriers: found.carriers }
    },
    now,
  })
}

const contentOf = (database = 'shop-prod', run = '1') => ({
  ...{ principal: principalOf(run), rule: 'migrate', database, role: 'shop_migrator', address: undefined },
  ...{ issuedAt: 0, expiresAt: 45 * MINUTE },
})

const refusal = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'none',
    (error: { code?: string }) => `${error.code}: ${messageOf(error)}`,
  )

test('it is good on another process with the key, and not with another key', async () => {
  const shop = catalogOf()
  const { ticket, id } = await processOf({ 'shop-prod': shop }).issue(contentOf())
  expect(await processOf({ 'shop-prod': shop }).redeem(ticket)).toMatchObject({ id, role: 'shop_migrator' })
  expect(await refusal(processOf({ 'shop-prod': shop }, [NEXT]).redeem(ticket))).toMatch(
    /^ticket_invalid: this is no tic/,
  )
})

test('keys are changed without an end: every key opens, the first one seals', async () => {
  const shop = catalogOf()
  const { ticket } = await processOf({ 'shop-prod': shop }, [KEY]).issue(contentOf())
  const { ticket: later } = await processOf({ 'shop-prod': shop }, [NEXT, KEY]).issue(contentOf())
  const both = processOf({ 'shop-prod': shop }, [KEY, NEXT])
  expect(await both.redeem(ticket)).toBeDefined()
  expect(await both.redeem(later)).toBeDefined()
  expect(await refusal(processOf({ 'shop-prod': shop }, [KEY]).redeem(later))).toMatch(/^ticket_invalid/)
  expect(await processOf({ 'shop-prod': shop }, [NEXT, KEY]).giveBackJob(principalOf('1').jobKey)).toBe(2)
})

test('it ends at its time, and is told to have ended also when its role is cleared away', async () => {
  const shop = catalogOf()
  let at = 0
  const tickets = processOf({ 'shop-prod': shop }, [KEY], () => at)
  const { ticket, id } = await tickets.issue(contentOf())
  at = 45 * MINUTE - 1
  expect(await tickets.redeem(ticket)).toBeDefined()
  at = 45 * MINUTE
  const ended = `ticket_expired: the ticket expired at 1970-01-01T00:45:00.000Z (ticket ${id})`
  expect(await refusal(tickets.redeem(ticket))).toBe(ended)
  shop.comments.clear()
  expect(await refusal(tickets.redeem(ticket))).toBe(ended)
})

test('given back it is unknown, and giving it back again is no error', async () => {
  const shop = catalogOf()
  const tickets = processOf({ 'shop-prod': shop })
  const { ticket, id } = await tickets.issue(contentOf())
  expect(await tickets.giveBack(ticket)).toMatchObject({ id, database: 'shop-prod' })
  expect(await refusal(tickets.redeem(ticket))).toMatch(/^ticket_invalid: this ticket is not known any more/)
  expect(await tickets.giveBack(ticket)).toBeUndefined()
})

test('a job is one attempt: its tickets go with it, in every database, and those of others stay', async () => {
  const [shop, warehouse] = [catalogOf(), catalogOf()]
  const tickets = processOf({ 'shop-prod': shop, warehouse, certificates: undefined })
  const { ticket } = await tickets.issue(contentOf())
  await tickets.issue(contentOf('warehouse'))
  const { ticket: stays } = await tickets.issue(contentOf('warehouse', '2'))
  expect(await tickets.giveBackJob(principalOf('1').jobKey)).toBe(2)
  expect(await refusal(tickets.redeem(ticket))).toMatch(/^ticket_invalid/)
  expect(await tickets.redeem(stays)).toBeDefined()
})

test('a run is all of its jobs, and one attempt or all of them, whoever gave the tickets and with which key', async () => {
  const shop = catalogOf()
  const page = 'https://github.com/acme/shop/actions/runs/1'
  const of = (job: string, runUrl: string, run = '1') => {
    const content = contentOf('shop-prod', run)
    return { ...content, principal: { ...content.principal, job: { runUrl }, jobKey: job } }
  }
  const before = processOf({ 'shop-prod': shop }, [KEY])
  await before.issue(of('migrate', `${page}/attempts/1`))
  await before.issue(of('test', `${page}/attempts/1`))
  await before.issue(of('migrate again', `${page}/attempts/2`))
  const { ticket: stays } = await before.issue(of('other', 'https://github.com/acme/shop/actions/runs/11'))
  const after = processOf({ 'shop-prod': shop }, [NEXT, KEY])
  await after.issue(of('later', `${page}/attempts/2`))
  expect(await after.giveBackRun(`${page}/attempts/1`)).toBe(2)
  expect(await after.giveBackRun(page)).toBe(2)
  expect(await before.redeem(stays)).toBeDefined()
})

test('one database that cannot be asked does not keep the tickets of another', async () => {
  const [shop, warehouse] = [catalogOf(), catalogOf()]
  shop.carriers.removeTagged = () => Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' }))
  const tickets = processOf({ 'shop-prod': shop, warehouse })
  const { ticket } = await tickets.issue(contentOf('warehouse'))
  expect(await refusal(tickets.giveBackJob(principalOf('1').jobKey))).toMatch(
    /^upstream_unreachable: database "shop-prod"/,
  )
  expect(await refusal(tickets.redeem(ticket))).toMatch(/^ticket_invalid/)
})

test.each([
  ['cut', (ticket: string) => ticket.slice(0, 40), 'this is no whole ticket: it has 40 characters in place of 64'],
  ['with something behind it', (ticket: string) => `${ticket}x`, 'it has 65 characters'],
  ['with a character changed', (ticket: string) => `${ticket.slice(0, -1)}!`, 'a character was changed'],
  ['guessed', () => `pgut_${randomBytes(45).toString('base64url').slice(0, 59)}`, 'this is no ticket of this pgusher'],
])('%s it is none, and costs the database nothing', async (_, change, message) => {
  const shop = catalogOf()
  const tickets = processOf({ 'shop-prod': shop })
  const { ticket } = await tickets.issue(contentOf())
  expect(await refusal(tickets.redeem(change(ticket)))).toContain(message)
  expect(await refusal(tickets.giveBack(change(ticket)))).toMatch(/^ticket_invalid/)
  expect(shop.reads).toBe(0)
})

test('a comment that was moved to another ticket, another database or made up opens for nobody', async () => {
  const [shop, warehouse] = [catalogOf(), catalogOf()]
  const tickets = processOf({ 'shop-prod': shop, warehouse })
  const { ticket, id } = await tickets.issue(contentOf())
  const { id: foreign } = await tickets.issue(contentOf('shop-prod', '2'))
  shop.comments.set(id, shop.comments.get(foreign)!)
  expect(await refusal(tickets.redeem(ticket))).toMatch(/^ticket_invalid/)
  shop.comments.set(id, {
    expiresAt: 45 * MINUTE,
    job: '0'.repeat(32),
    runs: [],
    sealed: randomBytes(400).toString('base64'),
  })
  expect(await refusal(tickets.redeem(ticket))).toMatch(/^ticket_invalid/)
})

test('a job may have a hundred', async () => {
  const tickets = processOf({ 'shop-prod': catalogOf() })
  for (let n = 0; n < 100; n++) await tickets.issue(contentOf())
  expect(await refusal(tickets.issue(contentOf()))).toMatch(/^limit_rate: this job has 100 tickets already/)
  expect(await refusal(tickets.issue(contentOf('shop-prod', '2')))).toBe('none')
})

test('an entry with client certificates gives none', async () => {
  const tickets = processOf({ 'shop-prod': undefined })
  expect(await refusal(tickets.issue(contentOf()))).toMatch(/^ticket_scope: database "shop-prod" gives no tickets/)
})
