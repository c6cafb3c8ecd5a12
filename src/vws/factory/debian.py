"""The packages of an appliance: mmdebstrap makes the system, from the sources of packages that this machine's apt has.

mmdebstrap's result depends on the packages' versions and on nothing of this machine, but for what packages' scripts
make up at random (keys); additions.py removes that. Downloaded packages are kept: its archive folder is the cache's,
mounted there for as long as it runs, in a mount namespace that ends with it.

Where a recipe builds on an image, there is a system already. Then apt, told of that system's packages, downloads what
is missing, and the appliance's own dpkg installs it, in the sandbox.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vws.core.errors import InvalidRequest
from vws.core.recipe import Debian
from vws.factory.log import Log
from vws.factory.sandbox import Sandbox, SandboxError
from vws.guest.debs import BuildError, run, sha256_of

SOURCES = (Path("/etc/apt/sources.list.d"), Path("/etc/apt/sources.list"))
HOOKS = Path(__file__).parent / "hooks"
# What programs are told for the time, so that what they write it into is the same each time.
DATE_S = 1_704_067_200
PASSED_ON = ("PATH", "http_proxy", "https_proxy", "no_proxy", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Package:
    """One that is in the appliance. sha256: of its .deb, "" if that is not at hand.

    source: NAME@VERSION of what it was built from, "" if both are its own.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    source: str = ""


def make_system(debian: Debian, packages: Sequence[str], tree: Path, debs: Path, log: Log) -> None:
    """A new system in the new folder `tree`. debs: where downloaded packages are kept."""
    sources = _sources(debian.suite or "")
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--skip=essential/unlink"]
    command += ["--skip=cleanup/apt/cache", f"--include={','.join(packages)}", "--dpkgopt=force-unsafe-io"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in debian.without]
    command += [f"--setup-hook={HOOKS / 'debs-in'}", f"--customize-hook={HOOKS / 'debs-out'}"]
    command += [debian.suite or "", str(tree), *map(str, sources)]
    # A mount that a failed build leaves behind must not be there when its folder is removed.
    apart = ["unshare", "--mount", "--propagation", "private", "--"]
    with _alone(debs):
        try:
            log.run([*apart, *command], env=_environment() | {"VWS_DEBS": str(debs)})
        except BuildError as error:
            raise _reason(log.last(), packages) or BuildError(f"the packages were not installed: {error}") from None


def add_packages(names: Sequence[str], box: Sandbox, debs: Path) -> None:
    """Install packages, with what they depend on, into the system of an image."""
    if not names:
        return
    options = ["-o", f"Dir::State::status={_status(box.tree)}", "-o", f"Dir::Cache::archives={debs}"]
    options += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", "APT::Install-Recommends=false"]
    with _alone(debs):
        try:
            (debs / "partial").mkdir(exist_ok=True)
            box.log.run(["apt-get", "-q", "-y", *options, "--download-only", "install", *names])
            files = _to_install(run(["apt-get", "-q", "-s", *options, "install", *names]), debs)
        except BuildError as error:
            raise _reason(f"{error}\n{box.log.last()}", names) or error from None
    if not files:
        return
    try:
        box.run(
            ["dpkg", "--force-unsafe-io", "--install", *(f"/mnt/{file.name}" for file in files)], reads={"/mnt": debs}
        )
    except SandboxError as error:
        raise _reason(box.log.last(), names) or BuildError(f"the packages were not installed: {error}") from None


def installed(tree: Path, debs: Path, known: Mapping[str, Package]) -> tuple[Package, ...]:
    """All packages of the system in `tree`. known: those of the image that it was made of."""
    if not _status(tree).exists():
        return ()
    fields = "${db:Status-Abbrev} ${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n"
    printed = run(["dpkg-query", f"--admindir={_status(tree).parent}", "-W", "-f", fields])
    rows = sorted(line.split()[1:] for line in printed.splitlines() if line.startswith("ii"))
    return tuple(_package(row, debs, known) for row in rows)


