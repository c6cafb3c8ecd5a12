"""What an agent tells of the image that a workspace waits for."""

from __future__ import annotations

from dataclasses import replace

from tests.node.test_seed import WORKSPACE
from vws.core.site import ImageFile
from vws.node.workspaces import _share

KERNEL, INITRD, DISK = (ImageFile(role, mark * 64, size, role) for role, mark, size in
                        (("kernel", "a", 5), ("initrd", "b", 15), ("disk", "c", 80)))  # fmt: skip


def test_how_far_an_image_is_runs_forward_over_all_its_files() -> None:
    order = replace(WORKSPACE, files=(KERNEL, INITRD, DISK, DISK))
    assert [_share(order, file.sha256) for file in (KERNEL, INITRD, DISK)] == [(0, 100), (5, 100), (20, 100)]
