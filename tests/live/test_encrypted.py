"""An encrypted image on a real site: its secrets are looked for in every file of service, node and libvirt."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.live.sites import RealSite
from vws import processes
from vws.service.sealing import SiteKey

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

MARKER = "marker-in-the-guest-51423"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    made = RealSite(tmp_path_factory.mktemp("live") / "site")
    try:
        made.start()
        vws(made, "image", "encrypt", "demo", "--as", "sealed")
        yield made
    finally:
        made.stop()


@pytest.fixture
def workspace(site: RealSite) -> Iterator[str]:
    """A workspace of the encrypted image, with the marker on its disk and in its memory."""
    site.lease(1, "vault", group={"image": "sealed"})
    site.ssh("vault-1", f"echo {MARKER} > /data/file; echo {MARKER} > /run/file; sync")
    yield "vault-1"
    site.ask(lambda c: c.cancel_lease("vault"))
    site.until(lambda c: not list((site.directory.node / "workspaces").iterdir()), "gone")


def vws(site: RealSite, *arguments: str) -> Any:
    command = [sys.executable, "-m", "vws.cli.main", "--dir", str(site.directory.path), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + site.ask(site.story)
    return json.loads(done.stdout)


def passphrases(site: RealSite) -> dict[str, str]:
    """By the id of the image or workspace, as only who has the store and the site's key can know them."""
    key = SiteKey(site.directory.service / "secrets/image-key", lambda: True)
    with sqlite3.connect(site.directory.service / "site.db") as store:
        rows = store.execute("select of, file, sealed from sealed_keys").fetchall()
    return {of: key.open(sealed, f"{of} {file}") for of, file, sealed in rows}


def found(site: RealSite, *secrets: str) -> list[str]:
    """The files of the whole site, its node and libvirt's among them, that hold one of them in any spelling."""
    forms = [form for secret in secrets for form in _spelled(secret.encode())]
    files = [path for path in site.directory.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 20
    return [str(path) for path in files for data in [path.read_bytes()] if any(form in data for form in forms)]


def _spelled(raw: bytes) -> list[bytes]:
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw).rstrip(b"=")]


def secrets_in_libvirt(site: RealSite) -> list[str]:
    folder = os.open(site.directory.node / "libvirt/run/libvirt", os.O_PATH)
    try:
        api = libvirt.open(f"qemu+unix:///system?socket=/proc/self/fd/{folder}/libvirt-sock")
        try:
            return [secret.usageID() for secret in api.listAllSecrets()]
        finally:
            api.close()
    finally:
        os.close(folder)


def test_nothing_of_it_is_found_on_any_disk_while_it_runs_and_while_it_is_suspended(
    site: RealSite, workspace: str
) -> None:
    kept = passphrases(site)
    assert len(set(kept.values())) == 2, "the image's and the workspace's own"
    assert found(site, *kept.values(), MARKER) == []
    site.ask(lambda c: c.command(workspace, "suspend"))
    site.until(lambda c: c.workspace(workspace)["state"] == "suspended", "suspended")
    assert found(site, *kept.values(), MARKER) == []
    assert secrets_in_libvirt(site) == []
    site.ask(lambda c: c.command(workspace, "restore"))
    site.until(lambda c: c.workspace(workspace)["state"] == "running", "running again")
    assert site.ssh(workspace, "cat /data/file /run/file").split() == [MARKER] * 2
    assert found(site, *kept.values(), MARKER) == []
    assert secrets_in_libvirt(site) == []
    told = [e for e in site.ask(lambda c: list(c.events())) if e["kind"] == "image.key-given"]
    assert len(told) == 4, "to make it, start it, suspend it and restore it"
    assert {e["workspace"] for e in told} == {site.ask(lambda c: c.workspace(workspace))["id"]}


def test_an_agent_killed_between_the_memory_and_its_mark_loses_no_guest(
    site: RealSite, workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed_at(site, "agent.sealed.memory", monkeypatch)
    site.ask(lambda c: c.command(workspace, "suspend"))
    _until_alive_again(site)
    site.until(lambda c: c.workspace(workspace)["state"] == "suspended", "suspended")
    assert found(site, MARKER) == []
    site.ask(lambda c: c.command(workspace, "restore"))
    site.until(lambda c: c.workspace(workspace)["state"] == "running", "running again")
    assert site.ssh(workspace, "cat /run/file") == MARKER, "its memory is what it was"


@pytest.mark.soak
def test_an_agent_killed_with_its_secrets_in_libvirt_leaves_none(
    site: RealSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed_at(site, "agent.sealed.secrets", monkeypatch)
    asked = {"image": "sealed", "cpus": 1, "memory_mib": 128, "disk_mib": 128, "count": 1}
    site.ask(lambda c: c.request_lease([asked], 600, "spare", []))
    _until_alive_again(site)
    site.until(lambda c: c.lease("spare")["state"] == "active", "active")
    assert secrets_in_libvirt(site) == []
    owners = {*passphrases(site)}
    site.ask(lambda c: c.cancel_lease("spare"))
    site.until(lambda c: not list((site.directory.node / "workspaces").iterdir()), "gone")
    gone = {id for id in owners if id.startswith("wsp-")}
    assert gone
    site.until(lambda c: not gone & {*passphrases(site)}, "its key forgotten")


def _killed_at(site: RealSite, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = processes.running(site.directory, "agent")
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_gone(site.directory, "agent", 5)
    monkeypatch.setenv("VWS_FAULT", point)
    monkeypatch.setenv("VWS_FAULT_ONCE", str(once(site)))
    once(site).unlink(missing_ok=True)
    site.start()


def _until_alive_again(site: RealSite) -> None:
    def died(_: Any) -> bool:
        return once(site).exists() and not processes.running(site.directory, "agent")

    site.until(died, "killed")
    site.start()


def once(site: RealSite) -> Path:
    return site.directory.path / "died"
