#include "operations/received_wal.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "operations/put_wal.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using Clock = std::chrono::steady_clock;

/// How much may wait to be stored.
constexpr std::uint64_t most_bytes = 128 << 20;

bool may_pass(const Error& error) {
  // Whoever else holds the lease, or tells us to stop, will not be persuaded.
  return base::info(error.code()).transient && error.code() != Code::busy &&
         error.code() != Code::interrupted;
}

}  // namespace

void with_patience(std::chrono::milliseconds patience,
                   const std::function<void(const std::string&)>& say,
                   const std::function<bool()>& stop, const std::function<void()>& work) {
  const auto begun = Clock::now();
  auto say_again = begun;
  auto pause = std::chrono::milliseconds(50);
  for (;;) {
    try {
      work();
      if (say_again > begun) say("the repository takes WAL again");
      return;
    } catch (const Error& error) {
      if (!may_pass(error) || stop()) throw;
      const auto now = Clock::now();
      if (error.code() != Code::no_space && now + pause > begun + patience) {
        throw StoreGaveUp(error.code(),
                          fmt::format("stopped, as nothing could be stored for {}: {}",
                                      base::to_string_short(
                                          std::chrono::duration_cast<base::Microseconds>(patience)),
                                      error.message()),
                          error.hint());
      }
      if (now >= say_again) {
        say(say_again == begun
                ? fmt::format("{}; trying again", error.message())
                : fmt::format("ALARM: nothing could be stored for {}: {}; trying "
                              "again",
                              base::to_string_short(
                                  std::chrono::duration_cast<base::Microseconds>(now - begun)),
                              error.message()));
        say_again = now + std::chrono::minutes(1);
      }
    }
    for (auto slept = std::chrono::milliseconds(0); slept < pause && !stop();
         slept += std::chrono::milliseconds(50)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    pause = std::min(pause * 2, std::chrono::milliseconds(5000));
  }
}

ReceivedWal::ReceivedWal(const repository::WalArchive& archive, const repository::Lease& lease,
                         postgres::SystemId system, postgres::SegmentSize size, Options options)
    : archive_(archive),
      slices_(archive.slices()),
      lease_(lease),
      system_(system),
      size_(size),
      options_(std::move(options)),
      signal_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!signal_) base::fail_errno("make an eventfd", errno);
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

ReceivedWal::~ReceivedWal() {
  thread_.request_stop();
  changed_.notify_all();
}

void ReceivedWal::begin(postgres::Timeline timeline, Lsn segment_start, base::Bytes known,
                        Lsn durable) {
  const std::lock_guard lock(mutex_);
  timeline_ = timeline;
  start_ = segment_start.value;
  current_ = std::move(known);
  current_.reserve(size_.bytes);
  sliced_ = start_ + current_.size();
  has_slices_ = true;  // an earlier receiver may have left some
  hurried_ = 0;
  durable_ = durable.value;
}

bool ReceivedWal::has_room() const {
  const std::lock_guard lock(mutex_);
  return queue_.size() < std::clamp<std::uint64_t>(most_bytes / size_.bytes, 1, 8);
}

void ReceivedWal::append(base::View bytes) {
  const std::lock_guard lock(mutex_);
  while (!bytes.empty()) {
    const std::size_t part = std::min<std::size_t>(bytes.size(), size_.bytes - current_.size());
    current_.insert(current_.end(), bytes.begin(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(part));
    bytes = bytes.subspan(part);
    if (current_.size() < size_.bytes) break;
    queue_.push_back({{timeline_, start_ / size_.bytes}, std::move(current_), has_slices_});
    current_ = {};
    if (!spare_.empty()) {
      current_ = std::move(spare_.back());
      spare_.pop_back();
    }
    current_.clear();
    current_.reserve(size_.bytes);
    start_ += size_.bytes;
    sliced_ = start_;
    has_slices_ = false;
  }
  // A slice has its time, which the thread knows; it must be told of the first byte of it only.
  changed_.notify_all();
}

Lsn ReceivedWal::received() const {
  const std::lock_guard lock(mutex_);
  return {start_ + current_.size()};
}

void ReceivedWal::hurry() {
  const std::lock_guard lock(mutex_);
  hurried_ = start_ + current_.size();
  changed_.notify_all();
}

bool ReceivedWal::flush(std::chrono::milliseconds limit) {
  hurry();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [&] { return failure_ || is_stored(); });
  return is_stored();
}

