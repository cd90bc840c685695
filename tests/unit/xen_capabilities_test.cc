// Which hosts and domains can hold a slice under Xen, and what the others are told.
#include <gtest/gtest.h>

#include <cerrno>

#include "dom0-daemon/hypervisor/xen/capabilities.h"
#include "dom0-daemon/hypervisor/xen/event_ring.h"

namespace xenspan::hypervisor::xen {
namespace {

HostFacts intel() {
  HostFacts host;
  host.version_major = 4;
  host.version_minor = 17;
  host.hvm = host.hap = host.vmx = true;
  host.cpus = 4;
  host.vm_event_version = kEventVersion;
  return host;
}

std::string refusal(const Status& verdict) {
  if (verdict.ok()) return "";
  EXPECT_EQ(verdict.error().code, ENOTSUP);
  return verdict.error().message;
}

TEST(Capabilities, IntelWithEptHoldsSlices) { EXPECT_EQ(refusal(may_hold_slice(intel())), ""); }

TEST(Capabilities, EachLackIsNamed) {
  HostFacts amd = intel();
  amd.vmx = false;
  amd.svm = true;
  EXPECT_EQ(refusal(may_hold_slice(amd)),
            "this host has an AMD processor, and Xen has mem_access on Intel processors only "
            "(VT-x with EPT): place the domain's vCPUs on Intel hosts");
  HostFacts off = intel();
  off.vmx = false;
  EXPECT_NE(refusal(may_hold_slice(off)).find("firmware"), std::string::npos);
  HostFacts shadow = intel();
  shadow.hap = false;
  EXPECT_NE(refusal(may_hold_slice(shadow)).find("hap=0"), std::string::npos);
  HostFacts newer = intel();
  newer.version_minor = 99;
  newer.vm_event_version = kEventVersion + 1;
  EXPECT_NE(refusal(may_hold_slice(newer)).find("Xen 4.99"), std::string::npos);
}

TEST(Capabilities, DomainsToo) {
  DomainFacts domain;
  domain.id = 7;
  domain.hvm = domain.hap = true;
  EXPECT_TRUE(may_be_slice(domain).ok());
  domain.hap = false;
  EXPECT_NE(refusal(may_be_slice(domain)).find("domain 7"), std::string::npos);
  domain.hvm = false;
  EXPECT_NE(refusal(may_be_slice(domain)).find("type = \"pvh\""), std::string::npos);
  domain.hvm = domain.hap = domain.dying = true;
  EXPECT_EQ(may_be_slice(domain).error().code, ESHUTDOWN);
}

}  // namespace
}  // namespace xenspan::hypervisor::xen
