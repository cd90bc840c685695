"""Programs as they travel into a machine."""

import shutil
import subprocess
from pathlib import Path


def lean(path: Path, folder: Path) -> Path:
    """A copy in `folder` without what a debugger wants: a machine's files are in its memory, and that is small. Scripts, and the
    test guests' own formats, stay as they are."""
    if path.parent.name == "guest" or path.suffix == ".elf":
        return path
    copy = folder / path.name
    if shutil.which("strip") is None or subprocess.run(["strip", "-o", copy, path]).returncode != 0:
        return path
    return copy
