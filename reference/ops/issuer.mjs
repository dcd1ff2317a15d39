// A stand-in for Clerk, for game days and demonstrations: oauth2-mock-server, whose tokens carry
// Clerk's claims (version 2).
//
//   node issuer.mjs serve PORT                          GET /jwks, POST /token
//   node issuer.mjs token URL ORG ROLE [expired|forged] prints a token
//
// scripts/issuer fetches the package.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [command, ...rest] = process.argv.slice(2);

async function serve(port) {
  const modules = process.env.ISSUER_MODULES ?? new URL('../../build/issuer/', import.meta.url).pathname;
  const found = createRequire(modules).resolve('oauth2-mock-server');
  const { OAuth2Server } = await import(pathToFileURL(found));
  const server = new OAuth2Server();
  await server.issuer.keys.generate('RS256');
  server.service.on('beforeTokenSigning', (token, request) => {
    const { org, role, expired } = request.body;
    const now = Math.floor(Date.now() / 1000);
    Object.assign(token.payload, {
      v: 2, sub: `user_${role}`, sid: 'sess_1', sts: 'active', azp: 'https://app.example.com',
      iat: now - (expired ? 600 : 0), nbf: now - (expired ? 610 : 10),
      exp: now + (expired ? -300 : 300),
      o: { id: org, rol: role, slg: org },
    });
  });
  await server.start(Number(port), '127.0.0.1');
  server.issuer.url = `http://127.0.0.1:${server.address().port}`;
  console.log(server.issuer.url);
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
}

async function token(url, org, role, flaw) {
  const form = { grant_type: 'client_credentials', org, role };
  if (flaw === 'expired') form.expired = 'yes';
  const answer = await fetch(`${url}/token`, { method: 'POST', body: new URLSearchParams(form) });
  if (!answer.ok) throw new Error(`the issuer answered ${answer.status}`);
  const parts = (await answer.json()).access_token.split('.');
  if (flaw === 'forged') {
    // Somebody helps himself to another role; the signature is left as it was.
    const claims = JSON.parse(Buffer.from(parts[1], 'base64url'));
    claims.o.rol = 'admin';
    claims.sub = 'user_mallory';
    parts[1] = Buffer.from(JSON.stringify(claims)).toString('base64url');
  }
  console.log(parts.join('.'));
}

if (command === 'serve' && rest.length === 1) await serve(...rest);
else if (command === 'token' && rest.length >= 3) await token(...rest);
else {
  console.error('usage: issuer.mjs serve PORT | token URL ORG ROLE [expired|forged]');
  process.exit(2);
}
