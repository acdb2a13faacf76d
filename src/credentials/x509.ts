/** @peculiar/x509, ready to use on Node's WebCrypto. Import it from here: what it needs of `Reflect` has to come first. */
import './reflect-metadata.ts'
import { webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

x509.cryptoProvider.set(webcrypto)

export { x509 }
