"""How libvirt saves to a file that is encrypted, and restores from it, without knowing: by named pipes.

libvirt saves by opening a path twice: it writes all there is, closes it, opens it anew, and writes the header once more
with the mark of a whole save; then it ends the virtual machine. At the other end of the pipe this module encrypts. The
second opening gets another pipe, which was put in the first one's place meanwhile and has no reader until all that was
written is on disk for sure: a guest is ended only when nothing of its memory can be lost any more.

    memory          the saved memory, whole
    memory.new      on its way there
    memory.save     the pipe that libvirt writes to
    memory.load     the pipe that it reads from

Who is killed in the middle leaves libvirt waiting at a pipe, with the domain locked: `release` lets it go on, and must
be called before anything else is asked of libvirt. A save that had all its data then ends as one, any other fails, and
libvirt lets the guest go on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vws.faultpoints import reach
from vws.node.sealed_memory import Sealing, is_whole, opened
from vws.node.state import fsync_directory
from vws.ports import HypervisorError

PARTIAL, COMPLETE = b"LibvirtQemudPart", b"LibvirtQemudSave"
PIPE_BYTES = 1 << 20
LOOK_S = 0.1
RELEASE_S = 5.0


# ---------------------------------------------------------------- saving


@contextlib.contextmanager
def saving(memory: Path, passphrase: str) -> Iterator[Path]:
    """Where libvirt is to save to. Afterwards `memory` is there and whole, or HypervisorError is raised, or what the
    save itself raised."""
    pipe = _save_pipe(memory)
    _make_pipe(pipe)
    work = _Saving(memory, pipe, passphrase)
    thread = threading.Thread(target=work.run, name=f"sealing {memory.parent.name}")
    thread.start()
    try:
        yield pipe
    except BaseException:
        work.end(thread)
        if work.fault:  # libvirt only saw that nobody read on
            raise HypervisorError(work.fault) from None
        raise
    work.end(thread)
    if not work.whole:
        raise HypervisorError(work.fault or "its memory was not saved whole")


class _Saving:
    """fault: what went wrong at this end, "" for nothing."""

    def __init__(self, memory: Path, pipe: Path, passphrase: str) -> None:
        self.over = threading.Event()
        self.whole = False
        self.fault = ""
        self._memory = memory
        self._pipe = pipe
        self._passphrase = passphrase
        # Open before libvirt is asked: what opens a pipe waits for the other end.
        self._reader = _open_reader(pipe)

    def run(self) -> None:
        try:
            new = self._sealed()
            if new is not None and _marked(self._pipe, self.over):
                new.replace(self._memory)
                fsync_directory(self._memory.parent)
                self.whole = True
        except OSError as error:
            self.fault = f"its memory cannot be saved: {error.strerror}; it goes on as it was"
        finally:
            self._close()
            self._turn_away()

    def end(self, thread: threading.Thread) -> None:
        self.over.set()
        thread.join()
        self._pipe.unlink(missing_ok=True)

    def _sealed(self) -> Path | None:
        """All of it in a file, and on disk; None if nothing came."""
        new = _new(self._memory)
        sealing = Sealing(new, self._passphrase)
        try:
            if not _drain(self._reader, _completed(sealing.write), self.over, self._first_came):
                return None
            sealing.finish()
        finally:
            sealing.close()
            self._close()  # what is not taken cannot be written: libvirt gives up
        reach("agent.sealed.memory")
        return new

    def _turn_away(self) -> None:
        """Whoever waits at the second pipe, after a failure, must not wait for ever."""
        while not self.over.wait(LOOK_S):
            os.close(_open_reader(self._pipe))

    def _first_came(self) -> None:
        """libvirt has opened the pipe: when it comes again it finds another one, and waits."""
        second = self._pipe.with_suffix(".second")
        _make_pipe(second)
        second.replace(self._pipe)

    def _close(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1


def _completed(take: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """What is kept says that it is whole: it is read only when it is."""
    head: bytes | None = b""

    def feed(data: bytes) -> None:
        nonlocal head
        if head is None:
            take(data)
            return
        head += data
        if len(head) >= len(PARTIAL):
            take(COMPLETE + head[len(PARTIAL) :] if head.startswith(PARTIAL) else head)
            head = None

    return feed


def _marked(pipe: Path, over: threading.Event) -> bool:
    """Whether libvirt comes to say that the save is whole."""
    reader, said = _open_reader(pipe), bytearray()
    try:
        _drain(reader, said.extend, over)
    finally:
        os.close(reader)
    return said.startswith(COMPLETE)


def _drain(
    reader: int, take: Callable[[bytes], object], over: threading.Event, first: Callable[[], None] | None = None
) -> bool:
    """All that is written until its writers are gone; False if none came before it was over. first: called when one
    did."""
    looking = select.poll()
    looking.register(reader, select.POLLIN)
    came = False
    while True:
        # Asked for before the look, so that what was written until then is seen.
        ended = over.is_set()
        looking.poll(int(1000 * LOOK_S))
        with contextlib.suppress(BlockingIOError):
            data = os.read(reader, PIPE_BYTES)
            if data:
                if not came and first:
                    first()
                came = True
                take(data)
                continue
            if came:
                return True
            time.sleep(LOOK_S / 10)  # nobody has opened it yet
        if ended:
            return came


# ---------------------------------------------------------------- restoring


@contextlib.contextmanager
def restoring(memory: Path, passphrase: str) -> Iterator[Path]:
    """Where libvirt is to restore from. A final HypervisorError if the file is not what was saved."""
    pipe = _load_pipe(memory)
    _make_pipe(pipe)
    over, errors = threading.Event(), list[HypervisorError]()
    thread = threading.Thread(target=_feed, args=(memory, pipe, passphrase, over, errors))
    thread.start()
    try:
        yield pipe
    except Exception:
        over.set()
        thread.join()
        if errors:  # libvirt only saw that it broke off
            raise errors[0] from None
        raise
    finally:
        over.set()
        thread.join()
        pipe.unlink(missing_ok=True)


def _feed(memory: Path, pipe: Path, passphrase: str, over: threading.Event, errors: list[HypervisorError]) -> None:
    writer = _open_writer(pipe, over)
    if writer is None:
        return
    try:
        for piece in opened(memory, passphrase):
            view = memoryview(piece)
            while view:
                view = view[os.write(writer, view) :]
    except BrokenPipeError:
        pass  # libvirt gave up, and says why
    except HypervisorError as error:
        errors.append(error)
    except OSError as error:
        errors.append(HypervisorError(f"its saved memory cannot be read: {error.strerror}"))
    finally:
        os.close(writer)


def _open_writer(pipe: Path, over: threading.Event) -> int | None:
    """Once libvirt has opened the other end."""
    while not over.is_set():
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(LOOK_S / 10)
        else:
            os.set_blocking(writer, True)
            return writer
    return None


# ---------------------------------------------------------------- after a kill


def release(memory: Path) -> None:
    """Let a libvirt go on that waits at a pipe of an agent that was killed."""
    load, save = _load_pipe(memory), _save_pipe(memory)
    if load.is_fifo():
        with contextlib.suppress(OSError):
            os.close(os.open(load, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        load.unlink(missing_ok=True)
    if save.is_fifo():
        _release_save(memory, save)
        save.unlink(missing_ok=True)
    save.with_suffix(".second").unlink(missing_ok=True)


def _release_save(memory: Path, save: Path) -> None:
    """One whose data is all there may end as it would have; the reader goes away from any other."""
    over = threading.Event()
    timer = threading.Timer(RELEASE_S if is_whole(_new(memory)) else 0.0, over.set)
    timer.start()
    try:
        if _marked(save, over):
            adopt(memory)
    finally:
        timer.cancel()


def adopt(memory: Path) -> None:
    """Take the memory of a save that ended whole, of which libvirt says so, though nobody was there to see it."""
    new = _new(memory)
    if not memory.exists() and is_whole(new):
        new.replace(memory)
        fsync_directory(memory.parent)


def forget(memory: Path) -> None:
    """Remove what was saved, whole or not."""
    for path in (memory, _new(memory), _save_pipe(memory), _load_pipe(memory)):
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- files


def _new(memory: Path) -> Path:
    return memory.with_name(f"{memory.name}.new")


def _save_pipe(memory: Path) -> Path:
    return memory.with_name(f"{memory.name}.save")


def _load_pipe(memory: Path) -> Path:
    return memory.with_name(f"{memory.name}.load")


def _make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


def _open_reader(path: Path) -> int:
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader
