#include "service/http_listener.h"

#include "base/http.h"
#include "service/testing.h"

namespace holdfast::service {
namespace {

TEST(HttpListener, answers_who_asks_however_many_say_nothing) {
  const HttpListener listener(find_address("127.0.0.1:0"),
                              [](const HttpRequest&) { return HttpResponse(); });
  const std::string address = listener.address().text();
  std::vector<base::Fd> silent;
  for (int i = 0; i < 200; ++i) {
    silent.push_back(testing::connected(address));
    // Some have begun to say something.
    if (i % 2 == 0) testing::send_all(silent.back(), "GET /health HTTP/1.1\r\n");
  }
  for (int i = 0; i < 3; ++i) {
    const auto answer = base::http_get("http://" + address + "/health", std::chrono::seconds(10));
    EXPECT_EQ(answer.status, 200) << answer.why_not;
  }
}

}  // namespace
}  // namespace holdfast::service
