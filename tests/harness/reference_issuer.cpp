// reference-issuer: an issuer for trying the reference service without Clerk. Prints what the
// service must be told and a token that is good for a day, as a shell reads them, and serves its
// JWKS until it is ended. For tests and game days only: it trusts everyone.

#include <csignal>
#include <iostream>

#include "harness/issuer.h"

int main() {
  sigset_t endings;
  sigemptyset(&endings);
  sigaddset(&endings, SIGTERM);
  sigaddset(&endings, SIGINT);
  pthread_sigmask(SIG_BLOCK, &endings, nullptr);
  const reference::tests::Issuer issuer;
  nlohmann::json claims = issuer.claims("org_trial", "admin");
  claims["exp"] = reference::tests::seconds_from_now(86400);
  std::cout << "CLERK_ISSUER=" << issuer.url() << "\nCLERK_JWKS_URL=" << issuer.jwks_url()
            << "\nCLERK_AUTHORIZED_PARTIES=" << reference::tests::Issuer::party
            << "\nTOKEN=" << issuer.key().token(claims) << "\n# ready" << std::endl;
  int signal = 0;
  ::sigwait(&endings, &signal);
}
