"""A file from the web, fetched by who imports it.

The service opens no address that a user names: it may reach what the user cannot. So the file comes through the user's
own machine, into his cache until the image is at the site. What broke goes on where it was, if the server still has the
same file: it says so by the tag or the date that it gave with the beginning.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click

from vws.cli.failures import Failed, failed
from vws.cli.progress import transfer
from vws.cli.session import user_cache

if TYPE_CHECKING:  # loaded where it is used: no other command needs it
    import httpx

SCHEMES = ("https", "http")
SILENCE_S = 30  # of a connection
GIVE_UP_S = 60  # of all tries, without a byte
PAUSE_S = 1
PIECE_BYTES = 1 << 20
REDIRECTS_MAX = 5
KEPT_S = 86400  # what came whole, for another try; the server may have another file by then


class Source(click.Path):
    """A file that is there, or an address of one."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in str(value) else super().convert(value, param, ctx)


class Sha256(click.ParamType[str]):
    name = "sha256"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", str(value)):
            self.fail("a sha256 is 64 hexadecimal digits", param, ctx)
        return str(value).lower()


@contextmanager
def at_hand(source: str, sha256: str | None, *, to_stderr: bool) -> Iterator[Path]:
    """The file that was said, fetched if that is an address, verified if its sha256 is said.

    What was fetched is gone once what is done with it has succeeded. Raises Failed for what cannot be fetched or is not
    what it should be.
    """
    if "://" in source:
        with _fetched(source, sha256, to_stderr) as file:
            yield file
        return
    # Of a pipe or a device nobody knows how long it is.
    odd = "" if Path(source).is_file() else "no ordinary file"
    if odd or not Path(source).stat().st_size:
        raise failed(f"{source} is {odd or 'empty'}", kept="nothing was imported", next_step="a file with an image")
    if sha256 is not None and (found := sha256_of(Path(source))) != sha256:
        raise _another(source, found)
    yield Path(source)


@contextmanager
def _fetched(url: str, sha256: str | None, to_stderr: bool) -> Iterator[Path]:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise failed(
            f"{_shown(url)} is no address of a file", kept="nothing was imported", next_step="https://HOST/FILE"
        )
    folder = user_cache() / "fetched" / hashlib.sha256(url.encode()).hexdigest()
    target = folder / "whole" / (PurePosixPath(unquote(parts.path)).name or "image")[:200]
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not target.exists() or time.time() - target.stat().st_mtime > KEPT_S:
        _fetch(url, folder / "part", to_stderr)
        (folder / "part").replace(target)
    if sha256 is not None and (found := sha256_of(target)) != sha256:
        shutil.rmtree(folder)
        raise _another(_shown(url), found)
    yield target
    shutil.rmtree(folder)


def _shown(url: str) -> str:
    """Without a name and password."""
    return urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()[:200]


def _fetch(url: str, part: Path, to_stderr: bool) -> None:
    if url.startswith("http:"):
        click.echo("it comes over http: only --sha256 can tell whether it was altered on its way", err=True)
    last, came, told = time.monotonic(), -1, ""
    while True:
        try:
            _go_on(url, part, to_stderr)
            return
        except _Broken as error:
            size = part.stat().st_size if part.exists() else 0
            last = time.monotonic() if size > came else last
            came = size
            if time.monotonic() - last > GIVE_UP_S:
                raise _not_fetched(url, str(error)) from None
            if str(error) != told:
                told = str(error)
                click.echo(f"  {told[:200]}; it is tried again for {GIVE_UP_S} s", err=True)
            time.sleep(PAUSE_S)


class _Broken(Exception):
    """It may go on."""


def _go_on(url: str, part: Path, to_stderr: bool) -> None:
    import httpx

    seen, size = _validator(part), part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if seen and size:
        headers |= {"Range": f"bytes={size}-", "If-Range": seen}
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=REDIRECTS_MAX, timeout=SILENCE_S) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code == 416:  # it has become shorter, or all of it came in the moment before a kill
                part.unlink()
                raise _Broken("it has become shorter")
            if answer.status_code >= 500:
                raise _Broken(f"it answers {answer.status_code}")
            if answer.status_code not in (200, 206):
                raise _not_fetched(url, f"it answers {answer.status_code}")
            begin = size if answer.status_code == 206 else 0
            if not begin:
                _keep_validator(part, answer.headers)
            _receive(url, answer, part, begin, to_stderr)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise _not_fetched(url, str(error)) from None
    except httpx.HTTPError as error:
        raise _Broken(str(error) or type(error).__name__) from None
    except OSError as error:
        raise _not_fetched(url, f"{part.parent} cannot be written: {error.strerror or error}") from None


def _receive(url: str, answer: httpx.Response, part: Path, begin: int, to_stderr: bool) -> None:
    total = begin + int(answer.headers.get("Content-Length", 0))
    with transfer(f"fetching {_shown(url)}", total, to_stderr=to_stderr) as told:
        _write(answer.iter_raw(PIECE_BYTES), part, begin, told)


def _write(pieces: Iterator[bytes], part: Path, begin: int, told: Callable[[int], None]) -> None:
    with part.open("r+b" if begin else "wb") as file:
        file.truncate(begin)
        file.seek(begin)
        for piece in pieces:
            file.write(piece)
            told(file.tell())


def _validator(part: Path) -> str:
    """What tells that the server has the file still of which `part` is the beginning; "" if nothing does."""
    try:
        return str(json.loads(part.with_name("validator.json").read_text()))
    except (OSError, ValueError):
        return ""


def _keep_validator(part: Path, headers: httpx.Headers) -> None:
    """A new beginning. A weak tag promises nothing about the bytes (RFC 9110, 13.1.5)."""
    tag = headers.get("ETag", "")
    kept = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    part.unlink(missing_ok=True)
    part.with_name("validator.json").write_text(json.dumps(kept))


def sha256_of(path: Path) -> str:
    """Of a file, as 64 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _another(said: str, found: str) -> Failed:
    return failed(
        f"{said} is not what --sha256 says: its sha256 is {found}",
        kept="nothing was imported",
        next_step="ask who published it which of the two is right",
    )


def _not_fetched(url: str, why: str) -> Failed:
    return failed(
        f"{_shown(url)} cannot be fetched: {why[:200]}",
        kept="what came is kept for the same command again; nothing was imported",
        next_step="the same command once it answers",
    )
