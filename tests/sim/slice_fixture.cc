#include "tests/sim/slice_fixture.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace xenspan::dsm::sim {
namespace {

constexpr std::size_t kLastWord = kPageSize - sizeof(Value);
constexpr std::uint32_t kAround = 4;  // pages

}  // namespace

Domain::Domain(const Config& config)
    : config_(config),
      network_({.hosts = config.hosts,
                .lanes = 2,  // fewer than the threads of the largest test: some requests use lane 0
                .seed = config.seed,
                .max_delay_us = config.max_delay_us}) {
  for (unsigned host = 0; host < config.hosts; ++host) {
    slices_.push_back(std::make_unique<Slice>(*this, static_cast<HostId>(host)));
  }
  for (auto& slice : slices_) {
    if (!slice->create_engine()) std::abort();
  }
}

Domain::~Domain() {
  // All service threads end before any slice goes.
  for (auto& slice : slices_) slice->engine().stop("the test is over");
}

// Called with the right in place. What it excludes must be gone from every other mapping already,
// not soon.
void Domain::check_grant(HostId host, Gfn gfn, Right right) {
  for (unsigned other = 0; other < slices_.size(); ++other) {
    if (other == host) continue;
    const Right theirs = slices_[other]->mapped(gfn);
    if (theirs == Right::kExclusive || (theirs == Right::kShared && right == Right::kExclusive)) {
      ++violations_;
    }
  }
}

Slice::Slice(Domain& domain, HostId self)
    : domain_(domain),
      self_(self),
      frames_(std::make_unique<std::byte[]>(domain.config().pages * kPageSize)),
      pages_(std::make_unique<Page[]>(domain.config().pages)) {}

bool Slice::create_engine() {
  EngineConfig config;
  config.self = self_;
  config.hosts = domain_.config().hosts;
  config.pages = domain_.config().pages;
  auto engine =
      Engine::create(config, *this, domain_.network().at(self_), [](const std::string&) {});
  if (!engine) {
    std::fprintf(stderr, "engine %d: %s\n", self_, engine.error().message.c_str());
    return false;
  }
  engine_ = std::move(engine).value();
  service_ = std::thread([this] { engine_->serve(); });
  return true;
}

Slice::~Slice() {
  if (service_.joinable()) service_.join();
}

bool Slice::access(Gfn gfn, bool write, Value& value) {
  const std::lock_guard guard(pages_[gfn].unit);
  if (pages_[gfn].mapped < (write ? Right::kExclusive : Right::kShared)) return false;
  std::byte* page = frame(gfn);
  Value last;
  if (write) {
    value = domain_.new_value();
    std::memcpy(page, &value, sizeof value);
    std::memcpy(page + kLastWord, &value, sizeof value);
  }
  std::memcpy(&value, page, sizeof value);
  std::memcpy(&last, page + kLastWord, sizeof last);
  if (value != last) value = ~Value{0};
  return true;
}

int Slice::grant(Gfn first, std::uint32_t count, Right right) noexcept {
  for (Gfn gfn = first; gfn < first + count; ++gfn) {
    const std::lock_guard guard(pages_[gfn].unit);
    pages_[gfn].mapped = right;
    domain_.check_grant(self_, gfn, right);
  }
  return 0;
}

int Slice::protect(Gfn gfn) noexcept {
  const std::lock_guard guard(pages_[gfn].unit);
  pages_[gfn].mapped = std::min(pages_[gfn].mapped.load(), Right::kShared);
  return 0;
}

int Slice::withdraw(Gfn gfn) noexcept {
  if (self_ == 1 && domain_.config().keeps_mappings) return 0;
  const std::lock_guard guard(pages_[gfn].unit);
  pages_[gfn].mapped = Right::kInvalid;
  return 0;
}

int Slice::drop_frame(Gfn gfn) noexcept {
  const std::lock_guard guard(pages_[gfn].unit);
  std::memset(frame(gfn), 0, kPageSize);
  return 0;
}

PageBackend::Run Slice::fault_around(Gfn gfn) noexcept {
  const Gfn first = gfn / kAround * kAround;
  const Gfn end = std::min<Gfn>(first + kAround, domain_.config().pages);
  return {first, static_cast<std::uint32_t>(end - first)};
}

}  // namespace xenspan::dsm::sim
