// What the engine asks of a hypervisor backend: frames, and the rights of the guest's mapping.
//
// Implemented by dom0-daemon/hypervisor/{usermode,xen} and by test fixtures. Every call may come
// from any thread of the slice, on the fault path (often inside a signal handler): no allocation,
// no exception, no lock shared between gfns. Calls for one gfn never overlap (the engine holds that
// page's lock bit). They return 0 or an errno; anything but 0 ends the domain with the exact cause.
#pragma once

#include <cerrno>
#include <cstring>

#include "dsm-rdma/types.h"

namespace xenspan::dsm {

class PageBackend {
 public:
  virtual ~PageBackend() = default;

  // The engine's own view of a frame: always readable and writable, never faults to the engine.
  // Contents of a frame never touched are zero. Frames of neighbouring gfns are adjacent (frame(g)
  // + 4096 == frame(g + 1)). A backend whose frames_keep_still() is false may map a frame when it
  // is asked for and unmap it later: not before the same thread asks for another one, nor, when
  // this slice has no right to the page, before the page is granted or dropped. nullptr: there is
  // no memory for it, and the domain ends.
  virtual std::byte* frame(Gfn gfn) noexcept = 0;

  // Whether a frame keeps its contents at every instant while this backend changes its mapping. If
  // not, a page is sent before anything else is done to it.
  virtual bool frames_keep_still() const noexcept { return true; }

  // Whether the frame of a page that this slice has lost keeps its memory, for the page's return.
  // If not, drop_frame() is called once the contents have been sent; frames_keep_still() has to be
  // false then.
  virtual bool keeps_lost_frames() const noexcept { return true; }

  // Maps [first, first+count) into the guest with this right (kShared or kExclusive), whatever was
  // there before.
  virtual int grant(Gfn first, std::uint32_t count, Right right) noexcept = 0;
  // Exclusive -> shared: returns when no vCPU of this slice can write the page any more.
  virtual int protect(Gfn gfn) noexcept = 0;
  // -> invalid: returns when no vCPU of this slice can touch the page any more. The frame keeps its
  // contents.
  virtual int withdraw(Gfn gfn) noexcept = 0;
  // Gives the frame's memory back; it reads as zero afterwards.
  virtual int drop_frame(Gfn gfn) noexcept = 0;
  // The same for `count` neighbours at once, where a backend can do that for less.
  virtual int protect_run(Gfn first, std::uint32_t count) noexcept {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (const int error = protect(first + i)) return error;
    }
    return 0;
  }
  virtual int withdraw_run(Gfn first, std::uint32_t count) noexcept {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (const int error = withdraw(first + i)) return error;
    }
    return 0;
  }
  virtual int drop_run(Gfn first, std::uint32_t count) noexcept {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (const int error = drop_frame(first + i)) return error;
    }
    return 0;
  }
  // Shared -> exclusive for `count` neighbours. One that is not mapped after all may stay so.
  virtual int raise_run(Gfn first, std::uint32_t count) noexcept {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (const int error = grant(first + i, 1, Right::kExclusive)) return error;
    }
    return 0;
  }
  // Neighbours that are not mapped get new contents, contents[i] those of first + i, and are mapped
  // with this right. `fresh`: no frame among them has been touched.
  virtual int fill_run(Gfn first, std::uint32_t count, Right right,
                       const std::byte* const* contents, bool /*fresh*/) noexcept {
    for (std::uint32_t i = 0; i < count; ++i) {
      std::byte* const place = frame(first + i);
      if (place == nullptr) return ENOMEM;
      std::memcpy(place, contents[i], kPageSize);
      if (const int error = grant(first + i, 1, right)) return error;
    }
    return 0;
  }

  // The run of gfns around `gfn` (aligned block, same rights in the guest's layout) that may be
  // mapped together with it while no host has touched them: keeps first touches of fresh memory
  // cheap. {gfn, 1} is always a correct answer.
  struct Run {
    Gfn first;
    std::uint32_t count;
  };
  virtual Run fault_around(Gfn gfn) noexcept = 0;
  // Whether the guest's layout, as far as it is known here, lets this page have this right: only
  // then it is asked for before it is touched. Also asked just before it is mapped.
  virtual bool may_prefetch(Gfn /*gfn*/, Right /*right*/) const noexcept { return false; }
};

}  // namespace xenspan::dsm
