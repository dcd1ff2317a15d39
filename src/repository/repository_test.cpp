#include "repository/repository.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "repository/testing.h"
#include "store/directory_store.h"

namespace holdfast::repository {
namespace {

using base::Code;
using testing::code_of;
using testing::KeyFile;
using testing::place;
using testing::store_of;
using testing::TestRepository;

Code refusal(const std::shared_ptr<testing::Objects>& objects, const KeySource& source) {
  return code_of([&] { Repository::open(store_of(objects), source); });
}

TEST(Repository, opens_again_with_its_key) {
  const TestRepository made(true);
  const Repository again = Repository::open(store_of(made.objects), made.key_file.source());
  EXPECT_TRUE(again.encrypted());
  EXPECT_EQ(again.id(), made.repository.id());
  EXPECT_EQ(again.mac("x", "text"), made.repository.mac("x", "text"));
  EXPECT_EQ(again.page_hash().hash64(base::view("page")),
            made.repository.page_hash().hash64(base::view("page")));
}

TEST(Repository, opens_again_without_a_key_if_it_has_none) {
  const TestRepository made(false);
  const Repository again = Repository::open(store_of(made.objects), {});
  EXPECT_FALSE(again.encrypted());
  EXPECT_FALSE(made.made.key);
  EXPECT_EQ(again.mac("x", "text"), made.repository.mac("x", "text"));
}

TEST(Repository, opens_with_the_key_of_the_kit_even_if_all_others_are_gone_OS9) {
  const TestRepository made(true);
  for (const std::string& name : made.objects->names_with("keys/")) made.objects->all.erase(name);
  EXPECT_EQ(refusal(made.objects, made.key_file.source()), Code::key);
  const base::TemporaryDirectory directory("kit");
  const base::fs::path kit = directory.path() / "kit";
  base::replace_file(kit, base::view(key_text(*made.made.key)));
  EXPECT_EQ(Repository::open(store_of(made.objects), {{}, kit.string(), {}}).id(),
            made.repository.id());
}

TEST(Repository, refuses_a_wrong_key_and_none) {
  const TestRepository made(true);
  EXPECT_EQ(refusal(made.objects, KeyFile().source()), Code::key);
  EXPECT_EQ(refusal(made.objects, {}), Code::key);
}

TEST(Repository, that_is_not_encrypted_refuses_a_key_EK2) {
  const TestRepository made(false);
  EXPECT_EQ(refusal(made.objects, KeyFile().source()), Code::key);
  EXPECT_EQ(refusal(made.objects, {"passphrase", {}, {}}), Code::key);
}

TEST(Repository, cannot_be_turned_to_plaintext_by_its_marker_EK2) {
  const TestRepository made(true);
  std::string marker(base::text(made.objects->at("holdfast.json")));
  const std::size_t at = marker.find("aes-256-gcm");
  marker.replace(at, 11, "none");
  made.objects->at("holdfast.json") = base::copy(base::view(marker));
  EXPECT_EQ(refusal(made.objects, made.key_file.source()), Code::key);
}

TEST(Repository, lists_the_system_last_that_was_written_to_last_and_not_the_one_registered_last) {
  const base::TemporaryDirectory directory("systems");
  auto made = Repository::create(std::make_unique<store::DirectoryStore>(directory.path()), {});
  Repository& repository = made.repository;
  const auto write = [&](const std::string& name, int minutes_ago) {
    ASSERT_TRUE(repository.store().put(name, base::view("x")));
    base::fs::last_write_time(directory.path() / name, base::fs::file_time_type::clock::now() -
                                                           std::chrono::minutes(minutes_ago));
  };
  for (const char* system : {"200", "100"}) repository.register_system({"main", system}, "");
  write("clusters/main/100/backups/20261123T083000Z-aaaa/backup.json", 50);
  write("clusters/main/200/backups/20261123T083000Z-aaaa/backup.json", 60);
  EXPECT_EQ(repository.systems("main"), (std::vector<std::string>{"200", "100"}));
  write("clusters/main/200/wal/00000001/000000010000000000000001", 40);
  EXPECT_EQ(repository.systems("main"), (std::vector<std::string>{"100", "200"}));
  write("clusters/main/100/wal/00000002/000000020000000000000009.d/00000000-00000100", 30);
  EXPECT_EQ(repository.systems("main"), (std::vector<std::string>{"200", "100"}));
  write("clusters/main/200/wal/00000001/000000010000000000000002", 20);
  EXPECT_EQ(repository.systems("main"), (std::vector<std::string>{"100", "200"}));
}

TEST(Repository, is_made_once) {
  const TestRepository made(true);
  const auto before = made.objects->all;
  EXPECT_EQ(code_of([&] { Repository::create(store_of(made.objects), {}); }), Code::conflict);
  EXPECT_EQ(code_of([&] { Repository::create(store_of(made.objects), KeyFile().source()); }),
            Code::conflict);
  EXPECT_EQ(made.objects->all, before);
}

TEST(Repository, is_not_made_over_backups_whose_marker_was_lost) {
  const TestRepository made(true);
  ASSERT_TRUE(made.repository.register_system(place, ""));
  made.objects->all.erase("holdfast.json");
  EXPECT_EQ(code_of([&] { Repository::create(store_of(made.objects), {}); }), Code::refused);
  EXPECT_FALSE(made.objects->all.contains("holdfast.json"));
}

TEST(Repository, of_two_who_race_is_made_by_one_whose_key_fits_EK1) {
  const KeyFile key_file;
  for (int round = 0; round < 8; ++round) {
    const base::TemporaryDirectory directory("race");
    const auto open_store = [&] {
      return std::make_unique<store::DirectoryStore>(directory.path());
    };
    constexpr unsigned racers = 2;
    std::barrier together(racers);
    std::atomic<unsigned> winners = 0;
    base::run_workers(racers, [&](unsigned, const std::stop_token&) {
      together.arrive_and_wait();
      winners += testing::succeeds_or(Code::conflict,
                                      [&] { Repository::create(open_store(), key_file.source()); });
    });
    EXPECT_EQ(winners, 1U);
    const Repository repository = Repository::open(open_store(), key_file.source());
    // The loser's key, which opens nothing, is gone.
    EXPECT_EQ(repository.store().names("keys").size(), 1U);
  }
}

TEST(Repository, of_two_who_race_is_not_harmed_by_the_loser_EK1) {
  const KeyFile key_file;
  const auto objects = std::make_shared<testing::Objects>();
  std::optional<Repository::Created> winner;
  objects->before = [&](std::string_view call, const std::string& name) {
    if (call != "commit" || name != "holdfast.json") return;
    objects->before = [](std::string_view, const std::string&) {};
    winner.emplace(Repository::create(store_of(objects), key_file.source()));
  };
  EXPECT_EQ(code_of([&] { Repository::create(store_of(objects), key_file.source()); }),
            Code::conflict);
  ASSERT_TRUE(winner);
  EXPECT_EQ(Repository::open(store_of(objects), key_file.source()).id(), winner->repository.id());
  EXPECT_EQ(objects->names_with("keys/").size(), 1U);
}

TEST(Repository, that_cannot_be_read_is_not_absent_RC5) {
  const base::TemporaryDirectory directory("marker");
  base::fs::create_symlink("holdfast.json", directory.path() / "holdfast.json");  // to itself
  const auto open_store = [&] { return std::make_unique<store::DirectoryStore>(directory.path()); };
  EXPECT_EQ(code_of([&] { Repository::open(open_store(), {}); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { Repository::create(open_store(), {}); }), Code::conflict);
  EXPECT_TRUE(Repository::exists(*open_store()));
}

TEST(Repository, that_is_absent_is_said_to_be) {
  const auto objects = std::make_shared<testing::Objects>();
  EXPECT_EQ(refusal(objects, {}), Code::not_found);
  EXPECT_FALSE(Repository::exists(*store_of(objects)));
  EXPECT_TRUE(Repository::exists(*store_of(TestRepository(false).objects)));
}

TEST(Repository, of_an_unknown_format_is_refused_RC5) {
  const TestRepository made(false);
  const auto with = [&](const char* member, const nlohmann::json& value) {
    auto marker = nlohmann::json::parse(base::text(made.objects->at("holdfast.json")));
    marker[member] = value;
    const auto changed = std::make_shared<testing::Objects>();
    changed->all["holdfast.json"] = base::copy(base::view(marker.dump()));
    return refusal(changed, {});
  };
  EXPECT_EQ(with("format", 3), Code::unsupported);
  EXPECT_EQ(with("format", 1), Code::unsupported);
  EXPECT_EQ(with("encryption", "rot13"), Code::unsupported);
  EXPECT_EQ(with("format", "1"), Code::corrupt);
  EXPECT_EQ(with("format", nullptr), Code::corrupt);
  EXPECT_EQ(with("repository", 7), Code::corrupt);
}

TEST(Repository, marker_is_read_or_refused_however_damaged) {
  const TestRepository made(true);
  const base::Bytes whole = made.objects->at("holdfast.json");
  base::testing::Random random(1);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(300); ++i) {
    made.objects->at("holdfast.json") = base::testing::mutated(whole, random);
    try {
      const Repository again = Repository::open(store_of(made.objects), made.key_file.source());
      EXPECT_EQ(again.id(), made.repository.id());  // white space, or what is for people
    } catch (const base::Error& error) {
      EXPECT_TRUE(error.code() == Code::corrupt || error.code() == Code::key ||
                  error.code() == Code::unsupported)
          << error.message();
    }
  }
}

TEST(Mac, depends_on_key_purpose_and_text) {
  const TestRepository one(true);
  const TestRepository two(true);
  EXPECT_EQ(one.repository.mac("a", "text").size(), 64U);
  EXPECT_NE(one.repository.mac("a", "text"), one.repository.mac("a", "texu"));
  EXPECT_NE(one.repository.mac("a", "text"), one.repository.mac("b", "text"));
  EXPECT_NE(one.repository.mac("a", "text"), two.repository.mac("a", "text"));
}

TEST(Systems, are_registered_once_and_told_apart_INV_5) {
  const TestRepository made(false);
  Repository& repository = made.repository;
  const ClusterPlace upgraded{"main", "7300000000000000002"};
  EXPECT_TRUE(repository.register_system(place, "first"));
  EXPECT_FALSE(repository.register_system(place, "again"));
  EXPECT_TRUE(repository.is_registered(place));
  EXPECT_FALSE(repository.is_registered(upgraded));
  EXPECT_TRUE(repository.register_system(upgraded, "after pg_upgrade"));
  EXPECT_EQ(repository.systems("main"),
            (std::vector<std::string>{place.system_id, upgraded.system_id}));
  EXPECT_TRUE(repository.systems("other").empty());
  EXPECT_EQ(repository.clusters(), std::vector<std::string>{"main"});
}

TEST(ClusterName, is_plain_CC12) {
  EXPECT_TRUE(is_cluster_name("global_x"));
  EXPECT_TRUE(is_cluster_name("A-1"));
  EXPECT_TRUE(is_cluster_name(std::string(63, 'x')));
  for (const std::string& name :
       std::initializer_list<std::string>{"", ".", "..", "a.b", "a/b", "a b", "a\n", "\xc3\xa4",
                                          std::string(64, 'x'), std::string(1, '\0')}) {
    EXPECT_FALSE(is_cluster_name(name)) << name;
  }
}

}  // namespace
}  // namespace holdfast::repository
