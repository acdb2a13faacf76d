import { expect, test } from 'vitest'
import type { StatementRecord } from '../../src/audit/recorder.ts'
import { StatementTracker } from '../../src/session/statement-tracker.ts'

function start() {
  const records: StatementRecord[] = []
  const tracker = new StatementTracker((record) => records.push(record))
  const text = (sql: string) => ({ text: sql, bytes: sql.length, sha256: undefined, truncated: false })
  const tag = (value: string) => tracker.commandComplete(Buffer.from(`${value}\0`), 0, value.length + 1)
  return {
    tracker,
    records,
    tag,
    query: (sql: string) => tracker.query(text(sql), sql.length + 6),
    parse: (name: string, sql: string) => tracker.parse(name, text(sql), sql.length + 9),
    idle: () => tracker.ready(0x49),
    failed: () => tracker.ready(0x45),
    told: () => records.map((r) => [r.text, r.outcome, r.sqlstate ?? r.errorType ?? '']),
  }
}

test('a multi-statement Query leaves one record a statement, in order', () => {
  const s = start()
  s.query('insert into a values (1); select 1')
  s.tag('INSERT 0 3')
  s.tracker.rowsReceived(1, 20)
  s.tag('SELECT 1')
  s.idle()
  expect(s.records.map((r) => [r.batchIndex, r.inBatch, r.affectedRows, r.returnedRows])).toEqual([
    [0, true, 3, 0],
    [1, true, undefined, 1],
  ])
  expect(s.tracker.running).toBe(0)
})

test('two pipelined Queries are told apart', () => {
  const s = start()
  s.query('select 1')
  s.query('select 2')
  s.tag('SELECT 1')
  s.idle()
  s.tracker.error('22012')
  s.idle()
  expect(s.told()).toEqual([
    ['select 1', 'success', ''],
    ['select 2', 'failure', '22012'],
  ])
})

test('what an aborted pipeline skipped is recorded as not executed, under its own text', () => {
  const s = start()
  s.parse('', 'select 1/0')
  s.tracker.bind('', '', 20)
  s.tracker.execute('', 9)
  s.parse('', 'select 2')
  s.tracker.bind('', '', 20)
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.tracker.parseComplete()
  s.tracker.bindComplete()
  s.tracker.error('22012')
  s.idle()
  expect(s.told()).toEqual([
    ['select 1/0', 'failure', '22012'],
    ['select 2', 'failure', 'not_executed'],
  ])
})

test('messages that arrive after the error and before Sync are discarded as well, a Query too', () => {
  const s = start()
  s.parse('', 'bad')
  s.tracker.error('42601')
  s.query('select 1')
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.idle()
  s.query('select 3')
  s.tag('SELECT 1')
  s.idle()
  expect(s.told()).toEqual([
    ['bad', 'failure', '42601'],
    ['select 1', 'failure', 'not_executed'],
    [undefined, 'failure', 'not_executed'],
    ['select 3', 'success', ''],
  ])
})

test('invariant 19: an aborted pipeline with Close and Parse keeps the old text, as PostgreSQL does', () => {
  const s = start()
  s.parse('p', 'select 1')
  s.tracker.sync()
  s.tracker.parseComplete()
  s.idle()
  // The Bind fails, so PostgreSQL never sees the Close and Parse behind it.
  s.tracker.bind('', 'missing', 20)
  s.tracker.close(0x53, 'p')
  s.parse('p', 'drop table orders')
  s.tracker.sync()
  s.tracker.error('26000')
  s.idle()
  s.tracker.bind('', 'p', 20)
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.tracker.bindComplete()
  s.tag('SELECT 1')
  s.idle()
  expect(s.told().at(-1)).toEqual(['select 1', 'success', ''])
})

test('the error of a Parse is carried by the Execute behind it, once', () => {
  const s = start()
  s.parse('', 'selekt')
  s.tracker.bind('', '', 20)
  s.tracker.describe()
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.tracker.error('42601')
  s.idle()
  expect(s.told()).toEqual([['selekt', 'failure', '42601']])
})

