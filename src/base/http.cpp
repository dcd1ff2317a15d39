#include "base/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/library.h"

namespace holdfast::base {

namespace {

struct Curl {
  decltype(&::curl_easy_init) easy_init;
  decltype(&::curl_easy_cleanup) easy_cleanup;
  decltype(&::curl_easy_perform) easy_perform;
  decltype(&::curl_easy_reset) easy_reset;
  decltype(&::curl_easy_strerror) easy_strerror;
  CURLcode (*easy_setopt)(CURL*, CURLoption, ...);
  CURLcode (*easy_getinfo)(CURL*, CURLINFO, ...);
  decltype(&::curl_slist_append) slist_append;
  decltype(&::curl_slist_free_all) slist_free_all;
};

Curl load_all() {
  const Library library("libcurl.so.4", "libcurl4");
  Curl curl{};
  library.find("curl_easy_init", curl.easy_init);
  library.find("curl_easy_cleanup", curl.easy_cleanup);
  library.find("curl_easy_perform", curl.easy_perform);
  library.find("curl_easy_reset", curl.easy_reset);
  library.find("curl_slist_append", curl.slist_append);
  library.find("curl_slist_free_all", curl.slist_free_all);
  library.find("curl_easy_strerror", curl.easy_strerror);
  library.find("curl_easy_setopt", curl.easy_setopt);
  library.find("curl_easy_getinfo", curl.easy_getinfo);
  return curl;
}

const Curl& library() {
  static const Curl curl = load_all();
  return curl;
}

std::size_t keep_body(char* data, std::size_t size, std::size_t count, void* to) {
  auto& body = static_cast<HttpAnswer*>(to)->body;
  body.append(data, std::min(size * count, HttpClient::largest_body - body.size()));
  return size * count;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) {
    text.remove_prefix(1);
  }
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
    text.remove_suffix(1);
  }
  return text;
}

std::size_t keep_header(char* data, std::size_t size, std::size_t count, void* to) {
  const std::string_view line(data, size * count);
  const std::size_t colon = line.find(':');
  if (colon != std::string_view::npos) {
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    static_cast<HttpAnswer*>(to)->headers[name] = trimmed(line.substr(colon + 1));
  }
  return size * count;
}

/// Sets what does not change from one request to the next.
void set_manners(CURL* handle) {
  const Curl& curl = library();
  curl.easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl.easy_setopt(handle, CURLOPT_PROXY, "");
  curl.easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl.easy_setopt(handle, CURLOPT_WRITEFUNCTION, keep_body);
  curl.easy_setopt(handle, CURLOPT_HEADERFUNCTION, keep_header);
}

void set_request(CURL* handle, const HttpRequest& request) {
  const Curl& curl = library();
  curl.easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl.easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(request.limit.count()));
  if (request.method == "HEAD") curl.easy_setopt(handle, CURLOPT_NOBODY, 1L);
  if (!request.body.empty() || request.method == "POST") {
    curl.easy_setopt(handle, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.body.size()));
    curl.easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.data());
  }
  if (request.method != "HEAD" && (request.method != "GET" || !request.body.empty())) {
    curl.easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
}

}  // namespace

HttpClient::HttpClient() : handle_(library().easy_init()) {
  if (handle_ == nullptr) fail(Code::internal, "libcurl could not begin");
}

HttpClient::~HttpClient() {
  library().easy_cleanup(handle_);
}

void HttpClient::forget_connections() {
  library().easy_cleanup(handle_);
  handle_ = library().easy_init();
  if (handle_ == nullptr) fail(Code::internal, "libcurl could not begin");
}

HttpAnswer HttpClient::ask(const HttpRequest& request) {
  const Curl& curl = library();
  curl.easy_reset(handle_);  // keeps the connections
  set_manners(handle_);
  set_request(handle_, request);
  HttpAnswer answer;
  std::array<char, CURL_ERROR_SIZE> why{};
  curl.easy_setopt(handle_, CURLOPT_WRITEDATA, &answer);
  curl.easy_setopt(handle_, CURLOPT_HEADERDATA, &answer);
  curl.easy_setopt(handle_, CURLOPT_ERRORBUFFER, why.data());
  // Without this libcurl would wait a second for "100 Continue" before it sends a larger body.
  curl_slist* headers = curl.slist_append(nullptr, "Expect:");
  for (const auto& [name, value] : request.headers) {
    headers = curl.slist_append(headers, fmt::format("{}: {}", name, value).c_str());
  }
  curl.easy_setopt(handle_, CURLOPT_HTTPHEADER, headers);
  const auto start = std::chrono::steady_clock::now();
  const CURLcode result = curl.easy_perform(handle_);
  answer.took = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - start);
  curl.slist_free_all(headers);
  if (result == CURLE_OK) {
    long status = 0;
    curl.easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    answer.status = status;
  } else {
    answer.why_not = why[0] != '\0' ? why.data() : curl.easy_strerror(result);
  }
  return answer;
}

HttpAnswer http_get(const std::string& url, std::chrono::milliseconds limit) {
  HttpRequest request;
  request.url = url;
  request.limit = limit;
  return HttpClient().ask(request);
}

}  // namespace holdfast::base
