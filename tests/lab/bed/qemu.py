"""A virtual machine under QEMU. The line to it is its second serial port.

Machines are joined without touching this machine's network: QEMU 0 holds a hub, and each other QEMU is joined to it by a pair of
unix datagram sockets in the run's private folder.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import LabError
from .image import Image
from .kinds import Kind
from .machine import Machine, Shape, linux_words, started


class QemuMachine(Machine):
    def __init__(self, number: int, image: Image, initramfs: Path, kind: Kind, shape: Shape, folder: Path) -> None:
        super().__init__(number, folder, "qemu")
        if shutil.which("qemu-system-x86_64") is None:
            raise LabError("qemu-system-x86_64 is missing: run tests/install-packages --lab")
        line = folder / f"line-{number}"
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", str(shape.memory_mib),
            "-smp", str(shape.cpus), "-name", f"lab{number}", "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=line,path={line}", "-serial", "chardev:line",
            *accelerator_options(shape.accelerator, kind), *network_options(number, shape.hosts, kind.nic, folder),
            *boot_options(number, image, initramfs, kind, shape),
        ]  # fmt: skip
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(line))
            listening.listen(1)
            with open(self.complaints, "wb") as complaints:
                process = started(command, stdin=subprocess.DEVNULL, stdout=complaints, stderr=complaints)
            self._socket = self._connected(process, listening)
        self.began(process, self._socket.fileno())

    def _connected(self, process: subprocess.Popen, listening: socket.socket) -> socket.socket:
        listening.settimeout(0.2)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            try:
                line, _ = listening.accept()
                line.setblocking(False)
                return line
            except TimeoutError:
                pass
        process.kill()
        process.wait()
        text = self.complaints.read_text(errors="replace").strip()
        raise LabError(f"QEMU {self.number} does not start: {text or 'no message'}")


def need_kvm(device: str = "/dev/kvm") -> None:
    """Before anything is built: a machine without it, or a user who may not."""
    if not os.path.exists(device):
        raise LabError(
            f"--machine kvm: {device} is missing: modprobe kvm_intel or kvm_amd; VT-x or AMD-V has to be on in the firmware or, in a "
            "virtual machine, nested virtualisation on its host; --machine qemu emulates instead"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise LabError(f"--machine kvm: this user may not open {device}: join its group (adduser USER kvm); --machine qemu emulates instead")


def accelerator_options(accelerator: str, kind: Kind) -> list[str]:
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # With SMAP, SMEP or XSAVE an emulated Xen 4.17 does not get its Dom0 up.
    return ["-accel", "tcg,thread=multi", "-cpu", "max,-smap,-smep,-xsave" if kind.xen else "max"]


def network_options(number: int, hosts: int, nic: str, folder: Path) -> list[str]:
    device = ["-device", f"{nic},netdev=nic,mac=52:54:00:77:00:{number + 1:02x}"]
    if hosts == 1:
        return ["-netdev", "hubport,id=nic,hubid=0", *device]

    def link(own: str, other: str) -> str:
        return f"local.type=unix,local.path={folder}/{own},remote.type=unix,remote.path={folder}/{other}"

    if number > 0:
        return ["-netdev", f"dgram,id=nic,{link(f'spoke-{number}', f'hub-{number}')}", *device]
    options = ["-netdev", "hubport,id=nic,hubid=0", *device]
    for other in range(1, hosts):
        options += ["-netdev", f"dgram,id=link{other},{link(f'hub-{other}', f'spoke-{other}')}"]
        options += ["-netdev", f"hubport,id=port{other},hubid=0,netdev=link{other}"]
    return options


def boot_options(number: int, image: Image, initramfs: Path, kind: Kind, shape: Shape) -> list[str]:
    arguments = linux_words(number, shape)
    if not kind.xen:
        words = f"console=ttyS0 quiet tsc=reliable random.trust_cpu=on {arguments}"
        return ["-kernel", str(image.kernel), "-initrd", str(initramfs), "-append", words]
    # Multiboot modules: a comma ends one, the words after its path are its command line.
    modules = f"{image.kernel} console=hvc0 quiet {arguments},{initramfs}"
    words = f"com1=115200,8n1 console=com1 dom0_mem={shape.memory_mib // 2}M dom0_max_vcpus={shape.cpus} guest_loglvl=all conring_size=256k"
    return ["-kernel", str(image.xen), "-initrd", modules, "-append", words]
