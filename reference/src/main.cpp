#include "database/pool.h"
#include "http/router.h"
#include "http/server.h"
int main() {
  return 0;
}
