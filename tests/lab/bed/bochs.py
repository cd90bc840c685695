"""A virtual machine under Bochs: the only way to Intel's VMX with EPT, and so to Xen's mem_access, without such a processor.

It boots a CD with GRUB, Xen, Dom0's kernel and the initramfs. The line to it is a terminal of ours that is its second serial port.
One processor: with two, Xen 4.17 does not come up. Its clock counts instructions. A machine alone skips what it would wait, and a
second inside is 100 million instructions. Of several, none may run ahead while the others compute, or its connections time out: they
wait in real time, and a second inside is 50 million instructions, not far from what is emulated in a second.
"""

import os
import re
import shutil
import subprocess
import threading
import tty
from pathlib import Path

from . import LabError
from .hub import Hub
from .image import Image, plain_kernel
from .kinds import Kind
from .machine import Machine, Shape, linux_words, started
from .packages import output_of

DOM0_MIB = 320
USUAL_MIB = 1024  # with more, memory is for large domains: what lay in it at the boot (GRUB, the initramfs) would count as theirs
BIOS, VGA_BIOS = Path("/usr/share/bochs/BIOS-bochs-latest"), Path("/usr/share/bochs/VGABIOS-lgpl-latest")

CONFIGURATION = """\
plugin_ctrl: serial=1, speaker=0, gameport=0, parallel=0
config_interface: textconfig
display_library: term
cpu: model=corei7_haswell_4770, count=1, ips={speed}, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
romimage: file={bios}
vgaromimage: file={vga_bios}
vga: extension=vbe
ata0: enabled=1
ata0-master: type=cdrom, path={disc}, status=inserted
boot: cdrom
clock: sync={clock}
com1: enabled=1, mode=file, dev={console}
com2: enabled=1, mode=term, dev={line}
{network}log: {folder}/bochs-{number}.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""
# Its text display knows no graphics mode. Multiboot 2 would switch to one.
MENU = """\
set timeout=0
set gfxpayload=text
menuentry xen {{
  multiboot /boot/xen com1=115200,8n1 console=com1 dom0_mem={dom0}M,max:{dom0}M dom0_max_vcpus=1 guest_loglvl=all conring_size=256k apicv=0 bootscrub={scrub}
  module /boot/vmlinux console=hvc0 quiet {words}
  module /boot/initramfs
}}
"""
# Not done in Dom0, because it takes long here: calibration, self-tests of ciphers, certificates, looking through all page tables.
DOM0_WORDS = "evm=off tsc=reliable lpj=400000 cryptomgr.notests=1 rodata=off initcall_blacklist=load_system_certificate_list"


class BochsMachine(Machine):
    def __init__(self, number: int, image: Image, initramfs: Path, kind: Kind, shape: Shape, folder: Path, hub: Hub | None) -> None:
        super().__init__(number, folder, "bochs-screen")
        for program in ("bochs", "grub-mkrescue", "xorriso"):
            if shutil.which(program) is None:
                raise LabError(f"{program} is missing: run tests/install-packages --lab")
        if not kind.xen:
            raise LabError("--machine bochs boots Xen only: add --kind xen, or use --machine qemu")
        disc = make_disc(folder / f"disc-{number}.iso", image, initramfs, shape.memory_mib > USUAL_MIB, linux_words(number, shape))
        line, other_end = os.openpty()
        tty.setraw(line)
        os.set_blocking(line, False)
        configuration, orders = folder / f"bochsrc-{number}", folder / f"orders-{number}"
        configuration.write_text(
            CONFIGURATION.format(
                memory=shape.memory_mib, bios=BIOS, vga_bios=VGA_BIOS, disc=disc, console=self.console, folder=folder,
                number=number, clock="none" if hub is None else "slowdown", speed=100000000 if hub is None else 50000000, line=os.ttyname(other_end), network=network_lines(number, hub),
            )  # fmt: skip
        )
        orders.write_text("c\n")  # it has a debugger, which waits for an order to go on
        process = started(
            ["bochs", "-q", "-f", str(configuration), "-rc", str(orders)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        self.began(process, line)
        threading.Thread(target=self._drain, args=(process, other_end), daemon=True).start()

    def _drain(self, process: subprocess.Popen, other_end: int) -> None:
        """Bochs draws its screen on a terminal that it opens and names, and stops when nobody reads it."""
        with open(self.complaints, "wb") as complaints:
            for text in process.stdout:
                complaints.write(text)
                complaints.flush()
                if found := re.search(rb'connected to screen "(/dev/pts/\d+)"', text):
                    screen = os.open(found.group(1), os.O_RDONLY | os.O_NOCTTY)
                    threading.Thread(target=drain_screen, args=(screen,), daemon=True).start()
        os.close(other_end)  # Bochs has ended: whoever reads the line sees its end


def drain_screen(screen: int) -> None:
    try:
        while os.read(screen, 1 << 16):
            pass
    except OSError:
        pass
    os.close(screen)


def network_lines(number: int, hub: Hub | None) -> str:
    if hub is None:
        return ""
    return (
        "pci: enabled=1, chipset=i440fx, slot1=e1000\n"
        f"e1000: enabled=1, mac=52:54:00:77:00:{number + 1:02x}, ethmod=vde, ethdev={hub.control.name}\n"  # 15 characters at most
    )


def make_disc(disc: Path, image: Image, initramfs: Path, scrub: bool, words: str) -> Path:
    menu = disc.with_suffix(".cfg")
    menu.write_text(MENU.format(dom0=DOM0_MIB, scrub=int(scrub), words=f"{DOM0_WORDS} {words}"))
    files = {"xen": image.xen, "vmlinux": plain_kernel(image), "initramfs": initramfs, "grub/grub.cfg": menu}
    output_of(
        ["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "--locales=", "--fonts=", "--themes=",
         "--install-modules=multiboot iso9660 biosdisk normal", "-o", str(disc)]
        + [f"boot/{name}={source}" for name, source in files.items()]
    )  # fmt: skip
    return disc
