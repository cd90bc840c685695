"""What a machine of each kind is made of. Adding a kind is adding an entry here and its setup scripts in guest/."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    summary: str
    packages: tuple[str, ...]  # beside the kernel
    modules: tuple[str, ...]  # in the order wanted; what they need is found
    setup: tuple[str, ...] = ()  # scripts in guest/, run before the command
    memory_mib: int = 512
    nic: str = "virtio-net-pci"
    xen: bool = False  # Xen boots and Linux is its Dom0


# The C library and what C++ programs need: programs under test bring the libraries they were built with.
BASE = ("busybox-static", "libc6", "libgcc-s1", "libstdc++6", "zlib1g")

RDMA = (
    ("ibverbs-providers", "ibverbs-utils", "iproute2", "libbpf1", "libbsd0", "libcap2", "libelf1", "libibumad3")
    + ("libibverbs1", "libmd0", "libmnl0", "libnl-3-200", "libnl-route-3-200", "libpci3", "librdmacm1", "libudev1")
    + ("libxtables12", "libdb5.3", "libselinux1", "libtirpc3", "libgssapi-krb5-2", "libkrb5-3", "libk5crypto3")
    + ("libcom-err2", "libkrb5support0", "libkeyutils1", "libssl3", "libpcre2-8-0", "perftest")
)
# rxe checks its packets with crc32, which it asks the kernel for by name when a link is added.
RXE = ("crc32_generic", "ib_uverbs", "rdma_ucm", "rdma_rxe")
XEN = (
    ("libfdt1", "liblzma5", "libncurses6", "libtinfo6", "libuuid1", "libxencall1", "libxendevicemodel1", "libxenevtchn1")
    + ("libxenforeignmemory1", "libxengnttab1", "libxenhypfs1", "libxenmisc4.17", "libxenstore4", "libxentoolcore1")
    + ("libxentoollog1", "libyajl2", "libzstd1", "xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xenstore-utils")
)
DOM0 = ("xen_evtchn", "xen_privcmd", "xen_gntdev", "xen_gntalloc", "xenfs", "e1000")

KINDS = {
    "plain": Kind(
        summary="Linux and a network",
        packages=BASE,
        modules=("virtio_pci", "virtio_net"),
    ),
    "rdma": Kind(
        summary="Linux with a software RDMA device (rxe0) on the network, ibverbs-utils and perftest",
        packages=BASE + RDMA,
        modules=("virtio_pci", "virtio_net", *RXE),
        setup=("setup-rdma",),
    ),
    "xen": Kind(
        summary="Xen 4.17; the command runs in its Dom0, with xenstored and xenconsoled running and xl at hand",
        packages=BASE + XEN,
        modules=DOM0,
        setup=("setup-xen",),
        memory_mib=2048,
        # Dom0 is not contiguous in the machine's memory: a device has to be driven by the kernel's DMA interface, which virtio is not.
        nic="e1000",
        xen=True,
    ),
    "xen-rdma": Kind(
        summary="Xen, and a software RDMA device (rxe0) on Dom0's network",
        packages=BASE + XEN + RDMA,
        modules=(*DOM0, "dummy", *RXE),
        setup=("setup-xen", "setup-rdma"),
        memory_mib=2048,
        nic="e1000",
        xen=True,
    ),
}