def _package(row: Sequence[str], debs: Path, known: Mapping[str, Package]) -> Package:
    name, version, architecture, source, source_version = row
    before = known.get(name)
    if before is not None and (before.version, before.architecture) == (version, architecture):
        return before
    file = debs / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    sha256 = sha256_of(file) if file.exists() else ""
    return Package(name, version, architecture, sha256, built_from(name, version, source, source_version))


def built_from(name: str, version: str, source: str, source_version: str) -> str:
    return "" if (name, version) == (source, source_version) else f"{source}@{source_version}"


def _to_install(simulated: str, debs: Path) -> list[Path]:
    """The archives of what apt would install: lines such as Inst curl (7.88 Debian:12 [amd64])"""
    found = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) .*\[(\w+)\]\)", simulated, re.MULTILINE)
    return [debs / f"{name}_{version.replace(':', '%3a')}_{arch}.deb" for name, version, arch in found]


def _status(tree: Path) -> Path:
    """The list of packages; refused if links of a stranger's image lead out of it."""
    path = tree / "var/lib/dpkg/status"
    if not path.resolve().is_relative_to(tree.resolve()):
        raise BuildError("the image's list of packages (/var/lib/dpkg/status) is a link that leads out of it")
    return path


def _sources(suite: str) -> list[Path]:
    """This machine's sources of packages. Raises InvalidRequest if none of them has the suite."""
    files = [path for top in SOURCES for path in (sorted(top.iterdir()) if top.is_dir() else [top])]
    files = [path for path in files if path.suffix in (".sources", ".list") and path.exists()]
    with_suite = [path for path in files if suite in _suites(path.read_text())]
    if not with_suite:
        known = sorted({each for path in files for each in _suites(path.read_text())})
        raise InvalidRequest(
            f"debian.suite: this machine's apt has no sources of {suite}",
            field="debian.suite",
            asked=suite,
            possible=f"{', '.join(known) or 'none'}; or add some to /etc/apt/sources.list.d",
        )
    return with_suite


def _suites(text: str) -> set[str]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    found = {word for line in lines if line.startswith("Suites:") for word in line.split()[1:]}
    for line in lines:
        words = re.sub(r"\[[^]]*\]", "", line).split()
        if words[:1] == ["deb"] and len(words) > 2:
            found.add(words[2])
    return found


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(DATE_S)}


@contextmanager
def _alone(debs: Path) -> Iterator[None]:
    """apt's archives are for one at a time; another build waits here."""
    debs.mkdir(parents=True, exist_ok=True)
    with (debs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reason(said: str, packages: Sequence[str]) -> Exception | None:
    """What apt or dpkg says went wrong, with the package's name."""
    unknown = re.search(r"E: Unable to locate package (\S+)|E: Package '(\S+)' has no installation candidate", said)
    if unknown:
        name = unknown[1] or unknown[2]
        return _not_there(name, f"apt knows no package {name}", packages)
    version = re.search(r"E: Version '(\S+)' for '(\S+)' was not found", said)
    if version:
        return _not_there(version[2], f"apt knows no version {version[1]} of {version[2]}", packages)
    unmet = re.search(r"unmet dependencies:\s*\n\s*(.+)", said)
    if unmet:
        return BuildError(f"the packages do not go together: {' '.join(unmet[1].split())}")
    broken = re.search(r"dpkg: error processing (?:package|archive) (\S+)", said)
    if broken:
        return BuildError(f"the package {broken[1]} could not be installed")
    fetched = re.search(r"E: Failed to fetch \S*/(\S+)", said)
    if fetched:
        return BuildError(
            f"{fetched[1]} could not be downloaded. Next: apt-get update, then build again; what was downloaded is kept"
        )
    return None


def _not_there(name: str, problem: str, packages: Sequence[str]) -> InvalidRequest:
    return InvalidRequest(
        f"debian.packages: {problem}",
        field="debian.packages",
        asked=name,
        possible="a package of this machine's sources (apt-cache search finds them), after apt-get update",
    )
