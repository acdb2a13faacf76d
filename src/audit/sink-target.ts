/** Where a sink's bytes go: a file that this process opens, or standard output. Nothing here blocks the event loop. */

import * as fs from 'node:fs'
import { constants } from 'node:fs'
import { promisify } from 'node:util'

export const openFd = promisify(fs.open)
const closeFd = promisify(fs.close)
const fstat = promisify(fs.fstat)
const stat = promisify(fs.stat)
const readFd = promisify(fs.read)

/** Whether the bytes before ours are the ones this process last wrote. */
export interface Opened {
  /** The same file as before, at the byte where we stopped; false after a file or a pipe's reader changed. */
  same: boolean
  /** The file ends in the middle of a line: a process died while it wrote. */
  torn: boolean
}

export interface SinkTarget {
  /** For messages: `file /var/log/pgusher/audit.jsonl`, `stdout`. */
  readonly name: string
  /** Bytes in a regular file, undefined for a pipe or a device; known after `open`. */
  readonly size: number | undefined
  /** Does nothing when open. @throws the system's error, e.g. ENXIO for a FIFO that nobody reads. */
  open(): Promise<Opened>
  /** Writes some of the bytes and returns how many. @throws the system's error. */
  write(bytes: Buffer, offset: number, length: number): Promise<number>
  /** Gives the descriptor back, so that the next `open` looks the name up again. Never while a write is under way. */
  close(): Promise<void>
  /** True when the name no longer leads to the open file: moved, removed or replaced. */
  displaced(): Promise<boolean>
}

const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK

const writeSome = (fd: number, bytes: Buffer, offset: number, length: number): Promise<number> =>
  new Promise((resolve, reject) => {
    fs.write(fd, bytes, offset, length, null, (error, written) => (error === null ? resolve(written) : reject(error)))
  })

/**
 * A file, FIFO or device by name. O_NONBLOCK: opening a FIFO without a reader fails with ENXIO, and a full one with EAGAIN,
 * where either would hold a thread of the pool for good. O_APPEND: several processes may share the file, and a file that was
 * truncated by a rotation tool gets no hole. 0640: the statements in it are nobody else's business.
 */
export function fileTarget(path: string): SinkTarget {
  let fd: number | undefined
  let identity = ''
  let size: number | undefined
  return {
    name: `file ${path}`,
    get size() {
      return size
    },
    async open() {
      if (fd !== undefined) return { same: true, torn: false }
      const opened = await openFd(path, APPEND | constants.O_CREAT, 0o640)
      const status = await fstat(opened)
      const before = identity
      const regular = status.isFile()
      fd = opened
      identity = regular ? `${status.dev}:${status.ino}` : ''
      size = regular ? status.size : undefined
      const same = regular && identity === before
      return { same, torn: !same && regular && status.size > 0 && (await lastByte(path, status.size)) !== 0x0a }
    },
    async write(bytes, offset, length) {
      if (fd === undefined) throw new Error('the audit file is not open')
      const written = await writeSome(fd, bytes, offset, length)
      if (size !== undefined) size += written
      return written
    },
    async close() {
      if (fd === undefined) return
      const closing = fd
      fd = undefined
      await closeFd(closing)
    },
    async displaced() {
      if (fd === undefined || identity === '') return false
      const status = await stat(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined
        throw error
      })
      if (status !== undefined && `${status.dev}:${status.ino}` === identity) {
        size = status.size
        return false
      }
      return true
    },
  }
}

/** A file that may be written and not read gives undefined, and counts as ending well. */
async function lastByte(path: string, size: number): Promise<number | undefined> {
  const fd = await openFd(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(() => undefined)
  if (fd === undefined) return 0x0a
  try {
    const { bytesRead, buffer } = await readFd(fd, Buffer.alloc(1), 0, 1, size - 1)
    return bytesRead === 1 ? buffer[0] : 0x0a
  } finally {
    await closeFd(fd)
  }
}

/**
 * Standard output. Node writes pipes synchronously, so a log collector that stops reading would stop the proxy: a pipe is
 * opened anew without blocking. What cannot be opened anew (a socket of journald) is written through the thread pool.
 */
export function stdoutTarget(): SinkTarget {
  let fd: number | undefined
  let ours = false
  return {
    name: 'stdout',
    size: undefined,
    async open() {
      if (fd !== undefined) return { same: true, torn: false }
      const pipe = (await fstat(1)).isFIFO()
      const reopened = pipe ? await openFd('/proc/self/fd/1', APPEND).catch(() => undefined) : undefined
      ours = reopened !== undefined
      fd = reopened ?? 1
      return { same: true, torn: false }
    },
    async write(bytes, offset, length) {
      return await writeSome(fd ?? 1, bytes, offset, length)
    },
    async close() {
      const closing = fd
      fd = undefined
      if (ours && closing !== undefined) await closeFd(closing)
    },
    async displaced() {
      return false
    },
  }
}
