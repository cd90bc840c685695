// xen_probe COMMAND DOMAIN ..: parts of the Xen backend, tried on real Xen in the lab's Dom0
// (tests/lab/guest/xen-cases). Not installed. cases.h says what each command shows.
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "tests/lab/xen_probe/cases.h"

namespace xenspan::lab {

int fail(const std::string& what) {
  fmt::print("FAIL {}\n", what);
  return 1;
}

namespace {

constexpr char kUsage[] =
    "usage: xen_probe capability|beats|hold|interrupts|pages|rights DOMAIN\n"
    "       xen_probe gate DOMAIN [WORD]\n"
    "       xen_probe pin DOMAIN VCPU CPU\n"
    "       xen_probe swing DOMAIN VCPU\n"
    "       xen_probe move|span|memory DOMAIN TO\n";

int run(int count, char** words) {
  const std::string command = count > 1 ? words[1] : "";
  const auto number = [&](int index) {
    return index < count ? static_cast<unsigned>(std::strtoul(words[index], nullptr, 10)) : 0;
  };
  auto opened = XenCalls::open();
  if (!opened) return fail(opened.error().message);
  XenCalls& xen = **opened;
  const DomainId domain = number(2);
  if (count == 3 && command == "capability") return show_capability(xen, domain);
  if (count == 3 && command == "beats") return show_beats(xen, domain);
  if (count == 3 && command == "hold") return hold_and_release(xen, domain);
  if (count == 4 && command == "swing") return swing(xen, domain, number(3));
  if (count == 3 && command == "interrupts") return watch_interrupts(xen, domain);
  if (count == 3 && command == "pages") return fill_pages(xen, domain);
  if (count == 3 && command == "rights") return show_rights(xen, domain);
  if ((count == 3 || count == 4) && command == "gate")
    return open_gate(xen, domain, count == 4 ? number(3) : 1);
  if (count == 5 && command == "pin") return pin(xen, domain, number(3), number(4));
  if (count == 4 && command == "move") return move_vcpu(xen, domain, number(3));
  if (count == 4 && command == "span") return span(xen, domain, number(3));
  if (count == 4 && command == "memory") return use_little_memory(xen, domain, number(3));
  fmt::print("{}", kUsage);
  return 2;
}

}  // namespace
}  // namespace xenspan::lab

int main(int count, char** words) { return xenspan::lab::run(count, words); }
