"""Whole sites with real nodes for the live tests: real processes, real guests, everything gone at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vws import processes, supervisor
from vws.client import Client
from vws.config import SiteDirectory
from vws.joined import join_node
from vws.node.naming import tag_of

Json = dict[str, Any]
GROUP = {"image": "demo", "cpus": 1, "memory_mib": 128, "disk_mib": 128}


class RealSite:
    """A site in `path`, this host its node; `settings` go into [service] of its site.toml, `node` into [node]."""

    def __init__(self, path: Path, node: str = "", **settings: float) -> None:
        supervisor.init_site(path)
        self.directory = SiteDirectory(path)
        text = self.directory.config.read_text()
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        text = text.replace("[service]\n", f"[service]\n{lines}").replace("[node]\n", f"[node]\n{node}\n")
        self.directory.config.write_text(text)
        self.said: list[str] = []
        self.others: list[SiteDirectory] = []

    def start(self) -> None:
        supervisor.start_site(self.directory.path, detach=True, say=self.said.append)

    def join(self, path: Path, name: str) -> SiteDirectory:
        """Another node on this machine, in namespaces of its own, by a one-time join token."""
        with self.client() as client:
            word = client.invite_node()["token"]
        join_node(path, word, name=name, detach=True, say=self.said.append)
        self.others.append(SiteDirectory(path))
        return self.others[-1]

    def client(self) -> Client:
        return Client.from_dir(self.directory.path)

    def ask(self, what: Callable[[Client], Any]) -> Any:
        with self.client() as client:
            return what(client)

    def until(self, so: Callable[[Client], bool], what: str, within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        with self.client() as client:
            while not so(client):
                assert time.monotonic() < deadline, f"not {what} within {within_s} s\n{self.story(client)}"
                time.sleep(0.1)

    def story(self, client: Client) -> str:
        events = [f"{e['at']:.2f} {e['actor']} {e['kind']} {e['data']}" for e in client.events()]
        logs = [self.directory.log_file(p).read_text()[-2000:] for p in ("service", "agent")]
        return "\n".join([*self.said[-10:], *events[-30:], *logs])

    def lease(self, count: int, name: str, **terms: Any) -> Json:
        """A lease that is active; its ssh key is the site's own. group: what it has other than GROUP."""
        from vws.cli.keys import operator_key
        from vws.cli.session import Session

        session = Session()
        session.explicit_directory = self.directory.path
        public = operator_key(session).with_suffix(".pub").read_text()
        group = GROUP | {"count": count} | terms.pop("group", {})
        lease = self.ask(lambda c: c.request_lease([group], terms.pop("duration_s", 600), name, [public], **terms))
        self.until(lambda c: c.lease(lease["id"])["state"] == "active", f"{name} active")
        return dict(self.ask(lambda c: c.lease(lease["id"])))

    def ssh(self, workspace: str, command: str) -> str:
        """The output of a command in a guest, by `vws ssh` as a user types it."""
        vws = [sys.executable, "-m", "vws.cli.main", "--dir", str(self.directory.path)]
        try:
            done = subprocess.run(
                [*vws, "ssh", "-v", workspace, "--", command], capture_output=True, text=True, timeout=60
            )
        except subprocess.TimeoutExpired as late:
            logs = [self.directory.log_file(p).read_text()[-3000:] for p in ("service", "agent")]
            raise AssertionError("\n".join(["ssh hangs", str(late.stderr), *logs])) from None
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def check_nothing_is_left(self, count: int) -> None:
        """Of all workspaces that there ever were, which are so many."""
        with self.client() as client:
            ids = [event["workspace"] for event in client.events() if event["kind"] == "workspace.planned"]
        assert len(ids) == count
        assert not any(qemus(id) for id in ids)
        node = self.directory.node
        assert not list((node / "workspaces").iterdir())
        assert not [path for path in (node / "network").rglob("*") if path.is_file() and "wsp-" in path.name]
        assert not list(Path("/run/netns").glob(f"vws-{tag_of(node)}-*")), "the rooms of its networks"

    def kill(self) -> None:
        """Service and agents, without a last word."""
        for directory in (self.directory, *self.others):
            for process in ("service", "agent"):
                pid = processes.running(directory, process)
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    processes.wait_gone(directory, process, 5)

    def stop(self) -> None:
        """End everything, also after a test that failed half way."""
        self.kill()
        for directory in (self.directory, *self.others):
            wipe(directory)


class Shell:
    """`vws` as a user types it who has one cluster."""

    def __init__(self, site: RealSite, cluster: str) -> None:
        self.cluster = cluster
        self._command = [sys.executable, "-m", "vws.cli.main", "--dir", str(site.directory.path)]
        self._site = site

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            with self._site.client() as client:
                raise AssertionError(f"vws {arguments}: {done.stderr}\n{self._site.story(client)}")
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def inside(self, member: str, command: str) -> list[str]:
        return self("cluster", "ssh", self.cluster, member, "--", command).splitlines()

    def log(self, member: str, hook: str) -> str:
        logs = self.ask("cluster", "log", self.cluster, member)
        return "".join(each["log"] for each in logs if each["hook"] == hook)


def wipe(directory: SiteDirectory) -> None:
    """Remove a node's workspaces and namespaces by its own hypervisor, whatever state a test left it in."""
    import asyncio

    from vws.config import load
    from vws.node.libvirt import LibvirtHypervisor
    from vws.ports import HypervisorError

    async def remove_all() -> None:
        hypervisor = LibvirtHypervisor(directory.node, "nod-0", load(directory).node)
        await hypervisor.open(None)
        for instance in await hypervisor.instances():
            await hypervisor.remove(instance.id)
        await hypervisor.close(tear_down=True)

    try:
        asyncio.run(remove_all())
    except HypervisorError as error:
        raise AssertionError(f"{directory.path} could not be wiped: {error.reason}") from None


def qemus(workspace: str) -> list[int]:
    """The pids of the QEMU processes that run a workspace: its domain's name is an argument of theirs."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                words = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if b"qemu-system" in words and f"guest=vws-{workspace}".encode() in words:
                found.append(int(place.name))
    return found
