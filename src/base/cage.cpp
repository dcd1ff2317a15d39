#include "base/cage.h"

#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <span>

#include "base/error.h"

namespace holdfast::base {

namespace {

// linux/landlock.h of this machine may be older than the kernel that we run on.
constexpr long create_ruleset = 444;
constexpr long add_rule = 445;
constexpr long restrict_self = 446;
constexpr unsigned version_flag = 1;
constexpr int path_beneath = 1;

struct RulesetAttributes {
  std::uint64_t files = 0;
  std::uint64_t net = 0;
  std::uint64_t scoped = 0;
};
struct [[gnu::packed]] PathBeneath {
  std::uint64_t allowed = 0;
  std::int32_t parent = -1;
};

constexpr std::uint64_t bit(int number) {
  return std::uint64_t{1} << number;
}
constexpr std::uint64_t write_file = bit(1);
constexpr std::uint64_t first_writes = write_file | (bit(13) - bit(4));  // remove_* and make_*
constexpr std::uint64_t refer = bit(13);
constexpr std::uint64_t truncate = bit(14);
constexpr std::uint64_t device_ioctl = bit(15);
constexpr std::uint64_t bind_and_connect_tcp = bit(0) | bit(1);
constexpr std::uint64_t signals = bit(1);
constexpr std::uint64_t abstract_sockets_and_signals = bit(0) | signals;

/// Which version brought what.
constexpr int with_refer = 2;
constexpr int with_truncate = 3;
constexpr int with_tcp = 4;
constexpr int with_device_ioctl = 5;
constexpr int with_scopes = 6;

RulesetAttributes attributes_for(int version, Cage::Connections connections) {
  RulesetAttributes attributes;
  attributes.files = first_writes;
  if (version >= with_refer) attributes.files |= refer;
  if (version >= with_truncate) attributes.files |= truncate;
  if (version >= with_device_ioctl) attributes.files |= device_ioctl;
  const bool none = connections == Cage::Connections::none;
  if (version >= with_tcp && none) attributes.net = bind_and_connect_tcp;
  if (version >= with_scopes) attributes.scoped = none ? abstract_sockets_and_signals : signals;
  return attributes;
}

/// Of the structure an older kernel knows the beginning only.
std::size_t size_for(int version) {
  if (version >= with_scopes) return sizeof(RulesetAttributes);
  return version >= with_tcp ? 2 * sizeof(std::uint64_t) : sizeof(std::uint64_t);
}

void allow(const Fd& ruleset, const fs::path& path, std::uint64_t what) {
  const Fd at = open_file(path, O_PATH);
  const PathBeneath rule{what, at.get()};
  if (::syscall(add_rule, ruleset.get(), path_beneath, &rule, 0) != 0) {
    fail_errno(fmt::format("let a cage write to \"{}\"", path.string()), errno);
  }
}

// The filter. A rule looks at one system call, and ends in an answer; what no rule names passes.

#if defined(__x86_64__)
constexpr std::uint32_t our_machine = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t our_machine = AUDIT_ARCH_AARCH64;
#else
#error "which machine is this? (linux/audit.h)"
#endif

using Filter = std::vector<sock_filter>;

constexpr std::uint32_t pass = SECCOMP_RET_ALLOW;
constexpr std::uint32_t refuse(int error) {
  return SECCOMP_RET_ERRNO | (static_cast<std::uint32_t>(error) & SECCOMP_RET_DATA);
}
/// The program is told that it was done.
constexpr std::uint32_t pretend = refuse(0);

void load(Filter& filter, std::size_t offset) {
  filter.push_back({BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)});
}
void answer(Filter& filter, std::uint32_t what) {
  filter.push_back({BPF_RET | BPF_K, 0, 0, what});
}
/// Answers `what` if the loaded number is `value`.
void answer_if(Filter& filter, std::uint32_t value, std::uint32_t what) {
  filter.push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value});
  answer(filter, what);
}
/// The lower half, which is all that the kernel looks at in numbers of this kind.
void load_argument(Filter& filter, int index) {
  load(filter, offsetof(seccomp_data, args) + static_cast<std::size_t>(index) * 8 +
                   (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0));
}
void append_for(Filter& filter, long call, const Filter& body) {
  const auto length = static_cast<std::uint8_t>(body.size());
  filter.push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, length, static_cast<std::uint32_t>(call)});
  filter.insert(filter.end(), body.begin(), body.end());
}

/// Some calls are newer than the headers that we are built with; some x86 alone has.
constexpr std::array mode_changes = {
#ifdef __NR_chmod
    long{__NR_chmod},
#endif
    long{__NR_fchmod},
    long{__NR_fchmodat},
    452L /* fchmodat2 */,
};

constexpr std::array forbidden = {
#ifdef __NR_chown
    long{__NR_chown},
    long{__NR_lchown},
    long{__NR_utime},
    long{__NR_utimes},
    long{__NR_futimesat},
#endif
    long{__NR_fchown},
    long{__NR_fchownat},
    long{__NR_utimensat},
    long{__NR_setxattr},
    long{__NR_lsetxattr},
    long{__NR_fsetxattr},
    long{__NR_removexattr},
    long{__NR_lremovexattr},
    long{__NR_fremovexattr},
    463L /* setxattrat */,
    466L /* removexattrat */,
    469L /* file_setattr */,
    // Into other processes of the same user, where Landlock does not see to it.
    long{__NR_ptrace},
    long{__NR_process_vm_readv},
    long{__NR_process_vm_writev},
    438L /* pidfd_getfd */,
    long{__NR_setpriority},
    long{__NR_ioprio_set},
    // Other ways to what is outside.
    long{__NR_mq_open},
    long{__NR_mq_unlink},
    long{__NR_keyctl},
    long{__NR_add_key},
    long{__NR_request_key},
    long{__NR_bpf},
    long{__NR_mount},
    long{__NR_umount2},
    long{__NR_setns},
    long{__NR_unshare},
    428L /* open_tree */,
    429L /* move_mount */,
    430L /* fsopen */,
    442L /* mount_setattr */,
};

