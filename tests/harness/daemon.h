#pragma once

// What tests of `holdfast serve` share: a daemon that looks every second, and a webhook that notes
// what it is told.

#include <fstream>

#include "base/http.h"
#include "faults/faults.h"
#include "harness/witness.h"
#include "service/http_listener.h"

namespace holdfast::tests {

inline constexpr const char* hook_secret = "s3cret-of-the-hook";

/// Collects what a webhook is told.
class Hook {
 public:
  std::string url() const { return "http://" + listener_.address().text() + "/" + hook_secret; }
  /// How often: "begins status/main/drill".
  long count(const std::string& what) {
    const std::lock_guard lock(mutex_);
    return std::ranges::count(told_, what);
  }
  std::string all() {
    const std::lock_guard lock(mutex_);
    std::string text;
    for (const std::string& each : told_) text += each + "\n";
    return text;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> told_;
  service::HttpListener listener_{
      service::find_address("127.0.0.1:0"), [this](const service::HttpRequest& request) {
        const nlohmann::json document = nlohmann::json::parse(request.body);
        const std::lock_guard lock(mutex_);
        told_.push_back(document.at("event").get<std::string>() + " " +
                        document.at("alarm").get<std::string>());
        return service::HttpResponse();
      }};
};

/// Of /proc, where what it tells of may be gone: "" then.
inline std::string text_if_there(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The processes that another one has started and that still run.
inline std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> found;
  for (const auto& thread : fs::directory_iterator(fmt::format("/proc/{}/task", parent))) {
    std::istringstream in(text_if_there(thread.path() / "children"));
    for (pid_t each = 0; in >> each;) found.push_back(each);
  }
  return found;
}

inline pid_t child_that_runs(const Running& daemon, const std::string& words) {
  for (const pid_t each : children_of(daemon.pid())) {
    std::string line = text_if_there(fmt::format("/proc/{}/cmdline", each));
    std::ranges::replace(line, '\0', ' ');
    if (line.find(words) != std::string::npos) return each;
  }
  return 0;
}

class ServeTest : public testing::Test {
 protected:
  ServeTest() : source_(place_.cluster()) {
    source_->sql("CREATE TABLE t (id int)");
    configured_ = text_of(place_.configuration()) + "\n[alert]\nwebhook = \"" + hook_.url() +
                  "\"\n[serve]\ncheck_every = \"1s\"\nlisten = \"127.0.0.1:0\"\n"
                  "state = \"serve.json\"\n";
    configure("");
  }
  void configure(const std::string& more) const {
    overwrite(place_.configuration(), configured_ + more);
  }
  /// A daemon that ran three days ago, and since then none.
  void was_away(const std::string& job, const std::vector<std::string>& others = {}) const {
    const std::string then = base::to_iso(base::now() - std::chrono::days(3));
    const nlohmann::json record = {{"known_since", then},
                                   {"slot", nullptr},
                                   {"succeeded", nullptr},
                                   {"ended", nullptr},
                                   {"status", nullptr}};
    nlohmann::json jobs = {{job, record}};
    for (const std::string& other : others) jobs[other] = record;
    const nlohmann::json state = {{"version", 1},
                                  {"jobs", jobs},
                                  {"alarms", nlohmann::json::object()},
                                  {"outbox", nlohmann::json::array()},
                                  {"next_message", 1}};
    base::replace_file(place_.path("serve.json"), base::view(state.dump()), 0600);
    place_.give_to_server_user(place_.path("serve.json"));
  }
  static void await_said(Running& daemon, const std::string& what) {
    await(
        [&] {
          if (daemon.over()) throw std::runtime_error("it ended: " + daemon.said());
          return daemon.said().find(what) != std::string::npos;
        },
        what);
  }
  static std::string url(Running& daemon) {
    const std::string before = "shows how things are at ";
    await_said(daemon, before);
    const std::string said = daemon.said();
    const std::size_t at = said.find(before) + before.size();
    return said.substr(at, said.find('\n', at) - at);
  }
  static base::HttpAnswer get(Running& daemon, const std::string& path) {
    return base::http_get(url(daemon) + path, std::chrono::seconds(5));
  }
  static void expect_clean_end(Running& daemon) {
    const std::vector<pid_t> children = children_of(daemon.pid());
    daemon.signal(SIGTERM);
    EXPECT_EQ(daemon.wait_for(std::chrono::seconds(40)), 0) << daemon.said();
    for (const pid_t each : children) EXPECT_NE(::kill(each, 0), 0) << each << " still runs";
  }

  Place place_;
  Hook hook_;
  std::unique_ptr<Cluster> source_;
  std::string configured_;
};

}  // namespace holdfast::tests
