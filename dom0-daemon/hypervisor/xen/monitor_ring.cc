#include "dom0-daemon/hypervisor/xen/monitor_ring.h"

#include <utility>

#include "base/log.h"

namespace xenspan::hypervisor::xen {

Result<std::unique_ptr<MonitorRing>> MonitorRing::open(XenCalls& xen, DomainId domain) {
  auto page = xen.enable_monitor(domain);
  if (!page) return page.error();
  auto channel = EventChannel::bind(domain, page->port);
  if (!channel) {
    const Error why = channel.error();
    if (Status closed = xen.disable_monitor(domain, *page); !closed)
      log::warning("{}", closed.error().message);
    return why;
  }
  return std::unique_ptr<MonitorRing>(new MonitorRing(xen, domain, *page, std::move(*channel)));
}

MonitorRing::MonitorRing(XenCalls& xen, DomainId domain, XenCalls::MonitorPage page,
                         EventChannel channel)
    : xen_(xen), domain_(domain), page_(page), channel_(std::move(channel)), ring_(page.page) {}

MonitorRing::~MonitorRing() {
  if (Status closed = xen_.disable_monitor(domain_, page_); !closed)
    log::warning("{}", closed.error().message);
}

}  // namespace xenspan::hypervisor::xen
