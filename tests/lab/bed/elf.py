"""Which shared libraries a program needs."""

import re
from pathlib import Path

from . import LabError
from .packages import output_of


def is_elf(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def needed(paths: list[Path]) -> dict[str, Path]:
    """The names in the files' dynamic sections, each with the first file that needs it."""
    found: dict[str, Path] = {}
    current = paths[0] if paths else None
    for start in range(0, len(paths), 200):
        chunk = paths[start : start + 200]
        current = chunk[0]
        for line in output_of(["readelf", "-Wd", *map(str, chunk)]).splitlines():
            if line.startswith("File: "):
                current = Path(line[len("File: ") :])
            elif match := re.search(r"\(NEEDED\).*\[(.+)\]", line):
                found.setdefault(match.group(1), current)
    return found


def libraries_of(program: Path) -> dict[str, Path]:
    """The shared libraries that this machine's loader finds for a program: path in a machine -> file here."""
    text = output_of(["ldd", str(program)]) if is_dynamic(program) else ""
    found: dict[str, Path] = {}
    for line in text.splitlines():
        if "not found" in line:
            raise LabError(f"{program} needs a library that is not there: {line.strip()}")
        if match := re.search(r"(?:=> )?(/\S+) \(0x", line):
            path = Path(match.group(1))
            found[merged(str(path).lstrip("/"))] = path.resolve()
    return found


def is_dynamic(program: Path) -> bool:
    return is_elf(program) and "(NEEDED)" in output_of(["readelf", "-Wd", str(program)])


def merged(path: str) -> str:
    """Debian's packages still name /lib and /bin; in a machine these are links into /usr."""
    first, _, rest = path.partition("/")
    return f"usr/{first}/{rest}" if first in ("bin", "sbin", "lib", "lib64") and rest else path
