/** The channel between a process and the child that it forked. Its messages are structured clones, so that Maps and Buffers stay what they are. */
import type { ChildProcess } from 'node:child_process'
import type { Port } from './channel.ts'

type Side = Pick<ChildProcess, 'send' | 'connected'> & Pick<NodeJS.EventEmitter, 'on' | 'once'>

export function ipcPort(side: Side): Port {
  return {
    send(message) {
      // One that is gone says so by `disconnect`; the callback keeps the error from being thrown.
      if (side.connected) side.send(message as object, () => {})
    },
    onMessage: (listener) => void side.on('message', listener),
    onClose: (listener) => void side.once('disconnect', listener),
  }
}
