#pragma once

// A store that fails, or dies, at the N-th thing that is asked of it; and a process of its own to
// do that in, as the user that holdfast runs as.

#include <grp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "base/error.h"
#include "faults.h"
#include "store/object_store.h"

namespace holdfast::tests {

/// What happens, when.
struct Fault {
  enum class Kind {
    none,
    once,         ///< that call fails, later ones work
    for_ever,     ///< that call and all later ones fail
    lost_reply,   ///< that call is done, and fails all the same
    death,        ///< the process ends before that call
    death_after,  ///< the process ends right after it
  };
  Kind kind = Kind::none;
  std::uint64_t at = 0;  ///< counts from 1
  /// Called when an object was committed, with its name: to take it or another one away.
  std::function<void(store::ObjectStore&, const std::string&)> after_commit = {};

  static constexpr int dead = 77;
};

/// For INSTANTIATE_TEST_SUITE_P.
inline std::string name_of(const ::testing::TestParamInfo<Fault::Kind>& each) {
  using Kind = Fault::Kind;
  switch (each.param) {
    case Kind::none:
      return "none";
    case Kind::once:
      return "once";
    case Kind::for_ever:
      return "for_ever";
    case Kind::lost_reply:
      return "lost_reply";
    case Kind::death:
      return "death";
    case Kind::death_after:
      return "death_after";
  }
  return "";
}

class FaultStore : public store::ObjectStore {
 public:
  FaultStore(std::unique_ptr<store::ObjectStore> inner, Fault fault)
      : inner_(std::move(inner)), fault_(std::move(fault)) {}

  std::unique_ptr<store::ObjectReader> open(std::string_view name) override {
    return call(name, [&] { return inner_->open(name); });
  }
  std::unique_ptr<store::ObjectWriter> create(std::string_view name) override {
    return call(name, [&]() -> std::unique_ptr<store::ObjectWriter> {
      return std::make_unique<Writer>(*this, inner_->create(name), std::string(name));
    });
  }
  std::optional<store::ObjectInfo> stat(std::string_view name) override {
    return call(name, [&] { return inner_->stat(name); });
  }
  std::vector<store::ObjectInfo> list(std::string_view directory) override {
    return call(directory, [&] { return inner_->list(directory); });
  }
  std::vector<std::string> names(std::string_view directory) override {
    return call(directory, [&] { return inner_->names(directory); });
  }
  bool remove(std::string_view name) override {
    return call(name, [&] { return inner_->remove(name); });
  }
  void settle(std::string_view directory) override {
    call(directory, [&] {
      inner_->settle(directory);
      return 0;
    });
  }
  std::size_t sweep_unfinished() override { return inner_->sweep_unfinished(); }
  std::string url() const override { return inner_->url(); }

 private:
  /// Writing bytes counts once for an object, at its first: what fails later fails alike.
  class Writer : public store::ObjectWriter {
   public:
    Writer(FaultStore& store, std::unique_ptr<store::ObjectWriter> inner, std::string name)
        : store_(store), inner_(std::move(inner)), name_(std::move(name)) {}
    void append(base::View bytes) override {
      inner_->append(bytes);
      if (++appends_ == 2) store_.call(name_, [] { return 0; });
    }
    bool commit() override {
      const bool fresh = store_.call(name_, [&] { return inner_->commit(); });
      if (store_.fault_.after_commit) store_.fault_.after_commit(*store_.inner_, name_);
      return fresh;
    }

   private:
    FaultStore& store_;
    std::unique_ptr<store::ObjectWriter> inner_;
    std::string name_;
    int appends_ = 0;
  };

  template <typename Work>
  std::invoke_result_t<Work> call(std::string_view name, const Work& work) {
    using Kind = Fault::Kind;
    const std::uint64_t number = ++calls_;
    const bool now = number == fault_.at;
    if (fault_.kind == Kind::death && now) ::_exit(Fault::dead);
    if ((fault_.kind == Kind::once && now) ||
        (fault_.kind == Kind::for_ever && fault_.at != 0 && number >= fault_.at)) {
      fail(name);
    }
    auto result = work();
    if (fault_.kind == Kind::death_after && now) ::_exit(Fault::dead);
    if (fault_.kind == Kind::lost_reply && now) fail(name);
    return result;
  }
  [[noreturn]] static void fail(std::string_view name) {
    throw base::Error(base::Code::io, fmt::format("could not reach \"{}\": a planted fault", name));
  }

  std::unique_ptr<store::ObjectStore> inner_;
  Fault fault_;
  std::atomic<std::uint64_t> calls_{0};
};

/// How a process of its own ended: its exit status (0, that of its Error, or Fault::dead), and why.
struct Ended {
  int status = 0;
  std::string why;
};

/// Runs `work` in a child process, as the user that holdfast runs as.
inline Ended in_a_process(const std::function<void()>& work) {
  std::array<int, 2> pipe{};
  if (::pipe(pipe.data()) != 0) throw std::runtime_error("could not make a pipe");
  const auto user = server_user_if_root();
  const pid_t child = ::fork();
  if (child == 0) {
    if (user &&
        (::setgroups(0, nullptr) != 0 || ::setgid(user->gid) != 0 || ::setuid(user->uid) != 0)) {
      ::_exit(99);
    }
    int status = 0;
    std::string why;
    try {
      work();
    } catch (const base::Error& error) {
      status = status_of(error.code());
      why = error.message();
    } catch (const std::exception& error) {
      status = 98;
      why = error.what();
    }
    [[maybe_unused]] const auto written = ::write(pipe[1], why.data(), why.size());
    ::_exit(status);
  }
  ::close(pipe[1]);
  Ended ended;
  std::array<char, 4096> buffer{};
  for (ssize_t size = 0; (size = ::read(pipe[0], buffer.data(), buffer.size())) > 0;) {
    ended.why.append(buffer.data(), static_cast<std::size_t>(size));
  }
  ::close(pipe[0]);
  int raw = 0;
  ::waitpid(child, &raw, 0);
  ended.status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
  return ended;
}

/// The site that a configuration means, over a store with a fault.
inline operations::Site faulty_site(const operations::Configuration& configuration, Fault fault) {
  const auto& repository = configuration.repository();
  return {configuration, configuration.cluster(""),
          repository::Repository::open(
              std::make_unique<FaultStore>(store::open_store(repository.url), std::move(fault)),
              repository.key)};
}

}  // namespace holdfast::tests
