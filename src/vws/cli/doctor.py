"""`vws doctor`: what this machine can do, and what to install; a fix beside each finding.

Most failures of a first try are a missing program or permission, and show up late and as something else. Each check
here looks at one thing that a site needs, changes nothing, and says what was found in the user's words. `fail` means
that no real node can run here; `warn` that one can, with less (slower, unbounded, or not yet).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from vws.cli.output import print_json
from vws.cli.session import Session, json_option

Verdict = Literal["ok", "warn", "fail"]

# program -> the Debian package that brings it, and what VWS does with it
PROGRAMS = {
    "qemu-system-x86_64": ("qemu-system-x86", "runs the virtual machines"),
    "qemu-img": ("qemu-utils", "makes and checks disks"),
    "qemu-storage-daemon": ("qemu-system-common", "shows disks that are saved to the programs that clean them"),
    "libvirtd": ("libvirt-daemon", "manages the virtual machines"),
    "dnsmasq": ("dnsmasq-base", "gives them addresses and names"),
    "nft": ("nftables", "connects them to the outside"),
    "ip": ("iproute2", "makes their network"),
    "nsenter": ("util-linux", "enters the node's namespaces"),
    "unshare": ("util-linux", "makes the node's namespaces"),
    "prlimit": ("util-linux", "bounds programs that read what users bring"),
    "partx": ("util-linux", "finds the partitions of disks that are saved"),
    "mkswap": ("util-linux", "formats disks to swap on"),
    "mount": ("mount", "gives the node's libvirtd its own folders"),
    "debugfs": ("e2fsprogs", "makes disks of root file systems that users bring"),
    "openssl": ("openssl", "verifies image lists of others"),
    "ssh": ("openssh-client", "vws ssh"),
    "ssh-keygen": ("openssh-client", "makes keys for guests and for you"),
}
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"  # not in everybody's PATH
SERVICE_USER = "vws"
PYTHON_MIN = (3, 11)
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised

MEMORY_FAIL_MIB, MEMORY_WARN_MIB = 384, 1024
DISK_FAIL_MIB, DISK_WARN_MIB = 512, 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ok: the verdict; found: what is there; fix: what to do about it, None when nothing."""

    name: str
    ok: Verdict
    found: str
    fix: str | None = None


def findings() -> list[Finding]:
    """Everything that was looked at, in the order to mend it. Raises nothing; changes nothing."""
    return [finding for check in CHECKS for finding in _safely(check)]


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    shown = ".".join(map(str, version))
    if version >= PYTHON_MIN:
        yield Finding("python", "ok", f"{shown} ({sys.executable})")
    else:
        yield Finding("python", "fail", f"{shown}; 3.11 or later is needed", "make setup PYTHON=/path/to/python3.11")


def check_root() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("root", "ok", "you are root; the service gives it up, the node agent keeps it")
    elif shutil.which("sudo"):
        yield Finding("root", "warn", "you are not root, and the node agent must be", "sudo vws site start")
    else:
        fix = "become root, or start simulated nodes: vws site start --fake-nodes 3"
        yield Finding("root", "fail", "you are not root, and there is no sudo", fix)


def check_programs() -> Iterator[Finding]:
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}"
    for program, (package, purpose) in PROGRAMS.items():
        place = shutil.which(program, path=path)
        if place:
            yield Finding(program, "ok", place)
        else:
            yield Finding(program, "fail", f"missing; it {purpose}", f"apt-get install {package}")


def check_libvirt_python() -> Iterator[Finding]:
    try:
        import libvirt
    except ImportError as error:
        yield Finding("libvirt-python", "fail", f"cannot be imported: {error}", "make setup")
        return
    number = libvirt.getVersion()
    yield Finding("libvirt-python", "ok", f"libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}")


def check_kvm() -> Iterator[Finding]:
    from vws.node.probe import probe_kvm

    probe = probe_kvm()
    if probe.works:
        yield Finding("kvm", "ok", probe.reason)
        return
    fix = "nothing, if slow is fine; else run on hardware, or in a VM whose host allows nested virtualization"
    yield Finding("kvm", "warn", f"does not work, so guests are emulated (TCG): {probe.reason}", fix)