test('a Parse that fails on its own is on record', () => {
  const s = start()
  s.parse('x', 'selekt')
  s.tracker.describe()
  s.tracker.sync()
  s.tracker.error('42601')
  s.idle()
  expect(s.records.map((r) => [r.text, r.outcome, r.errorType, r.protocol])).toEqual([
    ['selekt', 'failure', 'parse_failed', 'extended'],
  ])
})

test('a portal that is suspended leaves one record an Execute', () => {
  const s = start()
  s.parse('', 'select generate_series(1, 3)')
  s.tracker.bind('c', '', 20)
  s.tracker.execute('c', 9)
  s.tracker.execute('c', 9)
  s.tracker.sync()
  s.tracker.parseComplete()
  s.tracker.bindComplete()
  s.tracker.rowsReceived(1, 10)
  s.tracker.rowsReceived(1, 10)
  s.tracker.completedWithoutTag()
  s.tracker.rowsReceived(1, 10)
  s.tag('SELECT 1')
  s.idle()
  expect(s.records.map((r) => [r.text, r.returnedRows])).toEqual([
    ['select generate_series(1, 3)', 2],
    ['select generate_series(1, 3)', 1],
  ])
})

test('a Sync that was sent before COPY FROM STDIN began is the one that PostgreSQL ignores', () => {
  const s = start()
  s.parse('', 'copy t from stdin')
  s.tracker.bind('', '', 20)
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.tracker.parseComplete()
  s.tracker.bindComplete()
  s.tracker.copyInStarted()
  s.tracker.copyData(100)
  s.tracker.copyEnd()
  s.tracker.sync()
  s.tag('COPY 7')
  s.idle()
  s.query('select 1')
  s.tag('SELECT 1')
  s.idle()
  expect(s.records.map((r) => [r.text, r.protocol, r.affectedRows, r.requestBytes])).toEqual([
    ['copy t from stdin', 'copy_in', 7, 129],
    ['select 1', 'simple', undefined, 14],
  ])
  expect(s.tracker.backlog).toBe(0)
})

test('a COPY that fails upstream, with its CopyDone still on the way', () => {
  const s = start()
  s.query('copy t from stdin')
  s.tracker.copyInStarted()
  s.tracker.copyData(10)
  s.tracker.error('22P02')
  s.tracker.copyEnd()
  s.idle()
  s.query('select 1')
  s.tag('SELECT 1')
  s.idle()
  expect(s.told()).toEqual([
    ['copy t from stdin', 'failure', '22P02'],
    ['select 1', 'success', ''],
  ])
  expect(s.tracker.backlog).toBe(0)
})

test('names of SQL and protocol share one space', () => {
  const s = start()
  s.query('PREPARE "My p" AS select 7')
  s.tag('PREPARE')
  s.idle()
  s.tracker.bind('', 'My p', 20)
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.tracker.bindComplete()
  s.tag('SELECT 1')
  s.idle()
  s.query('deallocate "My p"')
  s.tag('DEALLOCATE')
  s.idle()
  s.tracker.bind('', 'My p', 20)
  s.tracker.sync()
  s.tracker.error('26000')
  s.idle()
  expect(s.told()).toEqual([
    ['PREPARE "My p" AS select 7', 'success', ''],
    ['PREPARE "My p" AS select 7', 'success', ''],
    ['deallocate "My p"', 'success', ''],
    [undefined, 'failure', '26000'],
  ])
})

test('invariant 35: what has no outcome when the connection breaks is recorded as unknown', () => {
  const s = start()
  s.parse('', 'select pg_sleep(9)')
  s.tracker.bind('', '', 20)
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.query('select 1')
  s.tracker.parseComplete()
  s.tracker.bindComplete()
  s.tracker.finish('connection_lost')
  expect(s.told()).toEqual([
    ['select pg_sleep(9)', 'unknown', 'connection_lost'],
    ['select 1', 'unknown', 'connection_lost'],
  ])
})

