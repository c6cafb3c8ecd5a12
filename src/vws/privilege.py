"""How the service gives root up.

Started by root it binds its port and reads its configuration, then becomes an ordinary user for good. Sites are
often made below directories that only root may enter (a home directory, a temporary one). Rather than asking for those
to be opened to everybody, the process gets a view of its own first: in a private mount namespace an empty directory
covers what the user may not enter, with nothing in it but the paths that the service needs. That hides more than it
shows.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


class CannotDrop(Exception):
    """Root could not be given up as asked; the message says what to do."""


def drop(user: str, needed: Iterable[Path]) -> None:
    """Become `user`, who can reach each of the `needed` paths afterwards. Does nothing when not run by root.

    Call it before any thread is started. Raises CannotDrop; the process must not go on then.
    """
    if os.geteuid() != 0:
        return
    account = account_of(user)
    if account.pw_uid == 0:
        raise CannotDrop(f"the service's user {user!r} is root itself: name another in site.toml ([service] user)")
    _make_view(account, [path for path in needed if path.exists()])
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    os.environ["HOME"] = "/"


def account_of(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise CannotDrop(
            f"there is no user {user!r} for the service to run as: `make setup` makes one "
            f"(useradd --system {user}), or name another in site.toml ([service] user)"
        ) from None


def _make_view(account: pwd.struct_passwd, needed: list[Path]) -> None:
    blocked: dict[Path, list[Path]] = {}
    for path in needed:
        barrier = _barrier(account, path.resolve())
        if barrier is not None:
            blocked.setdefault(barrier, []).append(path.resolve())
    if not blocked:
        return
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise CannotDrop(
            f"{account.pw_name} may not enter {', '.join(map(str, blocked))}, and this host allows no mount namespace: "
            "put the site and the program where everybody may enter"
        )
    _mount("none", Path("/"), "", MS_REC | MS_PRIVATE, "")
    umask = os.umask(0o022)  # the way to what is needed must be open, whatever this process keeps private
    for barrier, paths in sorted(blocked.items()):
        _cover(barrier, paths)
    os.umask(umask)


def _barrier(account: pwd.struct_passwd, path: Path) -> Path | None:
    """The first directory on the way to `path` that the user may not enter."""
    for parent in reversed(path.parents):
        status = parent.stat()
        if status.st_uid == account.pw_uid:
            allowed = status.st_mode & stat.S_IXUSR
        elif status.st_gid == account.pw_gid:
            allowed = status.st_mode & stat.S_IXGRP
        else:
            allowed = status.st_mode & stat.S_IXOTH
        if not allowed:
            return parent
    return None


def _cover(barrier: Path, paths: list[Path]) -> None:
    # A path below another one comes with it.
    tops = [p for p in sorted(set(paths)) if not any(q in p.parents for q in paths)]
    handles = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in tops]
    _mount("vws", barrier, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k")
    for path, handle in handles:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        _mount(f"/proc/self/fd/{handle}", path, "", MS_BIND | MS_REC, "")
        os.close(handle)


def _mount(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    done = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(done, f"mount {source} on {target}")


def _check(done: int, what: str) -> None:
    if done != 0:
        raise CannotDrop(f"{what}: {os.strerror(ctypes.get_errno())}")