void ReceivedWal::check() const {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
  lease_.check();
}

void ReceivedWal::calm() const {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto size = ::read(signal_.get(), &count, sizeof count);
}

void ReceivedWal::notify() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto size = ::write(signal_.get(), &one, sizeof one);
}

/// Bytes of the current segment that are neither in a slice nor known to be durable otherwise.
bool ReceivedWal::is_pending() const {
  const std::uint64_t end = start_ + current_.size();
  return end > sliced_ && end > durable_;
}

bool ReceivedWal::is_due() const {
  if (!is_pending()) return false;
  return options_.synchronous || hurried_ > std::max<std::uint64_t>(sliced_, durable_) ||
         Clock::now() >= last_store_ + options_.slice_interval;
}

void ReceivedWal::advance(std::uint64_t end) {
  if (end > durable_) durable_ = end;
  notify();
}

void ReceivedWal::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  try {
    while (!stop.stop_requested()) {
      const auto ready = [&] { return !queue_.empty() || is_due(); };
      if (is_pending() && !ready()) {
        changed_.wait_until(lock, stop, last_store_ + options_.slice_interval, ready);
      } else {
        changed_.wait(lock, stop, [&] { return ready() || is_pending(); });
      }
      if (stop.stop_requested() || !ready()) continue;
      last_store_ = Clock::now();
      busy_ = true;
      if (queue_.empty()) {
        store_slice(lock, stop);
      } else {
        store_segment(lock, stop);
      }
      busy_ = false;
      changed_.notify_all();
    }
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    failure_ = std::current_exception();
    changed_.notify_all();
    notify();
  }
}

void ReceivedWal::try_to(const std::stop_token& stop, const std::function<void()>& work) const {
  with_patience(
      options_.patience, options_.say, [&] { return stop.stop_requested(); },
      [&] {
        lease_.check();
        work();
      });
}

void ReceivedWal::store_segment(std::unique_lock<std::mutex>& lock, const std::stop_token& stop) {
  const Complete& complete = queue_.front();  // stays where it is while others are added
  const std::string name = postgres::file_name(complete.segment, size_);
  lock.unlock();
  std::optional<CheckedSegment> segment;
  try {
    segment.emplace(name, complete.bytes, system_);
  } catch (const Error& error) {
    throw error.with_context(fmt::format("cannot store WAL file {} as it was received", name));
  }
  try_to(stop, [&] { segment->put(archive_, options_.workers); });
  if (complete.has_slices) {
    try {
      slices_.remove(name);
    } catch (const Error&) {
      // They are in nobody's way; the next receiver, or expire, tries again.
    }
  }
  lock.lock();
  advance(postgres::end_of(complete.segment, size_).value);
  if (spare_.size() < 2) spare_.push_back(std::move(queue_.front().bytes));
  queue_.pop_front();
}

void ReceivedWal::store_slice(std::unique_lock<std::mutex>& lock, const std::stop_token& stop) {
  const std::uint64_t start = sliced_;
  const postgres::Segment segment{timeline_, start_ / size_.bytes};
  const base::Bytes bytes(current_.begin() + static_cast<std::ptrdiff_t>(start - start_),
                          current_.end());
  has_slices_ = true;
  lock.unlock();
  std::uint64_t stored = 0;
  try_to(stop, [&] { stored = slices_.put(postgres::file_name(segment, size_), start, bytes); });
  lock.lock();
  if (start_ / size_.bytes == segment.number) sliced_ = start + stored;
  advance(start + stored);
}

}  // namespace holdfast::operations
