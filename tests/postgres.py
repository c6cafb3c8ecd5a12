"""A PostgreSQL server of the tests' own, from Debian's package, in a temporary folder.

It listens on a Unix socket in that folder only, so it meets no other server; trusts whoever reaches it; and does not
wait for the disk. It runs in the foreground as a child of the tests and dies with them, even when they are killed.
Since PostgreSQL refuses to be run by root, root runs it as the user `postgres`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

PR_SET_PDEATHSIG = 1
START_S = 30
_libc = ctypes.CDLL(None)


def _programs() -> Path | None:
    """The folder of the newest installed version's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


def absent() -> str:
    """Why there can be no server here; empty if there can."""
    return "" if _programs() else "PostgreSQL's server is not installed (apt-get install postgresql)"


class Server:
    """`start` and `stop` may be repeated, as a restart; the databases stay until the `with` block ends.

    durable: it does wait for the disk, as for benches."""

    def __init__(self, *, durable: bool = False) -> None:
        self._fsync = "on" if durable else "off"
        self.folder = Path(tempfile.mkdtemp(prefix="vws-pg-"))
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        # Services that gave root up connect too.
        self.folder.chmod(0o755)

    def __enter__(self) -> Server:
        try:
            self._make()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        return f"postgresql://vws@/{database}?host={self.folder}"

    def new_name(self) -> str:
        return f"test_{next(self._numbers)}"

    def create(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.run(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
        return self.url(name)

    def end_sessions(self, database: str) -> None:
        """End every session in a database, as a server does that is stopped."""
        self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )

    def drop(self, name: str) -> None:
        self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def run(self, statement: str, database: str = "postgres") -> list[tuple]:
        """What a statement answers, outside of the store and its pool."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _make(self) -> None:
        command = [_programs() / "initdb", "-D", self.folder / "data", "-A", "trust", "-U", "vws", "-E", "UTF8"]
        subprocess.run(
            [*command, "--locale=C.UTF-8", "--no-sync"], check=True, capture_output=True, cwd=self.folder, **self._as
        )

    def start(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": self._fsync,
            "jit": "off",  # compiling a query takes longer than any here runs
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_programs() / "postgres", "-D", self.folder / "data", *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=_die_with_the_tests,
                **self._as,
            )
        self._wait()

    def stop(self) -> None:
        """Stop as fast as is clean: sessions are ended, nothing is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_S)
            self._process = None

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while True:
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.02)


def _die_with_the_tests() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
