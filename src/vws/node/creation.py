"""What a workspace needs before it can boot: disks, the NoCloud disk, addresses; made so that a kill leaves no half.

Each file is made under another name, synced and renamed, and what is there
already is kept: a creation that was cut off is simply run again.
"""

from __future__ import annotations

import os
from dataclasses import replace

from vws.core.deployment import WorkspaceKeys, WorkspaceOrder
from vws.faultpoints import reach
from vws.node.commands import Commands
from vws.node.disk_keys import own_passphrase
from vws.node.disks import hand_over, make_blank, make_disk, make_overlay
from vws.node.images import ImageCache
from vws.node.networks import Networks
from vws.node.records import Record, Records
from vws.node.seed import new_keys, seed_iso


class Creation:
    """All of it blocks."""

    def __init__(self, records: Records, images: ImageCache, networks: Networks) -> None:
        self._records = records
        self._images = images
        self._networks = networks
        self._commands = Commands()

    def begin(self, order: WorkspaceOrder) -> None:
        """Note whose the folder is, its end, and the images that it will need."""
        record = self._record(order.id)
        images = tuple(file.sha256 for file in order.all_files)
        disks = tuple(disk.name for disk in order.disks)
        begun = replace(
            record, end=order.end, images=images, disks=disks, command=bool(order.command), encrypted=order.encrypted
        )
        self._records.write(begun, durable=False)

    def finish(self, order: WorkspaceOrder, keys: WorkspaceKeys | None = None) -> None:
        """The rest, once the image's files are in the cache."""
        passphrase = own_passphrase(order.encrypted, keys)
        if not self._records.disk(order.id).exists():
            self._make_root(order, passphrase)
        reach("agent.overlay.made")
        for disk in order.disks:
            if not disk.shared:
                path = self._records.beside(order.id, disk.name, private=disk.private)
                make_disk(self._commands, path, disk, self._images.directory, passphrase)
        reach("agent.disks.made")
        if not self._records.seed(order.id).exists():
            self._make_seed(order)
        reach("agent.seed.made")
        self._networks.enter(order)
        reach("agent.address.entered")
        self._records.write(replace(self._record(order.id), end=order.end, created=True))

    def _record(self, id: str) -> Record:
        return self._records.read(id) or Record(id)

    def _make_root(self, order: WorkspaceOrder, passphrase: str) -> None:
        disk = self._records.disk(order.id)
        new = disk.with_name("disk.new")
        base = next((file for file in order.files if file.role == "disk"), None)
        if base is None:
            make_blank(self._commands, new, order.disk_mib, passphrase)
        else:
            make_overlay(self._commands, new, self._images.path(base.sha256), base, order.disk_mib, passphrase)
        hand_over(new, disk)

    def _make_seed(self, order: WorkspaceOrder) -> None:
        """The key is on record before the disk that holds it is in place: who finds a disk finds its key."""
        host, user = new_keys(), new_keys() if order.context else None
        self._records.write(replace(self._record(order.id), host_key=host[1]), durable=False)
        seed = self._records.seed(order.id)
        new = seed.with_name("seed.new")
        with open(new, "wb", opener=_private) as file:
            file.write(seed_iso(order, host, user))
        hand_over(new, seed)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
