"""Root given up for good, with nothing more in view than what is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="giving up root needs root")

SCRIPT = """
import os, sys
from pathlib import Path
from vws.main import _code_paths
from vws.privilege import drop
os.umask(0o077)
needed, other = Path(sys.argv[1]), Path(sys.argv[2])
drop("nobody", [needed, *_code_paths()])
import sqlite3, email.mime.text  # the interpreter's own files are still there
print(os.getresuid(), os.getresgid(), os.getgroups())
(needed / "mine").write_text("yes")
for attempt in (lambda: os.setuid(0), lambda: other.read_text(), lambda: Path("/etc/shadow").read_text()):
    try:
        attempt()
        print("allowed")
    except OSError as error:
        print(type(error).__name__)
"""


def test_the_service_reaches_its_own_below_a_closed_directory_and_nothing_else(tmp_path):
    import pwd

    nobody = pwd.getpwnam("nobody")
    closed = tmp_path / "closed"
    needed = closed / "deep" / "service"
    needed.mkdir(parents=True)
    closed.chmod(0o700)
    os.chown(needed, nobody.pw_uid, nobody.pw_gid)
    secret = closed / "secret"
    secret.write_text("s")
    before = Path("/proc/self/mountinfo").read_text()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(needed), str(secret)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    identity, *attempts = done.stdout.splitlines()
    uid, gid = nobody.pw_uid, nobody.pw_gid
    assert identity == f"{(uid,) * 3} {(gid,) * 3} []"
    assert attempts == ["PermissionError", "FileNotFoundError", "PermissionError"]
    assert (needed / "mine").read_text() == "yes", "what it writes is really there"
    assert Path("/proc/self/mountinfo").read_text() == before, "the view is its own"


def test_an_unknown_user_is_refused_with_the_fix():
    from vws.privilege import CannotDrop, drop

    with pytest.raises(CannotDrop, match="useradd"):
        drop("no-such-user", [])
    with pytest.raises(CannotDrop, match="root itself"):
        drop("root", [])
