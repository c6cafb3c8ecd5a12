"""The pipes between libvirt and a sealed file, with a libvirt of the test's own at the other end."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vws.node import memory_pipes
from vws.node.memory_pipes import COMPLETE, PARTIAL, adopt, forget, release, restoring, saving
from vws.node.sealed_memory import Sealing, is_whole, opened
from vws.ports import HypervisorError

KEY = "a passphrase"
HEADER = b" and the rest of a header"
MEMORY = bytes(range(256)) * 20_000


class Failed(Exception):
    """libvirt's word that a save failed."""


def write(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def save(pipe: Path) -> None:
    """As libvirt does it."""
    try:
        write(pipe, PARTIAL + HEADER + MEMORY)
        write(pipe, COMPLETE + HEADER)
    except OSError as error:
        raise Failed from error


def give_up(after: Callable[[], object] = lambda: None) -> None:
    after()
    raise Failed


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory"


def left(memory: Path) -> list[str]:
    return sorted(path.name for path in memory.parent.iterdir())


def test_what_is_saved_is_restored_as_a_whole_save(memory):
    with saving(memory, KEY) as pipe:
        save(pipe)
    assert left(memory) == ["memory"]
    assert MEMORY[:64] not in memory.read_bytes()
    with restoring(memory, KEY) as pipe:
        assert pipe.read_bytes() == COMPLETE + HEADER + MEMORY
    assert left(memory) == ["memory"]


def test_the_mark_is_taken_only_when_all_is_on_disk(memory, monkeypatch):
    synced = threading.Event()
    finish = Sealing.finish

    def slowly(self: Sealing) -> None:
        time.sleep(0.3)
        finish(self)
        synced.set()

    monkeypatch.setattr(Sealing, "finish", slowly)
    with saving(memory, KEY) as pipe:
        write(pipe, PARTIAL + HEADER + MEMORY)
        write(pipe, COMPLETE)
        assert synced.is_set()
    assert is_whole(memory)


def test_a_save_that_libvirt_gives_up_leaves_nothing_whole(memory):
    with pytest.raises(Failed), saving(memory, KEY) as pipe:
        give_up(lambda: write(pipe, PARTIAL + HEADER + MEMORY[:1000]))
    assert not memory.exists()
    with pytest.raises(Failed), saving(memory, KEY):
        give_up()  # before it opened anything
    assert not memory.exists()
    forget(memory)
    assert left(memory) == []


def test_a_full_disk_ends_the_save_while_the_guest_can_go_on(memory, monkeypatch):
    real, left_of_it = os.posix_fallocate, [3]

    def fallocate(fd: int, offset: int, length: int) -> None:
        left_of_it[0] -= 1
        if not left_of_it[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    with pytest.raises(HypervisorError, match=r"No space left .*goes on"), saving(memory, KEY) as pipe:
        save(pipe)
    assert not memory.exists()


def test_a_disk_that_fails_at_the_last_moment_lets_nobody_wait(memory, monkeypatch):
    monkeypatch.setattr(Sealing, "finish", lambda self: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(HypervisorError, match="broken"), saving(memory, KEY) as pipe:
        save(pipe)
    assert not memory.exists()


def test_what_was_altered_breaks_the_restore_off(memory):
    with saving(memory, KEY) as pipe:
        save(pipe)
    data = bytearray(memory.read_bytes())
    data[-1000] ^= 1
    memory.write_bytes(data)
    came = list[bytes]()
    with pytest.raises(HypervisorError, match="not as it was saved"), restoring(memory, KEY) as pipe:
        give_up(lambda: came.append(pipe.read_bytes()))
    assert len(came[0]) < len(MEMORY)
    with pytest.raises(Failed), restoring(memory, KEY):
        give_up()  # before it opened anything


# ---------------------------------------------------------------- an agent that was killed


def in_thread(work: Callable[[], None]) -> Callable[[], list[BaseException]]:
    """Begin it; the function waits for its end and says what it raised."""
    raised = list[BaseException]()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def over() -> list[BaseException]:
        thread.join(20)
        assert not thread.is_alive(), "it waits for ever"
        return raised

    return over


def killed_after_sealing(memory: Path) -> None:
    sealing = Sealing(memory.with_name("memory.new"), KEY)
    sealing.write(COMPLETE + HEADER + MEMORY)
    sealing.finish()
    sealing.close()
    os.mkfifo(memory.with_name("memory.save"))


def test_a_libvirt_that_waits_to_mark_a_whole_save_is_let_go_on(memory):
    killed_after_sealing(memory)
    over = in_thread(lambda: write(memory.with_name("memory.save"), COMPLETE + HEADER))
    release(memory)
    assert over() == []
    assert left(memory) == ["memory"]
    assert b"".join(opened(memory, KEY)) == COMPLETE + HEADER + MEMORY


def test_one_that_waits_to_save_or_to_restore_is_turned_away(memory, monkeypatch):
    os.mkfifo(memory.with_name("memory.load"))
    reading = in_thread(lambda: memory.with_name("memory.load").read_bytes() and None)
    time.sleep(0.1)
    release(memory)
    assert reading() == []
    os.mkfifo(memory.with_name("memory.save"))
    memory.with_name("memory.new").write_bytes(b"half of it")
    release(memory)
    assert left(memory) == ["memory.new"]
    adopt(memory)
    assert left(memory) == ["memory.new"], "half a file is none"
    forget(memory)
    assert left(memory) == []


def test_a_whole_save_that_libvirt_ended_is_adopted(memory, monkeypatch):
    monkeypatch.setattr(memory_pipes, "RELEASE_S", 0.2)
    killed_after_sealing(memory)
    release(memory)  # nobody waits any more
    assert left(memory) == ["memory.new"], "not without libvirt's word"
    adopt(memory)
    assert left(memory) == ["memory"]