test('a refused FunctionCall is recorded as denied with its oid', () => {
  const s = start()
  const refusal = { sqlstate: '42501', decision: '{}', frame: Buffer.from('E') }
  s.tracker.functionCall(1598, ['\\x00'], 30, refusal)
  expect(s.tracker.errorInstead()).toBe(refusal.frame)
  s.tracker.error('42601')
  s.idle()
  expect(s.records.map((r) => [r.outcome, r.protocol, r.functionOid, r.parameters])).toEqual([
    ['denied', 'function', 1598, ['\\x00']],
  ])
  expect(s.tracker.running).toBe(0)
})

test('the transaction status of a statement is the one before it', () => {
  const s = start()
  s.query('begin')
  s.tag('BEGIN')
  s.tracker.ready(0x54)
  s.query('bad')
  s.tracker.error('42601')
  s.failed()
  s.query('rollback')
  s.tag('ROLLBACK')
  s.idle()
  expect(s.records.map((r) => r.tx)).toEqual(['idle', 'open', 'failed'])
})

test('DDL, errors and rows are counted for the session', () => {
  const s = start()
  s.query('create table t (a int)')
  s.tag('CREATE TABLE')
  s.idle()
  s.query('select 1')
  s.tracker.rowsReceived(1, 10)
  s.tag('SELECT 1')
  s.idle()
  s.query('bad')
  s.tracker.error('42601')
  s.idle()
  expect(s.tracker.totals).toEqual({ statements: 3, errors: 1, rows: 1, ddl: 1 })
})

test('a FATAL behind the ERROR of the same Query is no second execution', () => {
  const s = start()
  s.query('copy t from stdin')
  s.tracker.copyInStarted()
  s.query('select 1')
  s.tracker.error('08P01')
  s.tracker.error('08P01')
  s.tracker.finish('connection_lost')
  expect(s.told()).toEqual([
    ['copy t from stdin', 'failure', '08P01'],
    ['select 1', 'unknown', 'connection_lost'],
  ])
})

test('COPY that fails before it reads a Sync which COPY would have ignored: what comes after is recorded as executed', () => {
  const s = start()
  s.parse('', 'copy t from stdin')
  s.tracker.bind('', '', 20)
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.tracker.parseComplete()
  s.tracker.bindComplete()
  s.tracker.copyInStarted()
  s.tracker.error('P0001')
  s.idle()
  s.parse('', 'select 1')
  s.tracker.bind('', '', 20)
  s.tracker.execute('', 9)
  s.tracker.sync()
  s.tracker.parseComplete()
  s.tracker.bindComplete()
  s.tag('SELECT 1')
  s.idle()
  expect(s.told()).toEqual([
    ['copy t from stdin', 'failure', 'P0001'],
    ['select 1', 'success', ''],
  ])
})

test('a Query that a ReadyForQuery too many seems to answer is on record without an outcome', () => {
  const s = start()
  s.query('delete from orders')
  s.idle()
  s.tag('DELETE 3')
  expect(s.told()).toEqual([['delete from orders', 'unknown', 'no_outcome']])
})

test('the error of a Parse does not depend on when the Execute behind it comes', () => {
  const [early, late] = [start(), start()]
  for (const s of [early, late]) {
    s.parse('', 'selekt')
    if (s === late) s.tracker.error('42601')
    s.tracker.bind('', '', 20)
    s.tracker.execute('', 9)
    s.query('select 2')
    if (s === early) s.tracker.error('42601')
    s.tracker.sync()
    s.idle()
  }
  expect(early.told()).toEqual([
    ['selekt', 'failure', '42601'],
    ['select 2', 'failure', 'not_executed'],
  ])
  expect(late.told()).toEqual(early.told())
})
