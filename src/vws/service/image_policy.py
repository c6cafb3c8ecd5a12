"""The site's image policy, read from its file and from the tracker's, and taken up when they change.

A policy with an error in it is not taken up: the one before stays in force, and the error is told wherever somebody may
look (log, health, `vws doctor`, `vws image policy show`). So that this holds over a restart too, the text of the policy
in force is kept in the service's directory. Where there is none that could be in force, nothing is let through: a site
whose administrator wrote a policy has said that not everything may run.

The tracker's file has tens of megabytes. It is read as a stream, in this module's thread, and only what is known of one
release is kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vws.core.bill import Flaws, flaws_of
from vws.core.errors import InvalidRequest
from vws.core.image_policy import Policy
from vws.core.image_policy_file import POLICY_BYTES_MAX, PolicyFile, Tracker, read_policy

log = logging.getLogger("vws.image-policy")
LOOK_EVERY_S = 1.0

Identity = tuple[int, int, int]


@dataclass(frozen=True)
class InForce:
    """policy: None where the site has none. text: as it was read. since: UTC seconds, when it was taken up. problem:
    why what is in the file now is not in force; "": it is. blocked: a policy was written, and none can be in force.
    signers: those that any rule names."""

    policy: Policy | None = None
    text: str = ""
    since: float = 0.0
    problem: str = ""
    blocked: bool = False
    signers: tuple[str, ...] = ()


class PolicyBook:
    """`path`: the policy's file, None for a site without one. kept: where the text in force is kept. now: UTC seconds.
    vos: those of the site, None if they are not known."""

    def __init__(
        self, path: Path | None, kept: Path, now: Callable[[], float], vos: Collection[str] | None = None
    ) -> None:
        self._path, self._kept, self._now, self._vos = path, kept, now, vos
        self._seen: tuple[Identity | None, ...] = ()
        self._tracker: Tracker | None = None
        self._flaws: tuple[Tracker, Identity, Flaws] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.in_force = InForce()
        if path is not None:
            self._begin()

    @property
    def path(self) -> Path | None:
        return self._path

    # ------------------------------------------------------------ looking

    def start(self) -> None:
        """Look for changes, in a thread of its own, until `stop`."""
        if self._path is not None:
            self._thread = threading.Thread(target=self._watch, name="image policy", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:
                log.exception("looking for a changed image policy failed; it is tried again")

    def look(self) -> bool:
        """Take up what has changed in the files since the last look; True if anything had."""
        if self._path is None:
            return False
        now = self._identities()
        if now == self._seen:
            return False
        self._seen = now
        try:
            self._take(self._text())
        except (InvalidRequest, OSError) as error:
            self._complain(_said(error))
        return True

    def _begin(self) -> None:
        """What was in force before this process is again, until the file says otherwise."""
        self.in_force = InForce(blocked=True, problem="it was not read yet")
        with contextlib.suppress(InvalidRequest, OSError):
            self._take(self._kept.read_text(), keep=False)
        self.look()

    def _identities(self) -> tuple[Identity | None, ...]:
        assert self._path is not None
        return _identity(self._path), _identity(self._tracker_path(self._tracker)) if self._tracker else None

    def _tracker_path(self, tracker: Tracker) -> Path:
        assert self._path is not None
        return self._path.parent / tracker.file

    def _text(self) -> str:
        assert self._path is not None
        with self._path.open("rb") as file:
            content = file.read(POLICY_BYTES_MAX + 1)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{self._path.name} is not UTF-8: {error}", field=self._path.name) from None

    # ------------------------------------------------------------ taking up

    def _take(self, text: str, *, keep: bool = True) -> None:
        assert self._path is not None
        read = read_policy(text, self._path.name, vos=self._vos)
        self._tracker = read.tracker
        flaws = self._read_tracker(read)
        since = self.in_force.since if text == self.in_force.text else self._now()
        self.in_force = InForce(Policy(read.rules, flaws), text, since, signers=read.signers)
        log.info("the image policy %s is in force: %d rules", self._path, len(read.rules))
        if keep:
            self._keep(text)

    def _read_tracker(self, read: PolicyFile) -> Flaws:
        if read.tracker is None:
            return {}
        path = self._tracker_path(read.tracker)
        try:
            identity = _identity(path)
            if self._flaws is None or identity is None or self._flaws[:2] != (read.tracker, identity):
                self._flaws = (read.tracker, identity or (0, 0, 0), read_flaws(path, read.tracker.release))
            return self._flaws[2]
        except OSError as error:
            raise InvalidRequest(
                f"the tracker's file {path}: {error.strerror or error}", field="tracker.file"
            ) from None

    def _keep(self, text: str) -> None:
        temporary = self._kept.with_suffix(".new")
        try:
            temporary.write_text(text)
            os.replace(temporary, self._kept)
        except OSError as error:
            log.warning("the image policy cannot be kept for the next start: %s", error)

    def _complain(self, problem: str) -> None:
        rest = "nothing may be leased until it is mended" if self.in_force.blocked else "the one before stays in force"
        log.error("the image policy was not taken up: %s; %s", problem, rest)
        self.in_force = replace(self.in_force, problem=problem)


def read_flaws(path: Path, release: str) -> Flaws:
    """What a file of Debian's security tracker (JSON) knows of a release. Raises InvalidRequest, OSError."""
    import ijson

    found: dict[str, Any] = {}
    with path.open("rb") as file:
        try:
            for package, entry in ijson.kvitems(file, ""):
                flaws = flaws_of(entry, release)
                if flaws:
                    found[package] = flaws
        except (ijson.JSONError, ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"{path} is not a security tracker's JSON: {error}",
                field="tracker.file",
                possible="Debian's security tracker as JSON",
            ) from None
    if not found:
        raise InvalidRequest(f"{path} knows nothing of the release {release}", field="tracker.release", asked=release)
    return found


def _identity(path: Path) -> Identity | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_size, seen.st_mtime_ns, seen.st_ino


def _said(error: InvalidRequest | OSError) -> str:
    if isinstance(error, InvalidRequest):
        return error.problem + (f" (possible: {error.possible})" if error.possible else "")
    return f"{error.filename}: {error.strerror or error}"
