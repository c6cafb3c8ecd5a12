"""Becomes a program that can do little: `python -I -S confine.py JSON PROGRAM ARGUMENTS...`. See service/confined.py.

It runs between the service and a program that reads a stranger's file, in a process of its own, since no Python may run
between fork and exec beside threads. So it imports nothing that takes long. Every fence that the host's kernel has is
put up: limits on memory, CPU time and size of files; an end together with the service's; no way to gain privileges; a
network without interfaces, where the kernel lets ordinary users have one; and with Landlock (Linux 5.13) no file but
those that were named. A kernel without the latter two still has the limits.
"""

import ctypes
import json
import os
import resource
import signal
import stat
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
# What each version of Landlock knows of: rights below this bit.
KNOWN = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
# What a file, as opposed to a directory, can be allowed.
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
NICE = 10

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    wanted, command = json.loads(sys.argv[1]), sys.argv[2:]
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != wanted["parent"]:
        sys.exit("the service ended")
    os.nice(NICE)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Refused on hosts where ordinary users may not have namespaces.
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC)
    keep_to(wanted["read"], wanted["write"])
    for name, most in wanted["limits"].items():
        # Beyond the soft limit of CPU time comes a signal that says why, beyond the hard one the end.
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most + 5 if name == "CPU" else most))
    # Python ignores these, and what is ignored stays so.
    for number in (signal.SIGXFSZ, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.execv(command[0], command)


def keep_to(read: list[str], write: list[str]) -> None:
    """See no files but those at or below `read`, and below `write`, where they may be changed."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return
    handled = (1 << KNOWN.get(version, 16)) - 1
    # A struct of one or two 64-bit words: rights to files, and (from version 4 on) to TCP's bind and connect.
    words = [handled] if version < 4 else [handled, 3]
    rules = libc.syscall(LANDLOCK_CREATE, (ctypes.c_uint64 * len(words))(*words), 8 * len(words), 0)
    for path in read:
        allow(rules, path, handled & (EXECUTE | READ_FILE | READ_DIR))
    for path in write:
        allow(rules, path, handled)
    allow(rules, "/dev/null", handled & (READ_FILE | WRITE_FILE))
    if libc.syscall(LANDLOCK_RESTRICT, rules, 0) != 0:
        sys.exit(f"landlock: {os.strerror(ctypes.get_errno())}")
    os.close(rules)


def allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        rights &= OF_FILES
    rule = rights.to_bytes(8, sys.byteorder) + handle.to_bytes(4, sys.byteorder)
    if libc.syscall(LANDLOCK_ADD, rules, 1, rule, 0) != 0:
        sys.exit(f"landlock: {path}: {os.strerror(ctypes.get_errno())}")
    os.close(handle)


if __name__ == "__main__":
    main()
