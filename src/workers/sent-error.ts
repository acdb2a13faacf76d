/** An error as plain data, so that another process can throw it. */
import { AccessError, asAccessError, type DenialCode, type NearestRule } from '../errors.ts'
import { serializeError } from '../telemetry/log.ts'

export interface SentError {
  code: DenialCode
  message: string
  sqlstate: string
  detail: string | undefined
  hint: string | undefined
  nearest: NearestRule[]
  /** For the log: its name and message, without what drivers and TLS hang on to their errors. */
  cause: { name: string; message: string; code?: string } | undefined
}

export function toSent(thrown: unknown): SentError {
  const { code, message, sqlstate, detail, hint, nearest, cause } = asAccessError(thrown)
  const told = cause === undefined ? undefined : serializeError(cause)
  return {
    ...{ code, message, sqlstate, detail, hint, nearest },
    cause: told && {
      name: told.name,
      message: told.message,
      ...(told.code === undefined ? {} : { code: told.code }),
    },
  }
}

export function toError({ code, message, sqlstate, detail, hint, nearest, cause }: SentError): AccessError {
  return new AccessError(code, message, {
    ...{ sqlstate, nearest },
    ...(detail === undefined ? {} : { detail }),
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause: Object.assign(new Error(cause.message), cause) }),
  })
}
