"""A libvirtd of the node's own, in the node's namespaces.

It lives in the node's network namespace and in mount and host name namespaces of
its own, in which libvirt's fixed paths (/etc/libvirt, /var/lib/libvirt, ...) are
folders of the node's directory. So several run on one machine beside the
machine's own, none sees another's domains or the machine's D-Bus, and nothing
listens but unix sockets in a private folder. QEMU sees the node's files under
/run/vws, whatever the directory is called and whoever may enter its parents, and
runs without root.

libvirtd and virtlogd (which keeps consoles' logs small) are daemons: they
outlive the agent, which finds them again by pid file and namespace. When one has
died it is started again; the virtual machines do not notice.

The mount points themselves must exist on the machine; those that are missing
are made, empty, as libvirt's packages would, and stay: another node's namespace
may be standing on them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import time
import uuid
from pathlib import Path

from vws.node.namespace import Namespace, end_processes
from vws.ports import HypervisorError

# Arguments: the host name; major and minor number of KVM's device, QEMU's uid and gid (without KVM four times "");
# pairs of folder (in the working directory) and mount point; "--"; the command.
_IN_PLACE = """
set -e
hostname "$1"
if [ -n "$2" ]; then
    mount -t tmpfs -o mode=0755,size=64k vws libvirt/dev
    mknod -m 0600 libvirt/dev/kvm c "$2" "$3"
    chown "$4:$5" libvirt/dev/kvm
    mount --bind libvirt/dev/kvm /dev/kvm
fi
shift 5
while [ "$1" != -- ]; do
    mount --bind -- "$1" "$2"
    shift 2
