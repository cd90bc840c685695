"""Kernel modules and what they need first, read from the modules themselves: a package is not unpacked with depmod run."""

import re
from pathlib import Path

from . import LabError


def in_order(tree: Path, wanted: tuple[str, ...]) -> list[Path]:
    """The files of the wanted modules and of all they depend on, each after what it needs. A wanted module that is built into the
    kernel has no file and is left out."""
    folder = next(iter(sorted((tree / "lib/modules").iterdir())), None)
    if folder is None:
        raise LabError(f"{tree} holds no kernel modules")
    files = {name_of(path): path for path in folder.rglob("*.ko")}
    builtin = {name_of(Path(line)) for line in (folder / "modules.builtin").read_text().split()}
    order: list[Path] = []
    for name in wanted:
        add(name.replace("-", "_"), files, builtin, order)
    return order


def name_of(path: Path) -> str:
    return path.name.removesuffix(".ko").replace("-", "_")


def add(name: str, files: dict[str, Path], builtin: set[str], order: list[Path]) -> None:
    if name in builtin:
        return
    if name not in files:
        raise LabError(f"Debian's kernel has no module {name}")
    path = files[name]
    if path in order:
        return
    found = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
    for other in found.group(1).decode().split(",") if found else []:
        if other:
            add(other.replace("-", "_"), files, builtin, order)
    order.append(path)
