"""An archive in the kernel's initramfs format (cpio "newc"), written without root and the same bytes every time."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

LINK_MODE, FOLDER_MODE, DEVICE_MODE = stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFCHR | 0o600


class Archive:
    """Paths are relative, without a leading slash. A path added later wins. All belongs to root."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, bytes | Path, tuple[int, int]]] = {}

    def paths(self) -> list[str]:
        return list(self._files)

    def add_bytes(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, content)

    def add_file(self, path: str, source: Path) -> None:
        executable = os.access(source, os.X_OK)
        self._add(path, stat.S_IFREG | (0o755 if executable else 0o644), source)

    def add_link(self, path: str, target: str) -> None:
        self._add(path, LINK_MODE, target.encode())

    def add_folder(self, path: str) -> None:
        if path not in self._files:
            self._add(path, FOLDER_MODE, b"")

    def add_device(self, path: str, major: int, minor: int) -> None:
        self._add(path, DEVICE_MODE, b"", (major, minor))

    def _add(self, path: str, mode: int, content: bytes | Path, device: tuple[int, int] = (0, 0)) -> None:
        parent = os.path.dirname(path)
        if parent:
            self.add_folder(parent)
        self._files[path] = (mode, content, device)

    def sources(self) -> list[tuple[str, Path]]:
        """The entries whose contents are files of this machine."""
        return [(path, content) for path, (_, content, _) in self._files.items() if isinstance(content, Path)]

    def write(self, to: BinaryIO) -> None:
        # Folders sort before what they hold.
        for inode, (path, (mode, content, device)) in enumerate(sorted(self._files.items()), 1):
            write_entry(to, path, inode, mode, content.read_bytes() if isinstance(content, Path) else content, device)
        write_entry(to, "TRAILER!!!", 0, 0, b"", (0, 0))
        to.write(b"\0" * (-to.tell() % 512))


def write_entry(to: BinaryIO, path: str, inode: int, mode: int, content: bytes, device: tuple[int, int]) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = [inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    to.write(header + b"\0" * (-len(header) % 4))
    to.write(content + b"\0" * (-len(content) % 4))
