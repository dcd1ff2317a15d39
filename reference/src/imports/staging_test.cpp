#include "imports/staging.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <set>
#include <sstream>

#include "http/problem.h"

namespace reference::imports {
namespace {

namespace fs = std::filesystem;

/// A body in pieces, whose client may go away.
class Pieces : public http::Body {
 public:
  Pieces(int count, std::size_t size, bool breaks_off = false)
      : count_(count), piece_(size, 'x'), breaks_off_(breaks_off) {}
  void read(std::size_t limit, const std::function<void(std::string_view)>& take) override {
    for (int each = 0; each < count_; ++each) {
      taken_ += piece_.size();
      if (taken_ > limit) throw http::Problem(413, "too_large", "");
      take(piece_);
    }
    if (breaks_off_) throw http::Problem(400, "broken_off", "");
  }

 private:
  int count_;
  std::string piece_;
  bool breaks_off_;
  std::size_t taken_ = 0;
};

class Uploads : public ::testing::Test {
 protected:
  Uploads() { fs::create_directory(directory_); }
  ~Uploads() override { fs::remove_all(directory_); }
  int status(http::Body&& body) {
    try {
      staging_.receive("one", body);
      return 200;
    } catch (const http::Problem& problem) {
      return problem.status();
    }
  }
  std::set<std::string> files() const {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      found.insert(entry.path().filename());
    }
    return found;
  }
  fs::path directory_ = fs::temp_directory_path() / ("staging." + std::to_string(::getpid()));
  Staging staging_{directory_};
};

TEST_F(Uploads, are_there_as_they_came_or_not_at_all) {
  Pieces body(3, 10);
  EXPECT_EQ(staging_.receive("two", body), 30U);
  std::ostringstream text;
  text << std::ifstream(staging_.path("two")).rdbuf();
  EXPECT_EQ(text.str(), std::string(30, 'x'));
  EXPECT_EQ(status(Pieces(3, 10, true)), 400);
  EXPECT_EQ(status(Pieces(70, 1UL << 20)), 413);
  EXPECT_EQ(files(), (std::set<std::string>{"two.csv"}));
  staging_.remove("two");
  EXPECT_TRUE(files().empty());
}

TEST_F(Uploads, are_refused_clearly_without_a_directory) {
  fs::remove(directory_);
  EXPECT_EQ(status(Pieces(1, 1)), 503);
  staging_.sweep([](const std::string&) { return false; });
}

TEST_F(Uploads, that_nobody_needs_are_swept_away_once_they_are_old) {
  const auto make = [&](const std::string& name, std::chrono::minutes age) {
    std::ofstream(directory_ / name) << "x";
    fs::last_write_time(directory_ / name, fs::file_time_type::clock::now() - age);
  };
  using std::chrono::minutes;
  make("needed.csv", minutes(90));
  make("done.csv", minutes(90));
  make("new.csv", minutes(5));
  make("dead.part", minutes(90));
  make("running.part", minutes(5));
  make("somebody-elses.txt", minutes(90));
  staging_.sweep([](const std::string& id) { return id == "needed"; });
  EXPECT_EQ(files(),
            (std::set<std::string>{"needed.csv", "new.csv", "running.part", "somebody-elses.txt"}));
}

}  // namespace
}  // namespace reference::imports
