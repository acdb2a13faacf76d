/** A file with the system's CAs, for programs that take a file and nothing else. */
import { access } from 'node:fs/promises'

const BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt', // Debian, Ubuntu, Alpine, Arch
  '/etc/pki/tls/certs/ca-bundle.crt', // Fedora, RHEL
  '/etc/ssl/ca-bundle.pem', // SUSE
  '/etc/ssl/cert.pem', // macOS, FreeBSD
]

/** `system` where there is none: libpq 16 and later know what that means. */
export async function systemCaFile(): Promise<string> {
  for (const file of BUNDLES) {
    const found = await access(file).then(
      () => true,
      () => false,
    )
    if (found) return file
  }
  return 'system'
}
