"""Debian packages as folders: downloaded with apt-get, unpacked with dpkg, never installed.

Everything lands in a cache and is named by the hash that apt's signed lists give it, so a package is fetched and unpacked
once and a new version is simply another folder.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import LabError

# apt drops its rights to _apt, which cannot write into a user's cache.
APT = ["-o", "APT::Sandbox::User=root"]


@dataclass(frozen=True)
class Package:
    file: str  # name_version_architecture.deb
    digest: str

    @property
    def name(self) -> str:
        return self.file.split("_")[0]


def output_of(command: list[str]) -> str:
    """What a command prints; LabError with the end of what it complained about."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is missing: run tests/install-packages --lab") from None
    if done.returncode != 0:
        complaint = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise LabError(f"{' '.join(command[:3])} failed: {complaint[0]}")
    return done.stdout


def kernel_package() -> str:
    """The package that Debian's linux-image-amd64 stands for today."""
    for line in output_of(["apt-cache", "depends", "linux-image-amd64"]).splitlines():
        found = re.fullmatch(r"\s*Depends: (linux-image-\S+-amd64)", line)
        if found:
            return found.group(1)
    raise LabError("apt knows no kernel: run apt-get update")


def resolve(names: list[str]) -> list[Package]:
    """Which files these packages are, without fetching anything."""
    pattern = re.compile(r"'[^']*' (\S+) \d+ (?:SHA\d+|MD5Sum):([0-9a-f]+)")
    try:
        lines = output_of(["apt-get", *APT, "--print-uris", "download", *names]).splitlines()
    except LabError as error:
        raise LabError(f"{error}. Perhaps apt's lists are old or missing: run apt-get update") from None
    found = [Package(m.group(1), m.group(2)) for m in map(pattern.fullmatch, lines) if m]
    missing = set(names) - {package.name for package in found}
    if missing:
        raise LabError(f"apt names no file for {', '.join(sorted(missing))}: run apt-get update")
    return sorted(found, key=lambda package: package.file)


def unpack(packages: list[Package], cache: Path) -> list[Path]:
    """One folder a package, in the order given."""
    root = cache / "packages"
    root.mkdir(parents=True, exist_ok=True)
    folders = [root / f"{package.name}-{package.digest[:24]}" for package in packages]
    wanted = [package for package, folder in zip(packages, folders) if not folder.exists()]
    if not wanted:
        return folders
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        download(wanted, Path(scratch))
        for package, folder in zip(packages, folders):
            if package not in wanted:
                continue
            tree = Path(scratch) / "tree"
            output_of(["dpkg", "-x", str(Path(scratch) / package.file), str(tree)])
            os.rename(tree, folder)
    return folders


def download(packages: list[Package], into: Path) -> None:
    names = [package.name for package in packages]
    if shutil.which("apt-get") is None:
        raise LabError("apt-get is missing: the lab builds its machines from Debian's packages")
    done = subprocess.run(["apt-get", *APT, "-q", "download", *names], cwd=into, capture_output=True, text=True)
    absent = [package.file for package in packages if not (into / package.file).exists()]
    if done.returncode != 0 or absent:
        complaint = done.stderr.strip().splitlines()[-1:] or [f"{' '.join(absent)} did not arrive"]
        raise LabError(f"packages cannot be downloaded: {complaint[0]}")
