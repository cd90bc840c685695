#include "tests/lab/raw_write.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dsm-rdma/futex_lock.h"

namespace xenspan::dsm {
namespace {

constexpr std::uint16_t kPort = 7701;

// What both tell each other, as it lies in memory: both are of one build.
struct Card {
  std::uint32_t number, first_packet, key, mtu;
  std::uint64_t address;
  verbs::GidBytes gid;
};

sockaddr_in name_of(const std::string& address) {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(kPort);
  ::inet_pton(AF_INET, address.c_str(), &name.sin_addr);
  return name;
}

}  // namespace

Result<std::unique_ptr<RawWrite>> RawWrite::open(const std::string& own, const std::string& peer,
                                                 bool listens, unsigned spin_us) {
  std::unique_ptr<RawWrite> raw(new RawWrite(spin_us));
  Status status = raw->connect(own, peer, listens);
  if (status.ok()) status = raw->make();
  if (status.ok()) status = raw->bring_up();
  if (!status.ok()) return status.error();
  return raw;
}

RawWrite::~RawWrite() {
  queue_.reset();
  region_.reset();
  if (memory_ != nullptr) ::munmap(memory_, 2 * kBytes);
}

Status RawWrite::connect(const std::string& own, const std::string& peer, bool listens) {
  const sockaddr_in to = name_of(listens ? own : peer);
  const auto* address = reinterpret_cast<const sockaddr*>(&to);
  if (listens) {
    UniqueFd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(listening.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(listening.get(), address, sizeof to) == 0 && ::listen(listening.get(), 1) == 0)
      socket_.reset(::accept(listening.get(), nullptr, nullptr));
  } else {
    for (unsigned tries = 0; tries < 300 && !socket_; ++tries) {
      UniqueFd trying(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (::connect(trying.get(), address, sizeof to) == 0) socket_ = std::move(trying);
      const timespec pause{0, 100'000'000};
      if (!socket_) ::nanosleep(&pause, nullptr);
    }
  }
  if (!socket_) return system_error(errno, "no connection for the raw writes");
  return {};
}

Status RawWrite::make() {
  verbs::DeviceWish wish;
  auto gid = verbs::local_gid(socket_.get());
  if (!gid) return gid.error();
  wish.address = *gid;
  auto device = verbs::Device::open(wish);
  if (!device) return device.error();
  device_ = std::move(*device);
  if (Status status = waiter_.open(device_->context.get(), kReceives); !status) return status;
  void* mapped =
      ::mmap(nullptr, 2 * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return system_error(errno, "no memory for raw writes");
  memory_ = static_cast<std::byte*>(mapped);
  region_.reset(ibv_reg_mr(device_->domain.get(), memory_, 2 * kBytes,
                           IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
  sends_.reset(ibv_create_cq(device_->context.get(), kReceives, nullptr, nullptr, 0));
  if (!region_ || !sends_) return system_error(errno, "no queue for raw writes");
  ibv_qp_init_attr wanted{};
  wanted.send_cq = sends_.get();
  wanted.recv_cq = waiter_.queue();
  wanted.qp_type = IBV_QPT_RC;
  wanted.cap = {kReceives, kReceives, 1, 1, 0};
  queue_.reset(ibv_create_qp(device_->domain.get(), &wanted));
  if (!queue_) return system_error(errno, "no queue pair for raw writes");
  return {};
}

Status RawWrite::bring_up() {
  Card mine{}, theirs{};
  mine.number = queue_->qp_num;
  mine.first_packet = 77;
  mine.key = region_->rkey;
  mine.mtu = device_->port_attributes.active_mtu;
  mine.address = reinterpret_cast<std::uint64_t>(memory_ + kBytes);
  mine.gid = device_->gid;
  ibv_qp_attr state{};
  state.qp_state = IBV_QPS_INIT;
  state.port_num = device_->port;
  state.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  int error = ibv_modify_qp(queue_.get(), &state,
                            IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  for (unsigned i = 0; i < kReceives && error == 0; ++i) error = post_receive() ? 0 : EIO;
  if (error != 0) return system_error(error, "cannot prepare the raw queue pair");
  if (::send(socket_.get(), &mine, sizeof mine, 0) != sizeof mine ||
      ::recv(socket_.get(), &theirs, sizeof theirs, MSG_WAITALL) != sizeof theirs)
    return system_error(errno, "the other host does not answer");
  peer_address_ = theirs.address;
  peer_key_ = theirs.key;
  state.qp_state = IBV_QPS_RTR;
  state.path_mtu = static_cast<ibv_mtu>(std::min(mine.mtu, theirs.mtu));
  state.dest_qp_num = theirs.number;
  state.rq_psn = theirs.first_packet;
  state.max_dest_rd_atomic = 1;
  state.min_rnr_timer = 12;
  state.ah_attr.port_num = device_->port;
  state.ah_attr.is_global = 1;
  std::memcpy(state.ah_attr.grh.dgid.raw, theirs.gid.data(), theirs.gid.size());
  state.ah_attr.grh.sgid_index = device_->gid_index;
  state.ah_attr.grh.hop_limit = 64;
  error = ibv_modify_qp(queue_.get(), &state,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                            IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  state.qp_state = IBV_QPS_RTS;
  state.timeout = 16;
  state.retry_cnt = 7;
  state.rnr_retry = 7;
  state.sq_psn = mine.first_packet;
  state.max_rd_atomic = 1;
  if (error == 0)
    error = ibv_modify_qp(queue_.get(), &state,
                          IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                              IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  // Neither writes before the other can receive.
  char ready = 'r';
  if (error == 0 && (::send(socket_.get(), &ready, 1, 0) != 1 ||
                     ::recv(socket_.get(), &ready, 1, MSG_WAITALL) != 1))
    error = EPIPE;
  if (error != 0) return system_error(error, "cannot bring the raw queue pair up");
  return {};
}

bool RawWrite::post_receive() {
  ibv_recv_wr request{};
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(queue_.get(), &request, &bad) == 0;
}

bool RawWrite::write(std::uint32_t immediate) {
  ibv_wc done[4];
  while (ibv_poll_cq(sends_.get(), 4, done) > 0) {
  }
  ibv_sge piece{reinterpret_cast<std::uint64_t>(memory_), kBytes, region_->lkey};
  ibv_send_wr request{};
  request.sg_list = &piece;
  request.num_sge = 1;
  request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  request.send_flags = IBV_SEND_SIGNALED;
  request.imm_data = htonl(immediate);
  request.wr.rdma.remote_addr = peer_address_;
  request.wr.rdma.rkey = peer_key_;
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(queue_.get(), &request, &bad) == 0;
}

bool RawWrite::take(std::int64_t& immediate) {
  ibv_wc got;
  if (waiter_.poll(&got, 1) != 1) return false;
  const bool good = got.status == IBV_WC_SUCCESS && post_receive();
  immediate = good ? std::int64_t{ntohl(got.imm_data)} : -1;
  return true;
}

// As VerbsTransport::wait(), for a fixed time.
std::int64_t RawWrite::next() {
  std::int64_t immediate = -1;
  std::uint64_t sleep_at = now_ns() + spin_ns_;
  while (!take(immediate)) {
    if (now_ns() < sleep_at) {
      cpu_pause();
      continue;
    }
    void* ready[verbs::Waiter::kMostReady];
    if (waiter_.arm() != 0) return -1;
    if (take(immediate)) break;
    waiter_.sleep(-1, ready);
    sleep_at = now_ns() + spin_ns_;
  }
  return immediate;
}

std::vector<std::uint64_t> RawWrite::round_trips(unsigned count) {
  std::vector<std::uint64_t> ns;
  for (unsigned i = 0; i < count; ++i) {
    const std::uint64_t start = now_ns();
    if (!write(0) || next() < 0) break;
    ns.push_back(now_ns() - start);
  }
  return ns;
}

void RawWrite::tell_to_end() {
  if (write(kEnd)) next();
}

void RawWrite::answer() {
  for (;;) {
    const std::int64_t immediate = next();
    if (immediate < 0 || !write(0) || immediate == kEnd) return;
  }
}

}  // namespace xenspan::dsm
