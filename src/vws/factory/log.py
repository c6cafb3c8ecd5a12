"""What a build says: steps with their times for whoever waits, and everything that its programs print in a file.

The file is kept when a build fails, as the reason is often some lines above the last.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vws.guest.debs import BuildError

LAST_BYTES = 64 * 1024
# (seconds since the start, what is being done)
Tell = Callable[[float, str], None]


class Log:
    """The log of one build, in `path`."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.path = path
        self._tell = tell
        self._started = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def step(self, what: str) -> None:
        """Begin with `what`."""
        passed_s = time.monotonic() - self._started
        with self.path.open("a") as stream:
            stream.write(f"--- {passed_s:.1f} s: {what}\n")
        self._tell(passed_s, what)

    @contextmanager
    def stream(self) -> Iterator[IO[bytes]]:
        with self.path.open("ab", buffering=0) as stream:
            yield stream

    def last(self) -> str:
        """The end of it."""
        with self.path.open("rb") as stream:
            stream.seek(max(0, self.path.stat().st_size - LAST_BYTES))
            return stream.read().decode(errors="replace")

    def run(
        self, arguments: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Run a program of this machine, what it prints into the log. Raises BuildError with its last words."""
        before = self.path.stat().st_size
        with self.stream() as log:
            try:
                done = subprocess.run(
                    [str(each) for each in arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                    cwd=cwd,
                    check=False,
                )
            except FileNotFoundError:
                raise BuildError(f"{arguments[0]} is not installed. Next: make setup") from None
        if done.returncode:
            with self.path.open("rb") as stream:
                stream.seek(max(before, self.path.stat().st_size - LAST_BYTES))
                words = stream.read().decode(errors="replace").strip().splitlines()[-3:]
            raise BuildError(f"{arguments[0]} failed: {' / '.join(words) or f'exit status {done.returncode}'}")
