"""A small disk of one's own that can be filled: `python -m tests.faults.full_disk FOLDER`, which tells of each step.

Mounted in a mount namespace of this process (the test runs it by `unshare --mount`), so that nothing is left of it
whatever happens. The site is on it with all it keeps. Its reserves are taken away, so that what fails is the disk and
no look at how much is free. Each step fills the disk where it hurts, and looks at what was said, what was kept, whether
half an image is listed, and whether it goes on once there is room.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.conftest import ADMIN, ANN, Rig
from tests.service.disk_images import disk, same_content
from tests.service.test_image_check import FILES, bundle
from vws.core.errors import Unavailable
from vws.service import conversion, converted, image_lists, images, uploads
from vws.service.site import Settings
from vws.service.uploads import SparseFile
from vws.store.sql import SqlStore

SIZE_MIB = 48
MIB = 1 << 20


class Small:
    """The disk, the site on it, and files beside it."""

    def __init__(self, place: Path, beside: Path, patch: pytest.MonkeyPatch) -> None:
        for folder in (place, beside):
            folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "none", str(place)], check=True)
        self.place, self.beside, self.patch = place, beside, patch
        self.filler = place / "filler"
        store = SqlStore.open(f"sqlite:///{place / 'site.db'}")
        self.rig = Rig(store, place, Settings())
        self.rig.enroll("n1")

    def fill(self) -> None:
        with self.filler.open("ab", buffering=0) as file:
            for size in (MIB, 4096):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass

    def free(self) -> None:
        self.filler.unlink()

    @contextmanager
    def full_at(self, module, point: str):
        """Filled when this point is reached."""
        with self.patch.context() as patch:
            patch.setattr(module, "reach", lambda name: self.fill() if name == point else None)
            yield

    # ------------------------------------------------------------ what is looked at

    def nothing_came(self, *names: str) -> None:
        images = self.rig.services.images
        assert {image.name for image in self.rig.site.present.images.values()} == {"demo", *names}
        kept = {file.sha256 for name in names for file in images.image(ADMIN, name).files}
        assert set(images.files.blobs.all()) == kept
        left = [path.name for path in images._uploads.glob("*") if not (path / "session.json").exists()]
        assert left == [], "nothing half done is left"

    def session(self, content: bytes, name: str = "new"):
        upload = self.rig.services.uploads.begin(ANN, name, len(content))
        with self.rig.services.uploads.receiving(ANN, upload.id, 0) as file:
            file.write(content)
        return upload

    def complete(self, upload):
        return self.rig.services.uploads.complete(ANN, upload.id, "")

    def completed_with_room(self, upload, name: str = "new") -> None:
        """What came had been kept, and is enough."""
        self.free()
        image = self.complete(upload)
        images = self.rig.services.images
        assert images.image(ANN, name).id == image.id
        assert images.verify(ANN, name).damaged == ""
        self.nothing_came(name)


def raw(size: int = 2 * MIB) -> bytes:
    return b"\1" * 510 + b"\x55\xaa" + b"\2" * (size - 512)


def refused(ask, said: str) -> None:
    with pytest.raises(Unavailable, match=said) as caught:
        ask()
    assert caught.value.possible, "what to do is said"


# ---------------------------------------------------------------- steps


def begin(small: Small) -> None:
    small.fill()
    refused(lambda: small.rig.services.uploads.begin(ANN, "new", MIB), "cannot begin the upload: No space left|no room")
    small.nothing_came()
    small.free()
    assert small.rig.services.uploads._all() == []
    small.filler.touch()
    small.completed_with_room(small.session(raw()))


def receive(small: Small) -> None:
    """The look at how much is free came too early."""
    content = raw(30 * MIB)
    upload = small.rig.services.uploads.begin(ANN, "new", len(content))
    small.patch.setattr(uploads, "check_room", lambda *_, **__: None)
    small.filler.write_bytes(bytes(25 * MIB))

    def send(begin: int) -> None:
        with small.rig.services.uploads.receiving(ANN, upload.id, begin) as file:
            for at in range(begin, len(content), MIB):
                file.write(content[at : at + MIB])

    refused(lambda: send(0), "cannot keep the file: No space left")
    came = small.rig.services.uploads.upload(ANN, upload.id).offset
    assert 0 < came < len(content), "what came is kept"
    small.rig.restart()
    assert small.rig.services.uploads.upload(ANN, upload.id).offset >= came
    small.filler.unlink()
    send(small.rig.services.uploads.upload(ANN, upload.id).offset)
    small.filler.touch()
    small.completed_with_room(upload)


def unpack(small: Small) -> None:
    files = FILES | {"initrd": b"i" * 8 * MIB}
    upload = small.session(bundle(small.beside / "bundle", files).read_bytes())
    small.fill()
    refused(lambda: small.complete(upload), "cannot unpack the image: No space left")
    small.nothing_came()
    small.completed_with_room(upload)


def convert(small: Small) -> None:
    upload = small.session(disk(small.beside / "disk.vmdk", "vmdk").read_bytes())
    small.patch.setattr(conversion, "room_for", lambda target: 1 << 40)  # it was free a moment ago
    small.fill()
    refused(lambda: small.complete(upload), "no room to unpack this image; nothing was changed")
    small.nothing_came()
    small.completed_with_room(upload)


def commit(small: Small) -> None:
    upload = small.session(raw())
    with small.full_at(images, "service.image.adopted"):
        refused(lambda: small.complete(upload), "could not be written: .*(full|disk I/O)")
    small.nothing_came()
    small.completed_with_room(upload)


def tag(small: Small) -> None:
    small.complete(small.session(raw()))
    small.fill()
    taken = []

    def tag_on() -> None:  # the first few fit into what SQLite has already
        for number in range(1000):
            small.rig.services.images.tag(ANN, "new", f"new:{number}")
            taken.append(number)

    refused(tag_on, "could not be written: .*(full|disk I/O)")
    small.nothing_came("new")
    there = {row.tag for row in small.rig.site.present.tags_of(small.rig.services.images.image(ANN, "new").id)}
    assert there == {"latest", *map(str, taken)}, "what is remembered is what is on the disk"
    small.free()
    small.rig.restart()
    assert {row.tag for row in small.rig.site.present.tags_of(small.rig.services.images.image(ANN, "new").id)} == there
    small.rig.services.images.tag(ANN, "new", "new:after")


def export(small: Small) -> None:
    small.complete(small.session(disk(small.beside / "disk.qcow2", "qcow2").read_bytes()))
    exports = small.rig.services.exports
    small.patch.setattr(conversion, "room_for", lambda target: 1 << 40)
    small.fill()
    refused(lambda: exports.export(ANN, "new", "raw"), "no room")
    assert list((small.place / "exports").iterdir()) == []
    small.free()
    made = exports.export(ANN, "new", "vmdk")
    (small.beside / "out").write_bytes(b"".join(made.read(0)))
    assert same_content(small.beside / "disk.qcow2", "qcow2", small.beside / "out", "vmdk")


def save(small: Small) -> None:
    """What a node brings of a workspace."""
    path = small.place / "saves" / "sav-1"
    path.parent.mkdir()
    small.patch.setattr(uploads, "check_room", lambda *_, **__: None)
    file, content = SparseFile(path, 1 << 40), raw(4 * MIB)
    file.write(content[:MIB])
    small.fill()
    refused(lambda: file.write(content[MIB:]), "cannot keep the file: No space left")
    small.free()
    again = SparseFile(path, 1 << 40)
    assert again.position >= MIB
    again.write(content[again.position :])
    assert path.read_bytes() == content


def fetch(small: Small) -> None:
    """Of an image of a list, from another site's server."""
    import httpx

    def give(request):
        return httpx.Response(200, content=iter([raw(8 * MIB)]))

    client = httpx.Client
    small.patch.setattr(httpx, "Client", lambda **more: client(transport=httpx.MockTransport(give)))
    small.fill()
    target = small.rig.services.images.begin()
    refused(lambda: image_lists._download("https://elsewhere/disk", target, 1 << 40), "cannot keep the file: No space")
    target.unlink()
    small.free()
    assert image_lists._download("https://elsewhere/disk", target, 1 << 40)


STEPS = {each.__name__: each for each in (begin, receive, unpack, convert, commit, tag, export, save, fetch)}


def told_of(step: str, folder: Path) -> str:
    """What went wrong; "": nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (uploads, "DISK_RESERVE_BYTES"),
            (conversion, "RESERVE_BYTES"),
            (converted, "SHORT_BYTES"),
        ):
            patch.setattr(module, name, 0)
        try:
            STEPS[step](Small(folder / step, folder / f"beside-{step}", patch))
        except BaseException:
            return traceback.format_exc()
        finally:
            subprocess.run(["umount", "--lazy", str(folder / step)], check=True)
    return ""


if __name__ == "__main__":
    print(json.dumps({step: told_of(step, Path(sys.argv[1])) for step in STEPS}))
