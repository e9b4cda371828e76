// An OpenID provider for tests. Whoever comes is logged in as `login_hint`, without a page to click through.
//
// Usage: node oidc-provider.mjs PORT. People have the address NAME@example.org, confirmed unless the name ends in
// `-unverified`.
import { Provider } from 'oidc-provider';

const port = Number(process.argv[2]);
const client = (client_id) => ({
  client_id,
  client_secret: 'a secret of the tests',
  redirect_uris: ['https://karat.example.org/api/v1/auth/oauth/test/callback'],
  response_types: ['code'],
  grant_types: ['authorization_code'],
});

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client('karat'), client('other')],
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  cookies: { keys: ['a key of the tests'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.org`, email_verified: !id.endsWith('-unverified') }),
  }),
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope('openid email');
    await grant.save();
    return grant;
  },
});

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  const result = { login: { accountId: params.login_hint ?? 'nobody' } };
  return provider.interactionFinished(ctx.req, ctx.res, result);
});

provider.listen(port, '127.0.0.1');
