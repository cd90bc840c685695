// Making queue pairs and bringing them up: device, memory, states.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dsm-rdma/transport/verbs/lanes.h"

namespace xenspan::dsm::verbs {
namespace {

constexpr std::size_t kCreditStride = 64;  // a counter a cache line
constexpr const char* kLockedMemory = "raise the limit of locked memory (RLIMIT_MEMLOCK)";

std::size_t whole_pages(std::size_t bytes) { return (bytes + kPageSize - 1) & ~(kPageSize - 1); }

// Where packet numbers begin is nobody's business: a stranger has to guess it to be heard.
std::uint32_t random_packet() {
  std::uint32_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number) return 1;
  return number & 0xffffff;
}

// The retransmission timer: 4.096 us * 2^t, eight times in all.
std::uint8_t timer_for(unsigned dead_after_ms) {
  std::uint8_t t = 8;
  while (t < 22 && 8 * 4096ull << (t + 1) <= dead_after_ms * 1'000'000ull) ++t;
  return t;
}

}  // namespace

RegisteredMemory::~RegisteredMemory() {
  region_.reset();
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

Status RegisteredMemory::open(ibv_pd* domain, std::size_t bytes, int access) {
  bytes_ = whole_pages(std::max<std::size_t>(bytes, 1));
  void* mapped =
      ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return system_error(errno, "no memory for RDMA buffers");
  base_ = static_cast<std::byte*>(mapped);
  // A fork() must not copy what the device writes to.
  ::madvise(base_, bytes_, MADV_DONTFORK);
  region_.reset(ibv_reg_mr(domain, base_, bytes_, access));
  if (region_) return {};
  return system_error(errno, fmt::format("cannot register {} KiB of RDMA buffers", bytes_ >> 10),
                      kLockedMemory);
}

VerbsTransport::VerbsTransport(const VerbsConfig& config, HostId self, Epoch epoch)
    : config_(config),
      self_(self),
      bounds_{static_cast<unsigned>(config.hosts.size()), config.lanes, config.pages, epoch},
      lanes_(config.lanes + 1),
      peers_(config.hosts.size()) {}

VerbsTransport::~VerbsTransport() = default;

Status VerbsTransport::open(std::unique_ptr<Device> device) {
  device_ = std::move(device);
  const unsigned hosts = bounds_.hosts, lanes = config_.lanes;
  const auto most_entries = static_cast<std::uint32_t>(device_->limits.max_cqe);
  const auto most_buffers = static_cast<std::uint32_t>(device_->limits.max_qp_wr);
  shape_ = {lanes, hosts, service_buffers(lanes, hosts, most_entries, most_buffers)};
  if (shape_.service_buffers == 0) {
    return Error{E2BIG, fmt::format("RDMA device {} (completion queues of {} entries, {} buffers a "
                                    "queue pair) reaches {} hosts at most, not {}: use fewer hosts",
                                    device_->name, most_entries, most_buffers,
                                    most_hosts(lanes, most_entries, most_buffers), hosts)};
  }
  if (config_.service_buffers != 0) shape_.service_buffers = config_.service_buffers;
  for (unsigned lane = 0; lane <= lanes; ++lane) {
    const std::uint32_t entries =
        lane == kServiceLane
            ? service_entries(shape_)
            : shape_of(true, static_cast<Lane>(lane), shape_).buffers * (hosts - 1);
    if (Status status = lanes_[lane].waiter.open(device_->context.get(), static_cast<int>(entries));
        !status)
      return status;
  }
  return {};
}

Result<std::unique_ptr<Link>> VerbsTransport::make_link(Peer& peer, Lane lane, bool own,
                                                        const LinkMemory& memory) {
  const LinkShape shape = shape_of(own, lane, shape_);
  const auto fail = [&] {
    return system_error(errno,
                        fmt::format("cannot make an RDMA queue pair to {} on {}",
                                    config_.hosts[peer.state.id].name, device_->name),
                        kLockedMemory);
  };
  Handle<ibv_cq> sends(
      ibv_create_cq(device_->context.get(), static_cast<int>(shape.sends), nullptr, nullptr, 0));
  if (!sends) return fail();
  const unsigned reader = own ? lane : kServiceLane;
  ibv_qp_init_attr wanted{};
  wanted.send_cq = sends.get();
  wanted.recv_cq = lanes_[reader].waiter.queue();
  wanted.qp_type = IBV_QPT_RC;
  wanted.cap.max_send_wr = shape.sends;
  wanted.cap.max_recv_wr = shape.buffers;
  wanted.cap.max_send_sge = wanted.cap.max_recv_sge = 1;
  wanted.cap.max_inline_data = kEnvelopeBytes;
  Handle<ibv_qp> queue(ibv_create_qp(device_->domain.get(), &wanted));
  if (!queue) return fail();
  ibv_qp_attr state{};
  state.qp_state = IBV_QPS_INIT;
  state.port_num = device_->port;
  state.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  if (const int error =
          ibv_modify_qp(queue.get(), &state,
                        IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)) {
    errno = error;
    return fail();
  }
  const std::uint32_t backlog =
      own && lane == kServiceLane ? service_bound(config_.lanes, bounds_.hosts) : 0;
  auto link = std::make_unique<Link>(static_cast<std::uint32_t>(links_.size()), self_, peer.state,
                                     lane, own, shape, memory, bounds_, backlog, std::move(sends),
                                     std::move(queue));
  if ((errno = link->post_receives()) != 0) return fail();
  links_.push_back(link.get());
  return link;
}

Status VerbsTransport::add_peer(HostId id, std::unique_ptr<tcp::SecureStream> stream) {
  peers_[id] = std::make_unique<Peer>();
  Peer& peer = *peers_[id];
  peer.state.id = id;
  peer.stream = std::move(stream);
  std::size_t local = 0, credits = 0, remote = 0;
  for (const bool own : {true, false}) {
    for (unsigned lane = 0; lane <= config_.lanes; ++lane) {
      const LinkShape shape = shape_of(own, static_cast<Lane>(lane), shape_);
      local += shape.staging * kBounceStride + shape.buffers * kReceiveStride;
      remote += shape.bounce * kBounceStride;
      credits += kCreditStride;
    }
  }
  ibv_pd* domain = device_->domain.get();
  Status status = peer.local.open(domain, local, IBV_ACCESS_LOCAL_WRITE);
  if (status.ok())
    status = peer.remote.open(domain, remote + credits,
                              IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
  if (!status.ok()) return status;
  std::byte* next_local = peer.local.base();
  std::byte* next_bounce = peer.remote.base();
  std::byte* next_credit = peer.remote.base() + remote;
  for (const bool own : {true, false}) {
    for (unsigned lane = 0; lane <= config_.lanes; ++lane) {
      const LinkShape shape = shape_of(own, static_cast<Lane>(lane), shape_);
      LinkMemory memory;
      memory.staging = next_local;
      next_local += shape.staging * kBounceStride;
      memory.receive = next_local;
      next_local += shape.buffers * kReceiveStride;
      memory.local_lkey = peer.local.lkey();
      memory.bounce = next_bounce;
      next_bounce += shape.bounce * kBounceStride;
      // The device writes it; the fresh mapping is zero, as the count is.
      memory.credit = reinterpret_cast<std::atomic<std::uint32_t>*>(next_credit);
      next_credit += kCreditStride;
      auto link = make_link(peer, static_cast<Lane>(lane), own, memory);
      if (!link) return link.error();
      (own ? peer.own : peer.theirs).push_back(std::move(*link));
      (own ? peer.own_packets : peer.their_packets).push_back(random_packet());
    }
  }
  return {};
}

SetupRecord VerbsTransport::record(HostId id) const {
  const Peer& peer = *peers_[id];
  SetupRecord record;
  record.mtu = static_cast<std::uint8_t>(device_->port_attributes.active_mtu);
  record.link_layer = device_->port_attributes.link_layer;
  record.lid = device_->port_attributes.lid;
  record.rkey = peer.remote.rkey();
  record.gid = device_->gid;
  for (std::size_t lane = 0; lane <= config_.lanes; ++lane) {
    record.own.push_back(peer.own[lane]->record(peer.own_packets[lane]));
    record.theirs.push_back(peer.theirs[lane]->record(peer.their_packets[lane]));
  }
  return record;
}

Status VerbsTransport::bring_up(Link& link, std::uint32_t own_packet, const QueueRecord& theirs,
                                const SetupRecord& record) {
  const auto fail = [&](int error, const char* step) {
    return system_error(error,
                        fmt::format("cannot bring an RDMA queue pair to {} up ({})",
                                    config_.hosts[link.peer().id].name, step),
                        "check that both hosts are on one RDMA network and use GIDs of one kind");
  };
  link.learn(theirs);
  ibv_qp_attr state{};
  state.qp_state = IBV_QPS_RTR;
  state.path_mtu =
      static_cast<ibv_mtu>(std::min<int>(device_->port_attributes.active_mtu, record.mtu));
  state.dest_qp_num = theirs.number;
  state.rq_psn = theirs.first_packet;
  state.max_dest_rd_atomic = 1;
  state.min_rnr_timer = 12;
  state.ah_attr.port_num = device_->port;
  state.ah_attr.dlid = record.lid;
  state.ah_attr.sl = static_cast<std::uint8_t>(config_.service_level);
  state.ah_attr.is_global = device_->ethernet() ? 1 : 0;
  std::memcpy(state.ah_attr.grh.dgid.raw, record.gid.data(), record.gid.size());
  state.ah_attr.grh.sgid_index = device_->gid_index;
  state.ah_attr.grh.hop_limit = 64;
  state.ah_attr.grh.traffic_class = static_cast<std::uint8_t>(config_.traffic_class);
  if (const int error =
          ibv_modify_qp(link.queue(), &state,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                            IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
    return fail(error, "ready to receive");
  state.qp_state = IBV_QPS_RTS;
  state.timeout = timer_for(config_.dead_after_ms);
  state.retry_cnt = 7;
  state.rnr_retry = 0;  // credits: there is always a buffer
  state.sq_psn = own_packet;
  state.max_rd_atomic = 1;
  if (const int error =
          ibv_modify_qp(link.queue(), &state,
                        IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                            IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC))
    return fail(error, "ready to send");
  return {};
}

Status VerbsTransport::connect(HostId id, const SetupRecord& theirs) {
  Peer& peer = *peers_[id];
  if (theirs.link_layer != device_->port_attributes.link_layer) {
    return Error{EINVAL, fmt::format("{} is on another kind of RDMA network (InfiniBand and "
                                     "Ethernet do not mix)",
                                     config_.hosts[id].name)};
  }
  peer.state.rkey = theirs.rkey;
  for (std::size_t lane = 0; lane <= config_.lanes; ++lane) {
    // My lane's other end is among its "theirs", and the other way round.
    Status status = bring_up(*peer.own[lane], peer.own_packets[lane], theirs.theirs[lane], theirs);
    if (status.ok())
      status = bring_up(*peer.theirs[lane], peer.their_packets[lane], theirs.own[lane], theirs);
    if (!status.ok()) return status;
  }
  return {};
}

Status VerbsTransport::start() {
  for (const auto& peer : peers_) {
    if (peer && !lanes_[kServiceLane].waiter.watch(peer->stream->fd(), peer.get()))
      return system_error(errno, "cannot watch the connections between slices");
  }
  for (unsigned lane = 1; lane <= config_.lanes; ++lane)
    free_lanes_.fetch_or(std::uint64_t{1} << lane);
  return {};
}

}  // namespace xenspan::dsm::verbs
