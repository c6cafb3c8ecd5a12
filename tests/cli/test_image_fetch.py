"""`vws image import URL`: by a real server which breaks off, has another file, or nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from vws.cli import image_fetch
from vws.cli.failures import Failed
from vws.cli.image_fetch import at_hand

DATA = os.urandom(3 << 20)
SUM = hashlib.sha256(DATA).hexdigest()


@dataclass
class Web:
    """A server of one file. breaks_at: each answer ends after so many bytes; asked: the Range of each request."""

    data: bytes = DATA
    tag: str = '"one"'
    breaks_at: int | None = None
    status: int = 200
    url: str = ""
    asked: list[str | None] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        begin = int(wanted[6:-1]) if wanted and handler.headers["If-Range"] == self.tag else 0
        handler.send_response((206 if begin else 200) if self.status == 200 else self.status)
        handler.send_header("ETag", self.tag)
        handler.send_header("Content-Length", str(len(self.data) - begin))
        handler.end_headers()
        end = len(self.data) if self.breaks_at is None else begin + self.breaks_at
        handler.wfile.write(self.data[begin:end])


@pytest.fixture
def web(tmp_path, monkeypatch) -> Iterator[Web]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(image_fetch, "PAUSE_S", 0.01)
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.answer(self)

        def log_message(self, *said: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_port}/images/debian-12.qcow2"
    Thread(target=server.serve_forever, daemon=True).start()
    yield web
    server.shutdown()
    server.server_close()


def fetch(web: Web, sha256: str | None = SUM) -> tuple[str, bytes]:
    with at_hand(web.url, sha256, to_stderr=True) as file:
        return file.name, file.read_bytes()


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_file_comes_whole_and_is_gone_when_it_was_imported(web, tmp_path):
    assert fetch(web) == ("debian-12.qcow2", DATA)
    assert kept(tmp_path) == []
    assert web.asked == [None]


def test_what_breaks_off_goes_on_where_it_was(web):
    web.breaks_at = 1 << 20
    assert fetch(web)[1] == DATA
    assert web.asked == [None, f"bytes={1 << 20}-", f"bytes={2 << 20}-"]


def test_a_command_that_was_ended_goes_on_the_next_time(web, monkeypatch, tmp_path):
    web.breaks_at = 1 << 20
    monkeypatch.setattr(image_fetch, "GIVE_UP_S", 0)
    with pytest.raises(Failed, match="cannot be fetched"):
        fetch(web)
    web.breaks_at = None
    assert fetch(web)[1] == DATA
    assert web.asked[-1] == f"bytes={1 << 20}-"


def test_another_file_in_between_is_fetched_from_its_beginning(web, monkeypatch):
    web.breaks_at = 1 << 20
    monkeypatch.setattr(image_fetch, "GIVE_UP_S", 0)
    with pytest.raises(Failed):
        fetch(web)
    web.breaks_at, web.data, web.tag = None, b"another", '"two"'
    assert fetch(web, None)[1] == b"another"


def test_a_server_that_promises_nothing_about_its_bytes_is_asked_for_all_of_them(web):
    web.tag, web.breaks_at = 'W/"one"', 1 << 20
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(image_fetch, "GIVE_UP_S", 0)
        with pytest.raises(Failed):
            fetch(web)
    web.breaks_at = None
    assert fetch(web)[1] == DATA
    assert web.asked[-1] is None


def test_what_is_not_what_its_sum_says_is_thrown_away(web, tmp_path):
    with pytest.raises(Failed, match=f"its sha256 is {SUM}") as said:
        fetch(web, "0" * 64)
    assert said.value.kept == "nothing was imported"
    assert kept(tmp_path) == []


def test_a_file_of_ones_own_is_compared_too(tmp_path):
    (tmp_path / "disk").write_bytes(DATA)
    with at_hand(str(tmp_path / "disk"), SUM, to_stderr=True) as file:
        assert file == tmp_path / "disk"
    with pytest.raises(Failed, match="is not what --sha256 says"), at_hand(str(file), "0" * 64, to_stderr=True):
        pass
    assert file.exists()


def test_an_import_that_fails_keeps_what_came_for_a_day(web, tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), at_hand(web.url, SUM, to_stderr=True):
            raise ZeroDivisionError
    assert web.asked == [None]
    (file,) = (path for path in (tmp_path / "cache").rglob("*.qcow2"))
    os.utime(file, (1, 1))
    fetch(web)
    assert web.asked == [None, None]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.org/disk", "is no address of a file"),
        ("https:///disk", "is no address of a file"),
        ("http://ann:secret@127.0.0.1:1/disk", "http://127.0.0.1:1/disk cannot be fetched"),
    ],
)
def test_what_is_no_address_of_a_file_is_refused_without_its_password(web, monkeypatch, url, said):
    monkeypatch.setattr(image_fetch, "GIVE_UP_S", 0)
    with pytest.raises(Failed, match=said), at_hand(url, None, to_stderr=True):
        pass


def test_who_waits_for_a_server_that_does_not_answer_is_told(web, monkeypatch, capsys):
    web.status = 503
    monkeypatch.setattr(image_fetch, "GIVE_UP_S", 0.2)
    with pytest.raises(Failed, match="it answers 503"):
        fetch(web)
    assert capsys.readouterr().err.count("it answers 503; it is tried again for 0.2 s") == 1
    assert len(web.asked) > 1


def test_an_address_with_nothing_behind_it_says_so_at_once(web):
    web.status = 404
    with pytest.raises(Failed, match="it answers 404") as said:
        fetch(web)
    assert web.url in str(said.value)
    assert web.asked == [None]
