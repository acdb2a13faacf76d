/** Which audience a token for this pgusher is asked for. */
import { quote, quoteList } from '../config/quote.ts'
import { AccessError } from '../errors.ts'
import { isForeignAudience } from '../identity/foreign-audience.ts'
import { ApiUnavailable, type ServerApi } from './server-api.ts'
import type { TokenSource } from './token-source.ts'

/**
 * @param given as `--audience` says it
 * @throws AccessError where the server has to be asked and does not tell, or takes no tokens of this CI system
 */
export async function findAudience(source: TokenSource, api: ServerApi, given: string | undefined): Promise<string> {
  if (given !== undefined) return given
  // Chosen in the job's definition or in a credential; nothing that is said here would change it.
  if (source.fixedAudience) return ''
  try {
    const { audiences } = await api.audiences(source.preset)
    const own = audiences.filter(({ preset }) => preset === source.preset).map(({ audience }) => audience)
    return ours(onlyOne([...new Set(own)], source), source)
  } catch (thrown) {
    if (!(thrown instanceof ApiUnavailable)) throw thrown
    throw new AccessError(
      'audience_mismatch',
      `the server does not tell which audience a token for it is asked for (${thrown.message})`,
      {
        hint: "Give --audience as the operator of pgusher has it in the issuer's `audience`.",
        cause: thrown,
      },
    )
  }
}

/** @throws AccessError where the token would be good at another service */
function ours(audience: string, source: TokenSource): string {
  if (!isForeignAudience(audience, source.preset)) return audience
  throw new AccessError(
    'audience_mismatch',
    `the server asks for a token with the audience ${quote(audience)}, which is of another service: no token was asked for`,
    {
      hint: 'Where that is really meant, say it by --audience. Else look whether --server is the pgusher that you mean.',
    },
  )
}

function onlyOne(audiences: readonly string[], source: TokenSource): string {
  const [audience] = audiences
  if (audience === undefined) {
    throw new AccessError('issuer_unknown', `this pgusher takes no tokens of ${source.name}`, {
      hint: `The operator adds an issuer with preset ${quote(source.preset)} to its configuration.`,
    })
  }
  if (audiences.length > 1) {
    throw new AccessError(
      'audience_mismatch',
      `this pgusher has several issuers of ${source.name}; say by --audience which one is meant: ${quoteList(audiences)}`,
    )
  }
  return audience
}
