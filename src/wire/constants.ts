/**
 * Codes and message types by PostgreSQL's own names, and the caps that pgusher puts on lengths.
 * Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats".
 */

export const PROTOCOL_MAJOR = 3
/** Newest minor version that pgusher speaks: long cancel keys (PostgreSQL 18). */
export const NEWEST_PROTOCOL_MINOR = 2

/** In the place of a protocol version, in a packet that has no type byte. */
export const CANCEL_REQUEST_CODE = 80877102
export const SSL_REQUEST_CODE = 80877103
export const GSSENC_REQUEST_CODE = 80877104

/** First byte of a TLS record that holds a handshake message (RFC 8446, 5.1): a ClientHello without an SSLRequest before it. */
export const TLS_HANDSHAKE_RECORD = 0x16
/** ALPN name that direct TLS demands (PostgreSQL documentation, "SSL Session Encryption"). */
export const ALPN_PROTOCOL = 'postgresql'
/** ALPN name of HTTP (RFC 7301, section 6). */
export const ALPN_HTTP = 'http/1.1'

/** Bytes of a startup packet without its length field; PostgreSQL's MAX_STARTUP_PACKET_LENGTH. */
export const MAX_STARTUP_LENGTH = 10_000
/** Bytes of a token. PostgreSQL's own cap is 65,535; a GitHub token has about 2,000, one with many groups 20,000. */
export const MAX_TOKEN_LENGTH = 64 * 1024
/** Bytes after the length field of any message: PostgreSQL's MaxAllocSize, less the room that its own length field takes. */
export const MAX_MESSAGE_LENGTH = 0x3fffffff
/** NAMEDATALEN - 1. A longer name is refused and not cut, because a cut name is another name. */
export const MAX_NAME_LENGTH = 63
/** Bytes of a cancel key: 4 up to protocol 3.0, up to 256 from 3.2. */
export const MIN_CANCEL_KEY_LENGTH = 4
export const MAX_CANCEL_KEY_LENGTH = 256

export const FrontendMessage = {
  Bind: 0x42,
  Close: 0x43,
  CopyData: 0x64,
  CopyDone: 0x63,
  CopyFail: 0x66,
  Describe: 0x44,
  Execute: 0x45,
  Flush: 0x48,
  FunctionCall: 0x46,
  Parse: 0x50,
  /** PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share it; the state tells which. */
  Password: 0x70,
  Query: 0x51,
  Sync: 0x53,
  Terminate: 0x58,
} as const

export const BackendMessage = {
  Authentication: 0x52,
  BackendKeyData: 0x4b,
  BindComplete: 0x32,
  CloseComplete: 0x33,
  CommandComplete: 0x43,
  CopyBothResponse: 0x57,
  CopyData: 0x64,
  CopyDone: 0x63,
  CopyInResponse: 0x47,
  CopyOutResponse: 0x48,
  DataRow: 0x44,
  EmptyQueryResponse: 0x49,
  ErrorResponse: 0x45,
  FunctionCallResponse: 0x56,
  NegotiateProtocolVersion: 0x76,
  NoData: 0x6e,
  NoticeResponse: 0x4e,
  NotificationResponse: 0x41,
  ParameterDescription: 0x74,
  ParameterStatus: 0x53,
  ParseComplete: 0x31,
  PortalSuspended: 0x73,
  ReadyForQuery: 0x5a,
  RowDescription: 0x54,
} as const

/** The Int32 that an Authentication message begins with. */
export const AuthenticationCode = {
  Ok: 0,
  CleartextPassword: 3,
  SASL: 10,
  SASLContinue: 11,
  SASLFinal: 12,
} as const

/** ReadyForQuery's transaction status: idle, in a transaction block, in a failed one. */
export type TransactionStatus = 'I' | 'T' | 'E'
