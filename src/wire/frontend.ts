/** Messages that a frontend sends before and while it logs in. */
import {
  CANCEL_REQUEST_CODE,
  FrontendMessage,
  GSSENC_REQUEST_CODE,
  PROTOCOL_MAJOR,
  SSL_REQUEST_CODE,
} from './constants.ts'
import { byte, cstring, frame, int32 } from './writer.ts'

export function sslRequest(): Buffer {
  return frame(undefined, int32(SSL_REQUEST_CODE))
}

export function gssencRequest(): Buffer {
  return frame(undefined, int32(GSSENC_REQUEST_CODE))
}

/** @param key 4 to 256 bytes, as BackendKeyData gave it */
export function cancelRequest(processId: number, key: Buffer): Buffer {
  return frame(undefined, int32(CANCEL_REQUEST_CODE), int32(processId), key)
}

/** @param parameters including `user` and `database`; an empty name is refused because it would end the list */
export function startupMessage(parameters: ReadonlyMap<string, string>, minor = 0): Buffer {
  const fields = [int32((PROTOCOL_MAJOR << 16) | minor)]
  for (const [name, value] of parameters) {
    if (name === '') throw new RangeError('a startup parameter has a name')
    fields.push(cstring(name), cstring(value))
  }
  return frame(undefined, ...fields, byte(0))
}

export function passwordMessage(password: string): Buffer {
  return frame(FrontendMessage.Password, cstring(password))
}

/** @param data undefined where the mechanism has no initial response */
export function saslInitialResponse(mechanism: string, data: Buffer | undefined): Buffer {
  return frame(FrontendMessage.Password, cstring(mechanism), int32(data?.length ?? -1), data ?? Buffer.alloc(0))
}

export function saslResponse(data: Buffer): Buffer {
  return frame(FrontendMessage.Password, data)
}
