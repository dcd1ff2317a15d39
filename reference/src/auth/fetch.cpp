#include "auth/fetch.h"

#include <curl/curl.h>

#include <memory>
#include <mutex>
#include <stdexcept>

namespace reference::auth {
namespace {

struct Answer {
  std::string body;
  std::size_t most = 0;
};

std::size_t take(char* data, std::size_t size, std::size_t count, void* into) {
  auto& answer = *static_cast<Answer*>(into);
  if (answer.body.size() + size * count > answer.most) return 0;
  answer.body.append(data, size * count);
  return size * count;
}

int stopped(void* flag, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(flag)->load() ? 1 : 0;
}

}  // namespace

std::string fetch(const std::string& url, const FetchLimits& limits,
                  const std::atomic<bool>& stop) {
  static std::once_flag started;
  std::call_once(started, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(),
                                                                   curl_easy_cleanup);
  if (!handle) throw std::runtime_error("libcurl could not start");
  Answer answer{.body = {}, .most = limits.bytes};
  CURL* curl = handle.get();
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(limits.time.count()));
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "reference-api");
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, stopped);
  // libcurl wants a pointer that it may hand back; `stopped` only reads.
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, const_cast<std::atomic<bool>*>(&stop));
  const CURLcode code = curl_easy_perform(curl);
  if (code == CURLE_WRITE_ERROR) throw std::runtime_error("the answer is too large");
  if (code != CURLE_OK) throw std::runtime_error(curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) throw std::runtime_error("it answered " + std::to_string(status));
  return std::move(answer.body);
}

}  // namespace reference::auth