def check_tun() -> Iterator[Finding]:
    device = Path("/dev/net/tun")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        yield Finding("tun", "fail", f"there is no {device}, so guests get no network", "modprobe tun")
    except PermissionError:
        yield Finding("tun", "warn", f"{device} is not yours to open", "run as root")
    except OSError as error:
        yield Finding("tun", "fail", f"{device}: {error.strerror}", "modprobe tun; in a container, allow the device")
    else:
        yield Finding("tun", "ok", f"{device} opens")


def check_cgroup(root: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    unified = root / "cgroup.controllers"
    if unified.exists() and "cpu" in unified.read_text().split():
        yield Finding("cgroup cpu", "ok", f"{root} (version 2)")
    elif any((root / name / "cpu.shares").exists() for name in ("cpu", "cpu,cpuacct")):
        yield Finding("cgroup cpu", "ok", f"{root}/cpu (version 1)")
    else:
        yield Finding(
            "cgroup cpu",
            "warn",
            f"no CPU controller under {root}: CPU shares of workspaces are not enforced",
            "mount cgroups: mount -t cgroup2 none /sys/fs/cgroup",
        )


def check_namespaces() -> Iterator[Finding]:
    command = ["unshare", "--net", "--mount", "--uts", "--", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("namespaces", "fail", f"could not be tried: {error}", "apt-get install util-linux")
        return
    if done.returncode == 0:
        yield Finding("namespaces", "ok", "network, mount and UTS namespaces can be made")
    elif os.geteuid() != 0:
        yield Finding("namespaces", "warn", "only root can make them", "run as root")
    else:
        words = done.stderr.strip() or "refused"
        fix = 'in a container, grant CAP_SYS_ADMIN and CAP_NET_ADMIN; or set isolation = "host" in site.toml'
        yield Finding("namespaces", "fail", words, fix)


def check_memory(meminfo: Path = Path("/proc/meminfo")) -> Iterator[Finding]:
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free_mib = int(fields["MemAvailable"].split()[0]) // 1024
    found = f"{free_mib:,} MiB available"
    verdict = _against(free_mib, MEMORY_FAIL_MIB, MEMORY_WARN_MIB)
    fix = f"free some: a demo of three VMs needs about {MEMORY_WARN_MIB:,} MiB"
    yield Finding("memory", verdict, found, None if verdict == "ok" else fix)


def check_disk(folder: Path | None = None) -> Iterator[Finding]:
    place = folder or Path.cwd()
    free_mib = shutil.disk_usage(place).free >> 20
    verdict = _against(free_mib, DISK_FAIL_MIB, DISK_WARN_MIB)
    fix = f"free some, or keep the site elsewhere (--dir): {DISK_WARN_MIB:,} MiB is a sensible least"
    yield Finding("disk", verdict, f"{free_mib:,} MiB free under {place}", None if verdict == "ok" else fix)


def check_service_user(name: str = SERVICE_USER) -> Iterator[Finding]:
    import pwd

    try:
        user = pwd.getpwnam(name)
    except KeyError:
        found = f"there is no user {name}, to which a service started as root gives root up"
        yield Finding("service user", "fail" if os.geteuid() == 0 else "warn", found, "make setup")
        return
    if user.pw_uid == 0:
        yield Finding("service user", "fail", f"{name} is root by another name", f"userdel {name}, then make setup")
    else:
        yield Finding("service user", "ok", f"{name} (uid {user.pw_uid})")


def check_clock(now: float | None = None) -> Iterator[Finding]:
    here = time.time() if now is None else now
    written = Path(__file__).stat().st_mtime
    fix = "set it: date -u -s ..., and keep it set: apt-get install chrony"
    if here + 60 < written:
        yield Finding("clock", "fail", f"{_utc(here)}, which is before this program was installed", fix)
    elif not _clock_is_synchronised():
        found = f"{_utc(here)}; nothing here keeps it in step (in a container, the host may)"
        yield Finding("clock", "warn", found, "apt-get install chrony")
    else:
        yield Finding("clock", "ok", f"{_utc(here)}, synchronised")


def check_appliance(root: Path | None = None) -> Iterator[Finding]:
    bundle = (root or Path(__file__).parents[3]) / "build" / "appliance" / "demo.vws"
    if bundle.is_file():
        yield Finding("demo appliance", "ok", f"{bundle} ({bundle.stat().st_size >> 20} MiB)")
    else:
        yield Finding("demo appliance", "warn", "not built, so there is no image to begin with", "make appliance")


def check_image_policy(directory: Path | None = None) -> Iterator[Finding]:
    """Of the site that this machine serves; a machine without one, or a site without a policy, has nothing to tell."""
    from vws.config import SiteDirectory, default_directory, load
    from vws.core.errors import InvalidRequest
    from vws.core.image_policy_file import read_policy

    site = SiteDirectory(directory or default_directory())
    if not site.config.is_file() or site.is_joined:
        return
    config = load(site)
    if not config.images.policy:
        yield Finding("image policy", "ok", "none: everybody may run every image")
        return
    path = site.path / config.images.policy
    fix = "mend it; until then the one before stays in force (vws image policy show)"
    try:
        policy = read_policy(path.read_text(), path.name, vos=config.vos)
        tracker = policy.tracker and (path.parent / policy.tracker.file)
        if tracker and not tracker.is_file():
            yield Finding("image policy", "warn", f"there is no tracker's file {tracker}", fix)
            return
    except InvalidRequest as error:
        yield Finding("image policy", "warn", error.problem + (f"; {error.possible}" if error.possible else ""), fix)
    except (OSError, UnicodeDecodeError) as error:
        yield Finding("image policy", "warn", f"{path}: {error}", fix)
    else:
        yield Finding("image policy", "ok", f"{path}: {len(policy.rules)} rules")


def check_image_store(directory: Path | None = None) -> Iterator[Finding]:
    """Whether the bucket answers that [images] names; a directory of the site's own needs no check."""
    from vws.config import SiteDirectory, default_directory, load
    from vws.core.errors import VwsError
    from vws.main import blobs_of

    site = SiteDirectory(directory or default_directory())
    if not site.config.is_file() or site.is_joined or not (config := load(site)).images.bucket:
        return
    try:
        blobs_of(site, config.images).check()
        yield Finding("image store", "ok", f"the bucket {config.images.bucket} answers")
    except VwsError as error:
        yield Finding("image store", "fail", error.problem, error.possible or "mend [images] in site.toml")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_root,
    check_programs,
    check_libvirt_python,
    check_kvm,
    check_tun,
    check_cgroup,
    check_namespaces,
    check_memory,
    check_disk,
    check_service_user,
    check_clock,
    check_appliance,
    check_image_policy,
    check_image_store,
)


def _safely(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check that stumbles is a finding too: a doctor that crashes helps nobody."""
    try:
        return list(check())
    except Exception as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [Finding(name, "warn", f"could not be looked at: {error}", "report this with the output of vws doctor")]


def _against(value: int, fail_below: int, warn_below: int) -> Verdict:
    return "fail" if value < fail_below else "warn" if value < warn_below else "ok"


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _clock_is_synchronised() -> bool:
    import ctypes

    state = ctypes.create_string_buffer(256)  # struct timex, all 0: read only
    return int(ctypes.CDLL(None).adjtimex(state)) not in (-1, TIME_ERROR)


COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def _table(found: list[Finding]) -> Iterator[str]:
    width = max(len(finding.name) for finding in found)
    for finding in found:
        mark = click.style(f"{finding.ok:4}", fg=COLOURS[finding.ok])
        yield f"{mark}  {finding.name:{width}}  {finding.found}"
        if finding.fix:
            yield f"{'':4}  {'':{width}}  fix: {finding.fix}"


def _summary(found: list[Finding]) -> str:
    failed = sum(finding.ok == "fail" for finding in found)
    warned = sum(finding.ok == "warn" for finding in found)
    if failed:
        return f"{failed} to mend before a real node can run here (`make setup` mends most), {warned} to know of."
    return f"A real node can run here. {warned} to know of." if warned else "A real node can run here."


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context) -> None:
    """Say what this machine can do and what to install, with a fix beside each finding.

    \b
    Exit status: 0 a real node can run here, 1 something must be mended first.

    \b
    Examples:
      vws doctor
      vws doctor --json
    """
    found = findings()
    if context.ensure_object(Session).as_json:
        print_json([asdict(finding) for finding in found])
    else:
        for line in (*_table(found), "", _summary(found)):
            click.echo(line)
    if any(finding.ok == "fail" for finding in found):
        context.exit(1)