/// Of these the first argument names a process; 0 is the caller.
constexpr std::array of_itself = {
    long{__NR_prlimit64},      long{__NR_sched_setaffinity}, long{__NR_sched_setscheduler},
    long{__NR_sched_setparam}, long{__NR_sched_setattr},
};

/// What terminals and pipes are asked. Others reach into file systems and terminals.
constexpr std::array<std::uint32_t, 8> harmless_ioctls = {
    TCGETS, TIOCGWINSZ, TIOCGPGRP, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, 0x802C542A /* TCGETS2 */};

constexpr std::array<long, 3> io_uring = {425, 426, 427};

Filter sockets_of_streams(bool pair) {
  Filter body;
  load_argument(body, 0);
  body.push_back({BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AF_UNIX});
  answer(body, refuse(EACCES));
  load_argument(body, 1);
  body.push_back({BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xf});  // the rest are flags
  answer_if(body, SOCK_STREAM, pass);
  if (pair) answer_if(body, SOCK_SEQPACKET, pass);
  answer(body, refuse(EACCES));
  return body;
}

Filter make_filter(Cage::Connections connections) {
  Filter filter;
  load(filter, offsetof(seccomp_data, arch));
  filter.push_back({BPF_JMP | BPF_JEQ | BPF_K, 1, 0, our_machine});
  answer(filter, refuse(ENOSYS));
  load(filter, offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  constexpr std::uint32_t x32 = 0x40000000;
  filter.push_back({BPF_JMP | BPF_JGE | BPF_K, 0, 1, x32});
  answer(filter, refuse(ENOSYS));
#endif
  if (connections == Cage::Connections::none) {
    answer_if(filter, __NR_connect, refuse(EACCES));
    append_for(filter, __NR_socket, sockets_of_streams(false));
    append_for(filter, __NR_socketpair, sockets_of_streams(true));
  }
  for (const long call : io_uring)
    answer_if(filter, static_cast<std::uint32_t>(call), refuse(ENOSYS));
  for (const long call : mode_changes) answer_if(filter, static_cast<std::uint32_t>(call), pretend);
  for (const long call : forbidden) {
    answer_if(filter, static_cast<std::uint32_t>(call), refuse(EPERM));
  }
  for (const long call : of_itself) {
    Filter body;
    load_argument(body, 0);
    answer_if(body, 0, pass);
    answer(body, refuse(EPERM));
    append_for(filter, call, body);
  }
  Filter ioctls;
  load_argument(ioctls, 1);
  for (const std::uint32_t request : harmless_ioctls) answer_if(ioctls, request, pass);
  answer(ioctls, refuse(ENOTTY));
  append_for(filter, __NR_ioctl, ioctls);
  answer(filter, pass);
  return filter;
}

bool has_seccomp() {
  std::uint32_t action = SECCOMP_RET_ERRNO;
  return ::syscall(__NR_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

}  // namespace

int landlock_version() {
  const long version = ::syscall(create_ruleset, nullptr, 0, version_flag);
  return version > 0 ? static_cast<int>(version) : 0;
}

std::vector<std::string> cage_gaps() {
  return cage_gaps(landlock_version(), has_seccomp());
}

std::vector<std::string> cage_gaps(int landlock, bool seccomp) {
  std::vector<std::string> gaps;
  const auto add = [&](bool missing, const char* what) {
    if (missing) gaps.emplace_back(what);
  };
  add(landlock < 1, "files outside can be written (the kernel has no Landlock)");
  add(landlock >= 1 && landlock < with_truncate,
      "files outside can be truncated (Landlock before Linux 6.2)");
  add(landlock < with_scopes,
      "processes of the same user can be signalled (Landlock before Linux 6.12)");
  add(!seccomp && landlock < with_tcp, "TCP connections can be made (no seccomp filters)");
  add(!seccomp,
      "Unix sockets and UDP can be reached, and modes of files changed (no seccomp "
      "filters)");
  return gaps;
}

Cage::Cage(const std::vector<fs::path>& writable, Connections connections, int landlock) {
  if (has_seccomp()) filter_ = make_filter(connections);
  if (landlock < 1) return;
  const RulesetAttributes attributes = attributes_for(landlock, connections);
  const long made = ::syscall(create_ruleset, &attributes, size_for(landlock), 0);
  if (made < 0) fail_errno("make a cage", errno);
  ruleset_ = Fd(static_cast<int>(made));
  for (const fs::path& place : writable) allow(ruleset_, place, attributes.files);
  allow(ruleset_, "/dev/null", attributes.files & (write_file | truncate));
}

bool Cage::enter() const noexcept {
  ::setsid();  // or a terminal could be typed into; fails for who leads a session of his own
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  if (ruleset_ && ::syscall(restrict_self, ruleset_.get(), 0) != 0) return false;
  if (filter_.empty()) return true;
  sock_fprog program{static_cast<unsigned short>(filter_.size()),
                     const_cast<sock_filter*>(filter_.data())};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace holdfast::base
