#include "cache/redis_connection.h"

#include <charconv>

namespace reference::cache {

namespace {

timeval to_timeval(std::chrono::milliseconds limit) {
  return {limit.count() / 1000, limit.count() % 1000 * 1000};
}

int number(std::string_view text, int most) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > most) {
    throw std::runtime_error(
        "cannot understand REDIS_URL: it must be redis://[:PASSWORD@]HOST[:PORT][/DATABASE] or "
        "unix:/PATH");
  }
  return value;
}

}  // namespace

RedisAddress parse_redis_url(const std::string& url) {
  RedisAddress address;
  std::string_view rest = url;
  if (rest.starts_with("unix:/")) {
    address.path = rest.substr(5);
    return address;
  }
  constexpr std::string_view scheme = "redis://";
  if (!rest.starts_with(scheme)) number("", 0);
  rest.remove_prefix(scheme.size());
  if (const std::size_t at = rest.rfind('@'); at != std::string_view::npos) {
    const std::string_view login = rest.substr(0, at);
    address.password = login.substr(std::min(login.size(), login.find(':') + 1));
    rest.remove_prefix(at + 1);
  }
  if (const std::size_t slash = rest.find('/'); slash != std::string_view::npos) {
    if (slash + 1 < rest.size()) address.database = number(rest.substr(slash + 1), 1 << 20);
    rest = rest.substr(0, slash);
  }
  const std::size_t colon = rest.rfind(':');
  if (colon != std::string_view::npos) address.port = number(rest.substr(colon + 1), 65535);
  address.host = rest.substr(0, colon);
  if (address.host.empty()) number("", 0);
  return address;
}

RedisConnection::RedisConnection(const RedisAddress& address, std::chrono::milliseconds limit)
    : context_(
          address.path.empty()
              ? ::redisConnectWithTimeout(address.host.c_str(), address.port, to_timeval(limit))
              : ::redisConnectUnixWithTimeout(address.path.c_str(), to_timeval(limit)),
          &::redisFree) {
  if (!context_ || context_->err != 0) fail();
  if (::redisSetTimeout(context_.get(), to_timeval(limit)) != REDIS_OK) fail();
  const std::string database = std::to_string(address.database);
  std::vector<Command> greeting;
  if (!address.password.empty()) greeting.push_back({"AUTH", address.password});
  if (address.database != 0) greeting.push_back({"SELECT", database});
  greeting.push_back({"INFO", "server"});
  const Reply info = std::move(run_all(greeting).back());
  const std::string text(info->str == nullptr ? "" : info->str, info->len);
  const std::string_view name = "run_id:";
  const std::size_t at = text.find(name);
  if (at == std::string::npos) throw RedisError("Redis does not say who it is");
  run_id_ = text.substr(at + name.size(), text.find('\r', at) - at - name.size());
}

std::vector<RedisConnection::Reply> RedisConnection::run_all(const std::vector<Command>& commands) {
  for (const Command& command : commands) {
    std::vector<const char*> parts;
    std::vector<std::size_t> sizes;
    for (const std::string_view part : command) {
      parts.push_back(part.data());
      sizes.push_back(part.size());
    }
    if (::redisAppendCommandArgv(context_.get(), static_cast<int>(parts.size()), parts.data(),
                                 sizes.data()) != REDIS_OK) {
      fail();
    }
  }
  std::vector<Reply> replies;
  for (std::size_t at = 0; at < commands.size(); ++at) {
    void* reply = nullptr;
    if (::redisGetReply(context_.get(), &reply) != REDIS_OK || reply == nullptr) fail();
    replies.emplace_back(static_cast<redisReply*>(reply), &::freeReplyObject);
    if (replies.back()->type == REDIS_REPLY_ERROR) {
      throw RedisError("Redis: " + std::string(replies.back()->str, replies.back()->len));
    }
  }
  return replies;
}

void RedisConnection::fail() const {
  throw RedisError("Redis: " + std::string(context_ ? context_->errstr : "no memory"));
}

}  // namespace reference::cache
