#include "base/http.h"

#include <curl/curl.h>
#include <dlfcn.h>

#include "base/error.h"

namespace holdfast::base {

namespace {

struct Curl {
  decltype(&::curl_easy_init) easy_init;
  decltype(&::curl_easy_cleanup) easy_cleanup;
  decltype(&::curl_easy_perform) easy_perform;
  decltype(&::curl_easy_strerror) easy_strerror;
  CURLcode (*easy_setopt)(CURL*, CURLoption, ...);
  CURLcode (*easy_getinfo)(CURL*, CURLINFO, ...);
};

template <typename Function>
void load(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) fail(Code::unsupported, "cannot use libcurl: it has no {}", name);
}

Curl load_all() {
  void* library = ::dlopen("libcurl.so.4", RTLD_NOW);
  if (library == nullptr) {
    throw Error(Code::not_found, fmt::format("could not load libcurl: {}", ::dlerror()),
                "install it (apt-get install libcurl4)");
  }
  Curl curl{};
  load(library, "curl_easy_init", curl.easy_init);
  load(library, "curl_easy_cleanup", curl.easy_cleanup);
  load(library, "curl_easy_perform", curl.easy_perform);
  load(library, "curl_easy_strerror", curl.easy_strerror);
  load(library, "curl_easy_setopt", curl.easy_setopt);
  load(library, "curl_easy_getinfo", curl.easy_getinfo);
  return curl;
}

std::size_t drop(char*, std::size_t size, std::size_t count, void*) {
  return size * count;
}

}  // namespace

HttpAnswer http_get(const std::string& url, std::chrono::milliseconds limit) {
  static const Curl curl = load_all();
  CURL* handle = curl.easy_init();
  if (handle == nullptr) fail(Code::internal, "libcurl could not begin");
  std::string why(CURL_ERROR_SIZE, '\0');
  curl.easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl.easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl.easy_setopt(handle, CURLOPT_PROXY, "");
  curl.easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl.easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(limit.count()));
  curl.easy_setopt(handle, CURLOPT_WRITEFUNCTION, drop);
  curl.easy_setopt(handle, CURLOPT_ERRORBUFFER, why.data());
  const CURLcode result = curl.easy_perform(handle);
  HttpAnswer answer;
  if (result == CURLE_OK) {
    long status = 0;
    curl.easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    answer.status = status;
  } else {
    why.resize(why.find('\0'));
    answer.why_not = why.empty() ? curl.easy_strerror(result) : why;
  }
  curl.easy_cleanup(handle);
  return answer;
}

}  // namespace holdfast::base
