"""One virtual machine, whatever emulates it: the line to it, what it says, its end. qemu.py and bochs.py start one."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import LabError


@dataclass(frozen=True)
class Shape:
    hosts: int
    cpus: int
    memory_mib: int
    accelerator: str
    mtu: int


class Machine:
    """The base of both. A subclass starts the process and calls `began` with the line's descriptor, which does not block."""

    def __init__(self, number: int, folder: Path, program: str) -> None:
        self.number = number
        self.console = folder / f"console-{number}.log"
        self.complaints = folder / f"{program}-{number}.log"
        self.output = folder / f"output-{number}.log"
        self.status: int | None = None
        self._pending = b""
        self._line = -1

    def began(self, process: subprocess.Popen, line: int) -> None:
        self._process = process
        self._line = line
        self._output = open(self.output, "wb")

    def fileno(self) -> int:
        return self._line

    def say(self, word: str) -> None:
        os.write(self._line, word.encode() + b"\n")

    def read(self) -> list[str]:
        """Takes what has arrived: the command's output goes to its file; the words to the runner are returned, and cases that ended."""
        try:
            got = os.read(self._line, 1 << 16)
        except BlockingIOError:
            return []
        except OSError:  # a terminal whose other end is gone
            got = b""
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
                if line.startswith(b"result "):
                    words.append(line.decode(errors="replace"))
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


# However the runner ends, its machines end with it.
def started(command: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], start_new_session=True, **options)


def linux_words(number: int, shape: Shape) -> str:
    """What guest/init wants to know, on the kernel's command line."""
    return f"panic=-1 mitigations=off lab.host={number} lab.hosts={shape.hosts} lab.mtu={shape.mtu}"
