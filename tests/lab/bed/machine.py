"""One virtual machine under QEMU: started, spoken with over its second serial port, ended.

Machines are joined without touching this machine's network: QEMU 0 holds a hub, and each other QEMU is joined to it by a pair of
unix datagram sockets in the run's private folder.
"""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import LabError
from .image import Image
from .kinds import Kind


@dataclass(frozen=True)
class Shape:
    hosts: int
    cpus: int
    memory_mib: int
    accelerator: str
    mtu: int


class Machine:
    """Ends with the `with` block it was made for."""

    def __init__(self, number: int, image: Image, initramfs: Path, kind: Kind, shape: Shape, folder: Path) -> None:
        self.number = number
        self.console = folder / f"console-{number}.log"
        self.complaints = folder / f"qemu-{number}.log"
        self.output = folder / f"output-{number}.log"
        self.status: int | None = None
        self._pending = b""
        if shutil.which("qemu-system-x86_64") is None:
            raise LabError("qemu-system-x86_64 is missing: run tests/install-packages --lab")
        line = folder / f"line-{number}"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(line))
        self._listening.listen(1)
        # However the runner ends, its machines end with it.
        command = [
            "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", str(shape.memory_mib),
            "-smp", str(shape.cpus), "-name", f"lab{number}", "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=line,path={line}", "-serial", "chardev:line",
            *accelerator_options(shape.accelerator, kind), *network_options(number, shape.hosts, kind.nic, folder),
            *boot_options(number, image, initramfs, kind, shape),
        ]  # fmt: skip
        with open(self.complaints, "wb") as complaints:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=complaints, stderr=complaints, start_new_session=True
            )
        self._line = self._connected(time.monotonic() + 20)
        self._output = open(self.output, "wb")

    def _connected(self, deadline: float) -> socket.socket:
        self._listening.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                line, _ = self._listening.accept()
                line.setblocking(False)
                return line
            except TimeoutError:
                if self._process.poll() is not None:
                    break
        text = self.complaints.read_text(errors="replace").strip()
        self.end()
        raise LabError(f"QEMU {self.number} does not start: {text or 'no message'}")

    def fileno(self) -> int:
        return self._line.fileno()

    def say(self, word: str) -> None:
        self._line.sendall(word.encode() + b"\n")

    def read(self) -> list[str]:
        """Takes what has arrived: the command's output goes to its file; the words to the runner are returned."""
        try:
            got = self._line.recv(1 << 16)
        except BlockingIOError:
            return []
        if not got:
            raise LabError(f"machine {self.number} ended by itself: the end of its console:\n{self.console_end()}")
        self._pending += got
        *lines, self._pending = self._pending.split(b"\n")
        words = []
        for line in lines:
            if line.startswith(b"\1"):
                words.append(line[1:].decode(errors="replace").strip())
            else:
                self._output.write(line + b"\n")
        self._output.flush()
        return words

    def console_end(self, lines: int = 15) -> str:
        try:
            text = self.console.read_text(errors="replace")
        except FileNotFoundError:
            return "(nothing)"
        return "\n".join("  " + line.rstrip() for line in text.splitlines()[-lines:]) or "(nothing)"

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listening.close()


def accelerator_options(accelerator: str, kind: Kind) -> list[str]:
    if accelerator == "kvm":
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise LabError("--machine kvm: /dev/kvm cannot be opened; use --machine qemu, which emulates")
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
    arguments = f"panic=-1 mitigations=off lab.host={number} lab.hosts={shape.hosts} lab.mtu={shape.mtu}"
    if not kind.xen:
        words = f"console=ttyS0 quiet tsc=reliable random.trust_cpu=on {arguments}"
        return ["-kernel", str(image.kernel), "-initrd", str(initramfs), "-append", words]
    # Multiboot modules: a comma ends one, the words after its path are its command line.
    modules = f"{image.kernel} console=hvc0 quiet {arguments},{initramfs}"
    words = f"com1=115200,8n1 console=com1 dom0_mem={shape.memory_mib // 2}M dom0_max_vcpus={shape.cpus} guest_loglvl=all"
    return ["-kernel", str(image.xen), "-initrd", modules, "-append", words]
