// The slice's frames and the guest's mapping of them: PageBackend for user-mode domains.
//
// One memfd mapped twice. The guest's view lies at the window's addresses, under userfaultfd in
// SIGBUS mode: a page that is not mapped, or is written while write-protected, raises SIGBUS in the
// touching thread. The engine's own view lies anywhere and never faults to the engine. Where the
// kernel gives memory by the block (frame_block.h), there is a third mapping, in which the frames
// of many pages are made at once; a single page takes a page's memory as ever. Right ->
// mapping: invalid = no PTE, shared = write-protected PTE, exclusive = PTE (write-protected when
// the guest's own layout forbids writing). Linux: Documentation/admin-guide/mm/userfaultfd.rst. A
// page is mapped write-protected with UFFDIO_CONTINUE_MODE_WP, or, before Linux 6.4 (Debian 12's
// kernel is 6.1), put in place anew with UFFDIO_COPY_MODE_WP: 4 KiB are copied for it. Threading:
// as PageBackend. Ownership: owns memfd, mappings and userfaultfd.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/usermode/layout_table.h"
#include "dom0-daemon/hypervisor/usermode/window.h"
#include "dsm-rdma/page_backend.h"

namespace xenspan::hypervisor::usermode {

class GuestView final : public dsm::PageBackend {
 public:
  enum class Protect {
    kBest,  // as this kernel can
    kCopy,  // as kernels before 6.4 can; for tests of that path
  };
  // Before privileges are dropped: userfaultfd for faults of user code needs root, or
  // vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd. `layout` is borrowed.
  static Result<std::unique_ptr<GuestView>> create(const LayoutTable& layout,
                                                   Protect protect = Protect::kBest);
  ~GuestView() override;

  std::byte* frame(dsm::Gfn gfn) noexcept override { return own_ + (gfn << dsm::kPageShift); }
  bool frames_keep_still() const noexcept override { return !by_copy_; }
  int grant(dsm::Gfn first, std::uint32_t count, dsm::Right right) noexcept override;
  int protect(dsm::Gfn gfn) noexcept override { return protect_run(gfn, 1); }
  int withdraw(dsm::Gfn gfn) noexcept override { return withdraw_run(gfn, 1); }
  int drop_frame(dsm::Gfn gfn) noexcept override { return drop_run(gfn, 1); }
  int protect_run(dsm::Gfn first, std::uint32_t count) noexcept override;
  int withdraw_run(dsm::Gfn first, std::uint32_t count) noexcept override;
  int drop_run(dsm::Gfn first, std::uint32_t count) noexcept override;
  int raise_run(dsm::Gfn first, std::uint32_t count) noexcept override;
  int fill_run(dsm::Gfn first, std::uint32_t count, dsm::Right right,
               const std::byte* const* contents, bool fresh) noexcept override;
  Run fault_around(dsm::Gfn gfn) noexcept override;
  bool may_prefetch(dsm::Gfn gfn, dsm::Right right) const noexcept override {
    return LayoutTable::allows(layout_.at(gfn), right == dsm::Right::kExclusive);
  }

  // The fault this thread is about to serve was a write to a page that was mapped: the next
  // exclusive grant of it in this thread lifts the protection first and looks for a missing mapping
  // afterwards.
  static void expect_mapped(dsm::Gfn gfn) noexcept;

  std::byte* frames() { return own_; }
  std::uint64_t frames_bytes() const;  // memory the frames use now
  bool in_blocks() const { return blocks_ != nullptr; }

 private:
  explicit GuestView(const LayoutTable& layout) : layout_(layout) {}
  Status open();
  std::byte* map_frames() noexcept;
  void try_blocks() noexcept;
  static int populate(std::byte* frames, dsm::Gfn first, dsm::Gfn end) noexcept;
  int make_frames(dsm::Gfn first, std::uint32_t count) noexcept;
  bool fill_blocks(dsm::Gfn first, std::uint32_t count, const std::byte* const* contents) noexcept;
  bool writable(dsm::Gfn gfn, dsm::Right right) const noexcept {
    return right == dsm::Right::kExclusive && LayoutTable::allows(layout_.at(gfn), true);
  }
  std::uint32_t alike(dsm::Gfn first, std::uint32_t count, dsm::Right right) const noexcept;
  bool write_frames(dsm::Gfn first, std::uint32_t count, const std::byte* const* contents) noexcept;
  std::uint32_t fill_at_once(dsm::Gfn first, std::uint32_t count, bool writable,
                             const std::byte* contents) noexcept;
  int map(dsm::Gfn first, std::uint32_t count, bool writable) noexcept;
  int map_by_copy(dsm::Gfn gfn) noexcept;
  int write_protect(dsm::Gfn first, std::uint32_t count, bool on) noexcept;

  const LayoutTable& layout_;
  UniqueFd memory_, faults_;
  std::byte* own_ = nullptr;
  std::byte* blocks_ = nullptr;  // the same frames, to make them by the block; nullptr: not here
  bool by_copy_ = false;         // write-protected mappings are made by copying
};

}  // namespace xenspan::hypervisor::usermode
