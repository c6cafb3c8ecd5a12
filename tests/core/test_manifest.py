"""What a signature binds: everything that decides what boots, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from vws.core.disks import Disk
from vws.core.manifest import digest, manifest
from vws.core.site import Image, ImageFile

KERNEL = ImageFile("kernel", "ab" * 32, 8 << 20, "kernel")
DISK = ImageFile("disk", "cd" * 32, 1 << 33, "qcow2", 2048)
IMAGE = Image("img-000001", "debian", "ann", "ef" * 32, 5 << 30, "direct", (KERNEL, DISK), cmdline="quiet é")


def test_the_manifest_is_these_bytes_on_every_site_and_version():
    assert manifest(IMAGE).decode() == (
        '{"boot":"direct","cmdline":"quiet é","files":['
        f'{{"base":"","format":"qcow2","role":"disk","sha256":"{"cd" * 32}","size_bytes":8589934592,'
        '"virtual_size_mib":2048},'
        f'{{"base":"","format":"kernel","role":"kernel","sha256":"{"ab" * 32}","size_bytes":8388608,'
        '"virtual_size_mib":0}],"format":"vws-manifest/1","ready":"ssh","user":"root"}'
    )
    assert digest(IMAGE) == hashlib.sha256(manifest(IMAGE)).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"boot": "disk"},
        {"cmdline": "quiet"},
        {"user": "debian"},
        {"ready": "boot"},
        {"files": (KERNEL,)},
        {"files": (KERNEL, replace(DISK, sha256="ce" * 32))},
        {"files": (KERNEL, replace(DISK, format="raw"))},
        {"files": (KERNEL, replace(DISK, role="initrd"))},
        {"files": (KERNEL, replace(DISK, base="ee" * 32))},
        {"files": (KERNEL, replace(DISK, size_bytes=1))},
        {"files": (KERNEL, replace(DISK, virtual_size_mib=1))},
        {"beside": (Disk("data", 1, mount="/etc"),)},
    ],
)
def test_whatever_changes_what_runs_changes_the_digest(change):
    assert digest(replace(IMAGE, **change)) != digest(IMAGE)


def test_a_copy_elsewhere_has_the_same_digest():
    copy = replace(IMAGE, id="img-000009", name="mine", owner="bob", shared=("public",), files=(DISK, KERNEL))
    assert digest(copy) == digest(IMAGE)


def test_what_could_split_a_string_in_two_does_not_make_two_images_alike():
    sly = replace(IMAGE, cmdline='quiet","user":"eve')
    assert json.loads(manifest(sly))["cmdline"] == 'quiet","user":"eve'
    assert digest(sly) != digest(replace(IMAGE, cmdline="quiet", user="eve"))
