// The ways a call is packed, run and unpacked: one trio of functions a shape. io_calls.cc chooses
// by the table.
//
// Contracts are those of pack(), execute() and unpack() in io_calls.h. execute_*() may assume that
// the request is at least a RequestHeader long.
#pragma once

#include "dom0-daemon/hypervisor/usermode/io/call_info.h"
#include "dom0-daemon/hypervisor/usermode/io/wire.h"

namespace xenspan::hypervisor::usermode::io {

// generic.cc. Request: a Record and its bytes for every text and every buffer that is read, in
// order of arguments. Answer: the same for every buffer that is written.
int pack_generic(const CallInfo& info, const Call& call, GuestMemory& memory, Packet& request);
void execute_generic(const HomeIo& home, const CallInfo& info, const RequestHeader& header,
                     const Packet& request, Packet& answer);
void unpack_generic(const CallInfo& info, const Call& call, const Packet& answer,
                    GuestMemory& memory, Progress& progress);

// transfer.cc. Request: args are descriptor, bytes, offset, flags; the bytes follow for a write.
// Answer: the bytes read.
int pack_transfer(const Call& call, const Progress& progress, GuestMemory& memory, Packet& request);
void execute_transfer(const HomeIo& home, const RequestHeader& header, const Packet& request,
                      Packet& answer);
Next unpack_transfer(const Call& call, const Packet& answer, GuestMemory& memory,
                     Progress& progress);

// message.cc. Request: args are descriptor, flags, number of messages, time limit in ns or -1; then
// each message's MessageHead and, for sending, its name, control data and payload. Answer: for
// receiving, each message's MessageHead with name, control data and payload.
int pack_message(const Call& call, const Progress& progress, GuestMemory& memory, Packet& request);
void execute_message(const HomeIo& home, const RequestHeader& header, const Packet& request,
                     Packet& answer);
Next unpack_message(const Call& call, const Packet& answer, GuestMemory& memory,
                    Progress& progress);

// Whether `number` moves data from the guest outwards.
bool is_sending(std::int64_t number);

}  // namespace xenspan::hypervisor::usermode::io
