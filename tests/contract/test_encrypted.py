"""Encrypted workspaces, on a simulated node and on a real one: nothing of them lies in the clear, at any time."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.hypervisors import LibvirtSite, Site, in_loop, seen, until, until_up
from vws.core.deployment import DiskOrder, FileKey, WorkspaceKeys, WorkspaceOrder
from vws.core.lifecycle import Observation as O
from vws.core.luks import LUKS_OPTIONS, SECRET_ID
from vws.core.site import ImageFile
from vws.ports import Hypervisor, HypervisorError

IMAGE_KEY, OWN_KEY = "image-passphrase-48151623", "own-passphrase-42108642"
MARKER = "marker-of-the-guest-7319"


def ignore(text: str) -> None: ...


def encrypted_files(site: Site) -> tuple[ImageFile, ...]:
    """The site's appliance with its disk encrypted."""
    folder = site.appliance.folder
    target = folder / "encrypted.qcow2"
    if not target.exists():
        source = next(folder.glob("disk.qcow2"), None)
        if source is None:
            target.write_bytes(b"a disk of sorts")
        else:
            encrypt(source, target)
    others = tuple(file for file in site.appliance.files if file.role != "disk")
    data = target.read_bytes()
    disk = ImageFile("disk", hashlib.sha256(data).hexdigest(), len(data), "qcow2", encryption="luks")
    return (*others, disk)


def encrypt(source: Path, target: Path) -> None:
    command = [
        "qemu-img",
        "convert",
        "--object",
        f"secret,id={SECRET_ID},file=/dev/stdin",
        "-f",
        "qcow2",
        "-O",
        "qcow2",
    ]
    for _ in range(20):
        done = subprocess.run(
            [*command, "-o", LUKS_OPTIONS, source, target], input=IMAGE_KEY.encode(), check=False, capture_output=True
        )
        if not done.returncode:
            return
    raise AssertionError(done.stderr)


def keys_of(order: WorkspaceOrder) -> WorkspaceKeys:
    files = (FileKey(file.sha256, IMAGE_KEY) for file in order.files if file.encryption)
    return WorkspaceKeys(OWN_KEY, tuple(files))


def spelled(secret: str) -> Iterator[bytes]:
    """As it might have been written somewhere."""
    raw = secret.encode()
    yield from (raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw).rstrip(b"="))


def found_in(folder: Path, *secrets: str) -> list[str]:
    """Files below that hold one of them."""
    wanted = [(secret, form) for secret in secrets for form in spelled(secret)]
    return [
        f"{secret} in {path}"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for data in [path.read_bytes()]
        for secret, form in wanted
        if form in data
    ]


def secrets_of(hypervisor: Hypervisor) -> list[str]:
    api: Any = hypervisor._api()  # type: ignore[attr-defined]
    return [secret.usageID() for secret in api.listAllSecrets()]


@in_loop
async def test_without_its_keys_nothing_of_it_is_done(site: Site) -> None:
    order = site.order("wsp-1", files=encrypted_files(site))
    async with site.opened() as hypervisor:
        with pytest.raises(HypervisorError, match="not given its key"):
            await hypervisor.create(order, site.appliance.fetch, ignore)
        await hypervisor.create(order, site.appliance.fetch, ignore, keys_of(order))
        with pytest.raises(HypervisorError, match="not given its key"):
            await hypervisor.start(order)
        with pytest.raises(HypervisorError, match="no key for the image's disk"):
            await hypervisor.start(order, WorkspaceKeys(OWN_KEY))
        assert (await until(hypervisor, order.id, O.STOPPED)).boots in (0, 1)
        await hypervisor.remove(order.id)


@pytest.mark.soak_live
@in_loop
async def test_it_lives_suspends_and_goes_on_and_nothing_lies_in_the_clear(site: Site) -> None:
    disks = (DiskOrder("swapped", 64, filesystem="swap"), DiskOrder("scratch", 64))
    order = site.order("wsp-1", files=encrypted_files(site), disks=disks)
    keys = keys_of(order)
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore, keys)
        await hypervisor.start(order, keys)
        await until_up(hypervisor, order)
        if site.real:
            assert isinstance(site, LibvirtSite)
            await site.run(order, f"echo {MARKER} > /data/file; echo {MARKER} > /run/file; sync")
            await site.run(order, f"d=$(ls /dev/vd?|tail -1); echo {MARKER} > $d; sync")
        with pytest.raises(HypervisorError, match="not given its key"):
            await hypervisor.suspend(order.id)
        await hypervisor.suspend(order.id, keys)
        assert (await until(hypervisor, order.id, O.SUSPENDED)).boots == 1
        if site.real:
            _nothing_in_the_clear(site, hypervisor)
    async with site.opened() as hypervisor:  # another agent
        assert (await until(hypervisor, order.id, O.SUSPENDED)).boots == 1
        with pytest.raises(HypervisorError, match="not given its key"):
            await hypervisor.restore(order)
        await hypervisor.restore(order, keys)
        await until(hypervisor, order.id, O.RUNNING)
        await until_up(hypervisor, order)
        if site.real:
            assert (await site.run(order, "cat /data/file /run/file")).split() == [MARKER] * 2  # type: ignore[attr-defined]
            _nothing_in_the_clear(site, hypervisor)
        await hypervisor.stop(order.id, grace_s=0)
        await hypervisor.start(replace(order, boots=2), keys)
        await until_up(hypervisor, order)
        if site.real:
            assert (await site.run(order, "cat /data/file")).strip() == MARKER  # type: ignore[attr-defined]
        await hypervisor.remove(order.id)
        if site.real:
            _nothing_in_the_clear(site, hypervisor)


def _nothing_in_the_clear(site: Site, hypervisor: Hypervisor) -> None:
    assert isinstance(site, LibvirtSite)
    assert found_in(site.directory, IMAGE_KEY, OWN_KEY, MARKER) == []
    assert secrets_of(hypervisor) == []


@pytest.mark.live
@in_loop
async def test_a_saved_memory_that_was_altered_is_not_restored(libvirt_site: LibvirtSite) -> None:
    site = libvirt_site
    order = site.order("wsp-1", files=encrypted_files(site))
    keys = keys_of(order)
    async with site.opened() as hypervisor:
        await hypervisor.create(order, site.appliance.fetch, ignore, keys)
        await hypervisor.start(order, keys)
        await until(hypervisor, order.id, O.RUNNING)
        await hypervisor.suspend(order.id, keys)
        memory = site.directory / "workspaces" / order.id / "memory"
        whole = memory.read_bytes()
        middle = len(whole) // 2
        memory.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(HypervisorError, match="not as it was saved") as raised:
            await hypervisor.restore(order, keys)
        assert raised.value.final
        memory.write_bytes(whole)
        with pytest.raises(HypervisorError, match="not as it was saved"):
            await hypervisor.restore(order, replace(keys, own="another"))
        assert (await seen(hypervisor, order.id)).state is O.SUSPENDED  # type: ignore[union-attr]
        await hypervisor.restore(order, keys)
        await until(hypervisor, order.id, O.RUNNING)
        assert not any(path.is_fifo() for path in memory.parent.iterdir())
        await hypervisor.remove(order.id)