done
shift
exec "$@"
"""
_MOUNTS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "run": "/run",
}
SEEN_IN_RUN = "/run/vws"
SHOWN = ("images", "workspaces", "consoles")

QEMU_USER = "libvirt-qemu"
_QEMU_ID = 64055  # Debian's, where its package has not made the user
_KVM = Path("/dev/kvm")

_LIBVIRTD_CONF = """\
# Written by the node's agent at each start of libvirtd.
host_uuid = "{host_uuid}"
listen_tls = 0
listen_tcp = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
unix_sock_admin_perms = "0700"
max_clients = 64
max_workers = 20
max_client_requests = 32
log_outputs = "4:file:/var/log/libvirt/libvirtd.log"
log_filters = "4:util 4:node_device 3:qemu"
"""
# cgroups: see cpushare.py.
_QEMU_CONF = """\
user = "+{uid}"
group = "+{gid}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "logd"
"""
_VIRTLOGD_CONF = """\
max_size = {size_bytes}
max_backups = 1
log_outputs = "4:file:/var/log/libvirt/virtlogd.log"
"""
CONSOLE_BYTES_MAX = 1 << 20  # and as much again in the older half
_LOG_BYTES_MAX = 4 << 20


def qemu_ids() -> tuple[int, int]:
    """(uid, gid) that QEMU runs as."""
    try:
        user = pwd.getpwnam(QEMU_USER)
    except KeyError:
        return _QEMU_ID, _QEMU_ID
    return user.pw_uid, user.pw_gid


class Libvirtd:
    """libvirtd and virtlogd for the node whose files are in `directory`."""

    def __init__(self, directory: Path, place: Namespace) -> None:
        self._directory = directory
        self._root = directory / "libvirt"
        self._place = place
        self.sockets = self._root / "run" / "libvirt"

    def ensure(self) -> None:
        """Have both running. Raises HypervisorError with what libvirtd said."""
        if all(self._pid(daemon) for daemon in ("virtlogd", "libvirtd")):
            return
        self._prepare()
        for daemon in ("virtlogd", "libvirtd"):
            if not self._pid(daemon):
                self._start(daemon)

    def _pid(self, daemon: str) -> int | None:
        """Its pid if it is alive and this node's."""
        try:
            pid = int((self.sockets / f"{daemon}.pid").read_text())
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (OSError, ValueError):
            return None
        return pid if name == daemon and self._place.holds(pid) else None

    def _start(self, daemon: str) -> None:
        apart = ("unshare", "--mount", "--uts", "--propagation", "private", "--")
        script = ("sh", "-c", _IN_PLACE, "sh", self._place.name or "vws", *_kvm_device(), *self._mounts(), "--")
        command = (daemon, "-d", "-p", f"/run/libvirt/{daemon}.pid")
        self._place.commands.run(*apart, *script, *command, cwd=self._directory)

    def _mounts(self) -> list[str]:
        pairs = [(f"libvirt/{folder}", point) for folder, point in _MOUNTS.items()]
        pairs += [(folder, f"{SEEN_IN_RUN}/{folder}") for folder in SHOWN]
        pairs += [(f"libvirt/accounts/{name}", f"/etc/{name}") for name in ("passwd", "group")]
        return [text for pair in pairs for text in pair]

    # -------------------------------------------------------- its files

    def _prepare(self) -> None:
        self._root.mkdir(mode=0o700, exist_ok=True)
        self._forget_last_boot()
        (self._root / "dev").mkdir(mode=0o755, exist_ok=True)
        for folder, point in _MOUNTS.items():
            _make_open(self._root / folder)
            Path(point).mkdir(parents=True, exist_ok=True)
        _make_open(self._root / "run" / "vws")
        for folder in SHOWN:
            _make_open(self._directory / folder)
            _make_open(self._root / "run" / "vws" / folder)
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        os.chmod(self.sockets, 0o711)  # libvirt keeps its own folders in it private
        uid, gid = qemu_ids()
        self._write_accounts(uid, gid)
        etc = self._root / "etc"
        (etc / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(host_uuid=self._host_uuid()))
        (etc / "qemu.conf").write_text(_QEMU_CONF.format(uid=uid, gid=gid))
        (etc / "virtlogd.conf").write_text(_VIRTLOGD_CONF.format(size_bytes=CONSOLE_BYTES_MAX))
        _shorten(self._root / "log" / "libvirtd.log")

    def _forget_last_boot(self) -> None:
        """Running state from before the machine's last boot names pids that are others' now, and libvirtd would end
        them; /run is cleared by a boot, this folder is not."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        kept = self._root / "boot-id"
        if not kept.exists() or kept.read_text() != boot:
            shutil.rmtree(self._root / "run", ignore_errors=True)
            _make_open(self._root / "run")
            kept.write_text(boot)

    def _host_uuid(self) -> str:
        """Made once: libvirt refuses to migrate between hosts of one uuid."""
        kept = self._root / "host-uuid"
        if not kept.exists():
            kept.write_text(str(uuid.uuid4()))
        return str(uuid.UUID(kept.read_text()))

    def _write_accounts(self, uid: int, gid: int) -> None:
        """libvirtd does not start without its package's user; where that is not installed, only it gets to see one."""
        accounts = self._root / "accounts"
        _make_open(accounts)
        for name, line in (
            ("passwd", f"{QEMU_USER}:x:{uid}:{gid}::/nonexistent:/usr/sbin/nologin\n"),
            ("group", f"{QEMU_USER}:x:{gid}:\n"),
        ):
            text = (Path("/etc") / name).read_text()
            known = any(entry.startswith(f"{QEMU_USER}:") for entry in text.splitlines())
            (accounts / name).write_text(text if known else text.rstrip("\n") + "\n" + line)
            os.chmod(accounts / name, 0o644)

    # -------------------------------------------------------- end

    def end(self, daemon: str) -> None:
        """End one daemon, if it runs; domains stay as they are."""
        end_processes(lambda: [pid for pid in [self._pid(daemon)] if pid])

    def clear(self) -> None:
        """Remove what is left of both when neither runs; configuration, capabilities' cache and logs stay."""
        # Also the monitors of what a libvirtd that was killed had just started.
        for path in self._root.rglob("*"):
            if path.is_socket():
                path.unlink(missing_ok=True)

    # -------------------------------------------------------- what it says

    def uri(self, sockets_fd: int) -> str:
        """`sockets_fd`: the open folder of sockets. By it the path is short enough for a unix socket, always."""
        return f"qemu+unix:///system?socket=/proc/self/fd/{sockets_fd}/libvirt-sock"

    def open_sockets(self) -> int:
        return os.open(self.sockets, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def last_words(self) -> str:
        with contextlib.suppress(OSError, IndexError):
            text = (self._root / "log" / "libvirtd.log").read_text(errors="replace")
            return text.strip().splitlines()[-1][:300]
        return ""

    def wait_ready(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not (self._pid("libvirtd") and (self.sockets / "libvirt-sock").exists()):
            if time.monotonic() > deadline:
                raise HypervisorError(f"libvirtd does not start: {self.last_words() or 'it says nothing'}")
            time.sleep(0.01)


def _kvm_device() -> tuple[str, str, str, str]:
    """QEMU gets a device of its own to open. One that it may not open would cost more than speed: libvirt would examine
    it anew, for seconds, at each definition of a domain."""
    try:
        device = _KVM.stat().st_rdev
    except FileNotFoundError:
        return "", "", "", ""
    uid, gid = qemu_ids()
    return str(os.major(device)), str(os.minor(device)), str(uid), str(gid)


def _make_open(folder: Path) -> None:
    """A folder that QEMU may pass through, below one that only root may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o711)


def _shorten(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_BYTES_MAX:
            os.truncate(log, 0)
