#pragma once

// A cluster that can be recovered in its place, for tests of `recover`.

#include <fstream>
#include <functional>

#include "base/error.h"
#include "harness/instant.h"

namespace holdfast::tests {

using base::Code;
using nlohmann::json;

/// A cluster that is served where its own configuration says, as users' clusters are.
class RecoverWorld : public ::testing::Test {
 protected:
  /// `prepare` comes before the cluster.
  explicit RecoverWorld(int major, const std::function<void(const Place&)>& prepare = {}) {
    if (prepare) prepare(place_);
    cluster_ = place_.cluster(major);
    std::ofstream file(cluster_->data_directory() / "postgresql.conf", std::ios::app);
    file << fmt::format("unix_socket_directories = '{}'\nlisten_addresses = ''\nfsync = off\n",
                        cluster_->server().socket_directory().string());
    file.close();
    cluster_->sql("CREATE TABLE orders AS SELECT i AS id FROM generate_series(1, 1000) i");
    place_.must({"backup"});
    cluster_->sql("INSERT INTO orders SELECT i FROM generate_series(1001, 1500) i");
  }
  ~RecoverWorld() override {
    for (const fs::path& each : {data(), place_.path("elsewhere")}) {
      if (fs::exists(each / "postmaster.pid")) {
        run_tool(cluster_->installation(), "pg_ctl",
                 {"-D", each.string(), "-m", "immediate", "-w", "stop"});
      }
    }
    // What was mounted, also under the names that recoveries gave it.
    for (const auto& each : fs::directory_iterator(data().parent_path())) {
      const auto place = operations::instant_place(each.path());
      if (operations::serving_process(place)) operations::unmount_instant(place);
    }
  }
  fs::path data() const { return cluster_->data_directory(); }

  void configure(const std::string& text) const {
    static const std::string mark = "\n# recover\n";
    std::string old = text_of(place_.configuration());
    old.resize(std::min(old.find(mark), old.size()));
    overwrite(place_.configuration(), old + mark + text);
  }
  /// On whatever serves at the cluster's own place.
  std::string sql(const std::string& statement) const {
    return postgres::Session(cluster_->connection()).value(statement);
  }
  Result recover(std::vector<std::string> arguments = {"--yes"}) const {
    arguments.insert(arguments.begin(), "recover");
    return place_.holdfast(arguments);
  }
  fs::path journal() const {
    fs::path found;
    for (const auto& each : fs::directory_iterator(place_.path("recoveries"))) {
      if (each.is_directory() && each.path() > found) found = each.path();
    }
    return found / "journal.json";
  }
  std::string state_of(const std::string& step) const {
    const json document = json::parse(text_of(journal()));
    for (const json& each : document.at("steps")) {
      if (each.at("step") == step) return each.at("state");
    }
    return "";
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
};

}  // namespace holdfast::tests
