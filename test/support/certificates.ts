/** Throw-away CAs, the demo's own. */
export {
  type CertificateOptions,
  createCa,
  type IssuedCertificate,
  type ThrowAwayCa as TestCa,
} from '../../src/cli/demo/certificates.ts'
