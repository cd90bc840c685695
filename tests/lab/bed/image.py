"""Kernel and initramfs of a kind of machine, built once for each set of packages, and the small archive of one run's own files.

The kernel takes several archives one after the other, so a run only writes its own and puts it behind the kind's.
"""

import fnmatch
import gzip
import hashlib
import lzma
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from . import LabError, modules
from .cpio import Archive
from .elf import is_elf, libraries_of, merged, needed
from .kinds import Kind
from .packages import Package, kernel_package, resolve, unpack

GUEST = Path(__file__).resolve().parent.parent / "guest"

# What no test looks at, and what is large.
LEAVE_OUT = (
    "usr/share/*", "usr/lib/x86_64-linux-gnu/gconv/*", "usr/lib/x86_64-linux-gnu/perl*", "usr/lib/debug/*", "etc/init.d/*",
    "usr/lib/locale/*", "usr/lib/x86_64-linux-gnu/tc/*", "usr/lib/systemd/*", "usr/lib/udev/*", "boot/*", "var/*", "usr/include/*", "*.a", "*/fsimage.so",
)  # fmt: skip
MERGED_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


@dataclass(frozen=True)
class Image:
    kernel: Path
    initramfs: Path
    xen: Path | None


KEPT_DAYS = 3  # an image that no run has used for so long is removed when another is built


def build(name: str, kind: Kind, cache: Path, say) -> Image:
    """The kind's image, from the cache when none of its packages and none of our files for it has changed."""
    kernel_name = kernel_package()
    packages = resolve([kernel_name, *kind.packages])
    key = key_of(kind, packages)
    folder = cache / "images" / f"{name}-{key}"
    if not (folder / "done").exists():
        remove_old(cache / "images")
        say(f"building the image ({len(packages)} packages; cache: {cache})")
        folders = dict(zip([package.name for package in packages], unpack(packages, cache)))
        kernel_folder = folders.pop(kernel_name)
        folder.mkdir(parents=True, exist_ok=True)
        archive = contents_of(kind, kernel_folder, list(folders.values()))
        check_libraries(archive)
        with open(folder / "initramfs", "wb") as to:
            archive.write(to)
        if kind.xen:
            (folder / "xen").write_bytes(hypervisor(folders.values()))
        (folder / "kernel").write_bytes(next((kernel_folder / "boot").glob("vmlinuz-*")).read_bytes())
        (folder / "done").touch()
    os.utime(folder / "done")
    return Image(folder / "kernel", folder / "initramfs", folder / "xen" if kind.xen else None)


def hypervisor(folders) -> bytes:
    """Xen as an ELF file: QEMU's multiboot loader does not unpack."""
    for folder in folders:
        for path in sorted(folder.glob("boot/xen-4.17*.gz")):
            return gzip.decompress(path.read_bytes())
    raise LabError("the package of the hypervisor holds no /boot/xen-4.17*.gz")


def plain_kernel(image: Image) -> Path:
    """The kernel without its wrapping: where a machine is slow, unpacking it takes longer than reading it."""
    plain = image.kernel.with_name("vmlinux")
    if not plain.exists():
        wrapped = image.kernel.read_bytes()
        # Documentation/x86/boot.rst: sectors of set-up code, then the payload's offset and length.
        start = (wrapped[0x1F1] + 1) * 512 + int.from_bytes(wrapped[0x248:0x24C], "little")
        payload = wrapped[start : start + int.from_bytes(wrapped[0x24C:0x250], "little")]
        if not payload.startswith(b"\xfd7zXZ"):
            raise LabError(f"{image.kernel} is not packed with xz: bed/image.py has to learn how it is")
        scratch = plain.with_suffix(".new")
        scratch.write_bytes(lzma.LZMADecompressor().decompress(payload))  # what follows is the kernel's length
        scratch.rename(plain)
    return plain


def remove_old(images: Path) -> None:
    for folder in images.iterdir() if images.exists() else []:
        used = folder / "done"
        if used.exists() and used.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
            shutil.rmtree(folder)


def key_of(kind: Kind, packages: list[Package]) -> str:
    parts = [repr(kind), *(f"{package.file} {package.digest}" for package in packages)]
    ours = [GUEST / "init", *(GUEST / name for name in kind.setup), *Path(__file__).parent.glob("*.py")]
    parts += [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(ours)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def contents_of(kind: Kind, kernel: Path, folders: list[Path]) -> Archive:
    archive = Archive()
    for link, target in MERGED_LINKS.items():
        archive.add_link(link, target)
    for folder in ("proc", "sys", "dev", "run", "tmp", "root", "lab", "usr/lib64"):
        archive.add_folder(folder)
    archive.add_device("dev/console", 5, 1)
    archive.add_link("usr/bin/sh", "busybox")
    archive.add_link("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    for folder in folders:
        add_tree(archive, folder)
    names = []
    for number, module in enumerate(modules.in_order(kernel, kind.modules)):
        names.append(f"{number:03}-{module.name}")
        archive.add_file(f"modules/{names[-1]}", module)
    archive.add_bytes("modules/order", "".join(name + "\n" for name in names).encode())
    archive.add_bytes("init", (GUEST / "init").read_bytes(), 0o755)
    if kind.setup:
        archive.add_bytes("setup", b"".join((GUEST / name).read_bytes() for name in kind.setup), 0o755)
    return archive


def add_tree(archive: Archive, tree: Path) -> None:
    for root, folders, files in os.walk(tree):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted(files + links):
            source = Path(root) / name
            path = merged(str(source.relative_to(tree)))
            if any(fnmatch.fnmatch(path, pattern) for pattern in LEAVE_OUT) or path in MERGED_LINKS:
                continue
            if path == "usr/lib64/ld-linux-x86-64.so.2":
                continue
            if source.is_symlink():
                archive.add_link(path, os.readlink(source))
            else:
                archive.add_file(path, source)


def check_libraries(archive: Archive) -> None:
    """A kind whose list lacks a package is found here and not by a program that does not start."""
    there = {os.path.basename(path) for path in archive.paths()}
    binaries = [source for path, source in archive.sources() if not path.startswith("modules/") and is_elf(source)]
    absent = {name: source for name, source in needed(binaries).items() if name not in there}
    if absent:
        text = ", ".join(f"{name} (for {source.name})" for name, source in sorted(absent.items()))
        raise LabError(f"the list of packages in kinds.py is not complete, these libraries are missing: {text}")


def files_archive(files: list[tuple[Path, str]], command: str) -> Archive:
    """What one run adds: programs with their libraries, other files, and the command."""
    archive = Archive()
    archive.add_bytes("lab/.command", command.encode(), 0o755)
    for source, name in files:
        if not source.is_file():
            raise LabError(f"--file {source}: there is no such file")
        path = name.lstrip("/") if name.startswith("/") else f"lab/{name}"
        archive.add_file(path, source)
        for library, real in libraries_of(source).items():
            archive.add_file(library, real)
    return archive
