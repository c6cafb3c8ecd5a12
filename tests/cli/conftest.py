"""A client that talks to nobody: the JSON of a small site, and a record of what was asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vws.cli.main import cli
from vws.cli.session import Session

Json = dict[str, Any]

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0T5mJb3p0dHpYb1lQd2k3cGdLd2F6b0V5Y1ZyZUFz"


class Refused(Exception):
    """What the client raises for a problem that the service answered."""

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.problem = detail
        self.code = members.pop("code")
        self.field = members.pop("field", None)
        self.asked = members.pop("asked", None)
        self.possible = members.pop("possible", None)
        self.details = members


def workspace(number: int = 1, **changes: Any) -> Json:
    return {
        "id": f"wsp-{number}", "name": f"demo-{number}", "lease": "lse-1", "owner": "ada", "group": "",
        "state": "running", "reason": "", "step": "", "node": "nod-1", "node_name": "host-1",
        "addresses": [f"10.64.0.{number + 1}"],
        "hostname": f"demo-{number}", "image": "img-1", "user": "root", "cpus": 1,
        "cpus_defined": 1, "memory_mib": 160,
        "memory_defined_mib": 160, "disk_mib": 1024, "end": int(time.time()) + 7200, "host_key": HOST_KEY,
        "created_at": 1000.0, "changed_at": 1004.5, "running_at": 1004.5, "boots": 1, "exit_status": None,
    } | changes  # fmt: skip


def lease(*workspaces: Json, **changes: Any) -> Json:
    start = int(time.time())
    return {
        "id": "lse-1", "name": "demo", "owner": "ada", "kind": "immediate", "state": "active", "reason": "",
        "start": start, "end": start + 7200, "created_at": 1000.0, "active_at": 1005.25, "ended_at": None,
        "duration_s": 7200, "deadline": None, "urgent": False, "preemptible": False, "restartable": False,
        "command": "", "series": "", "submitted_at": 1000.0, "begun_at": 1005.25, "worked_s": 0, "suspensions": 0,
        "migrations": 0, "restarts": 0, "planned_start": None, "planned_end": None,
        "gives_way_at": None, "planned_nodes": [],
        "groups": [{"name": "", "image": "img-1", "image_name": "demo", "count": max(len(workspaces), 1), "cpus": 1,
                    "memory_mib": 160, "disk_mib": 1024, "requirement": "", "apart": False, "together": False,
                    "bandwidth_mbit": 0, "first": 1, "networks": [], "disks": []}],
        "workspaces": list(workspaces),
    } | changes  # fmt: skip


def node(**changes: Any) -> Json:
    return {
        "id": "nod-1", "name": "host-1", "state": "ready", "hypervisor": "tcg", "hypervisor_reason": "KVM is slow here",
        "capacity": {"cpus": 2, "cpu_ratio": 4.0, "memory_mib": 20480, "disk_mib": 102400, "bandwidth_mbit": 1000},
        "used": {"cpus": 3, "memory_mib": 480, "disk_mib": 3072}, "workspaces": 3, "subnet": "10.64.0.0/24",
        "heard_at": time.time() - 3, "generation": 7, "applied_generation": 7, "problem": "", "version": "0.1.0",
        "traits": {"arch": "x86_64", "accelerators": ["nvidia", "10de:2204"], "labels": [], "attributes": {}},
        "labels": ["gpu"], "attributes": {"rack": "r1", "gpus": 2},
        "maintenances": [{"id": "mnt-1", "state": "planned", "start": int(time.time()) + 7230,
                          "end": int(time.time()) + 10830, "reason": "new disks"}],
    } | changes  # fmt: skip


def image(**changes: Any) -> Json:
    return {
        "id": "img-1", "name": "demo", "owner": "admin", "sha256": "ab" * 32, "size_bytes": 14 * 1024**2,
        "boot": "direct", "user": "root", "ready": "ssh", "memory_mib_min": 96, "disk_mib_min": 8, "simulated": False,
        "created_at": 900.0, "removed_at": None, "retired_at": None, "damaged": "", "base": "", "shared": ["public"],
        "tags": ["demo"], "digest": "ef" * 32,
        "files": [{"role": "kernel", "format": "kernel", "size_bytes": 8 * 1024**2, "sha256": "cd" * 32}],
    } | changes  # fmt: skip


def maintenance(**changes: Any) -> Json:
    return {
        "id": "mnt-1", "node": "nod-1", "node_name": "host-1", "state": "planned", "start": 1_900_000_000,
        "end": 1_900_003_600, "reason": "new disks", "created_at": 900.0, "begun_at": None, "removed_at": None,
        "leases": ["demo", "train"],
    } | changes  # fmt: skip


def pool(**changes: Any) -> Json:
    return {
        "name": "campus", "range": "192.0.2.0/24", "gateway": "192.0.2.1", "default": True, "require": "", "size": 48,
        "free": 46, "held": 1, "reserved": 1, "reserved_max": 2,
    } | changes  # fmt: skip


def address(**changes: Any) -> Json:
    return {
        "id": "adr-1", "pool": "campus", "address": "192.0.2.17", "owner": "ada", "name": "www", "cluster": "",
        "cluster_name": "", "member": "", "created_at": 900.0, "released_at": None,
    } | changes  # fmt: skip


def usage(*rows: Json, **changes: Any) -> Json:
    amounts = {side: {"node_hours": 0.0, "cpu_hours": 0.0, "charge": 0.0} for side in ("reserved", "used")}
    return {
        "by": "user", "from": 1788213600.0, "to": 1788300000.5, "time": 1788300000.5, "time_zone": "Europe/Zurich",
        "unit": "credit", "events": 12, "rows": list(rows), "total": amounts,
    } | changes  # fmt: skip


def cache(**changes: Any) -> Json:
    def file(sha256: str, **said: Any) -> Json:
        return {
            "sha256": sha256 * 32, "state": "complete", "role": "disk", "size_bytes": 2 << 30, "disk_bytes": 1 << 30,
            "have_bytes": 2 << 30, "used_at": int(time.time()) - 7203, "altered_at": 0, "reason": "",
            "images": ["debian"], "used_by": ["demo-1"], "wanted": False,
        } | said  # fmt: skip

    idle = file(
        "cd",
        state="arriving",
        have_bytes=1 << 30,
        used_by=[],
        wanted=True,
        used_at=0,
        altered_at=int(time.time()) - 125,
    )
    return {
        "node": "nod-1", "node_name": "host-1", "limit_bytes": 20 << 30, "used_bytes": 2 << 30,
        "fetch_limit_mbit": 400.0, "reported_at": time.time(), "files": [file("ab"), idle], "tasks": [],
    } | changes  # fmt: skip


def cache_task(**changes: Any) -> Json:
    return {
        "id": "cac-1", "kind": "prefetch", "image": "img-1", "image_name": "debian", "files": ["ab" * 32, "cd" * 32],
        "by": "ada", "asked_at": 900.0, "state": "due", "ended_at": None, "reason": "", "freed_bytes": 0,
        "dropped": [], "kept": [],
    } | changes  # fmt: skip


class FakeClient:
    """Answers from what it was given; `asked` lists the calls that change something.

    lives: what `lease` answers, one after the other, the last for ever; the same for `states` of workspaces.
    """

    def __init__(self) -> None:
        self.unsigned = ""
        self.asked: list[tuple[Any, ...]] = []
        self.damaged = ""
        self.lives: list[Json] = [lease(workspace(1), workspace(2))]
        self.states: dict[str, list[str]] = {}
        self.fit: Json = {"fits": True, "reason": "all of it would start now", "nodes": [], "offers": []}
        self.told: Json = {"says": [], "place": None, "start": None, "nodes": [], "others": []}
        self.refusal: Exception | None = None
        self.log: list[Json] = []
        self.used: Json = usage()
        self.consoles: list[bytes] = [b"one\ntwo\nthree\n"]
        self.closed = False
        self.tasks: list[Json] = [cache_task(state="done")]

    def close(self) -> None:
        self.closed = True

    def _change(self, *what: Any) -> None:
        self.asked.append(what)
        if self.refusal:
            raise self.refusal

    def _known(self, items: list[Json], name: str, kind: str) -> Json:
        for item in items:
            if name in (item["id"], item["name"]):
                return item
        raise Refused(f"there is no {kind} {name!r}", code="not-found", field="id", asked=name)

    # leases
    def leases(self, **where: Any) -> Iterator[Json]:
        self.asked.append(("leases", where))
        return iter(self.lives[:1])

    def lease(self, id: str) -> Json:
        found = self._known(self.lives[:1], id, "lease")
        return self.lives.pop(0) if len(self.lives) > 1 else found

    def request_lease(self, **asked: Any) -> Json:
        self._change("request_lease", asked)
        return self.lives[0]

    def explain_request(self, **asked: Any) -> Json:
        self._change("explain_request", asked)
        return self.fit

    def explain_lease(self, id: str) -> Json:
        found = self.lives[0]
        members = [{"workspace": w["id"], "name": w["name"], "state": w["state"], "node": w["node"],
                    "reason": w["reason"], "step": w["step"]} for w in found["workspaces"]]  # fmt: skip
        return {
            "lease": id,
            "name": found["name"],
            "state": found["state"],
            "reason": found["reason"],
            "members": members,
            **self.told,
        }

    def extend_lease(self, id: str, duration_s: int) -> Json:
        self._change("extend_lease", id, duration_s)
        return self.lives[0] | {"end": self.lives[0]["end"] + duration_s}

    def resize_lease(self, id: str, **sizes: Any) -> Json:
        self._change("resize_lease", id, sizes)
        return self.lives[0]

    def cancel_lease(self, id: str) -> Json:
        self._change("cancel_lease", id)
        return self.lives[0] | {"state": "ending"}

    # workspaces
    def workspaces(self, **where: Any) -> Iterator[Json]:
        self.asked.append(("workspaces", where))
        return iter(self.lives[0]["workspaces"])

    def workspace(self, id: str) -> Json:
        found = self._known(self.lives[0]["workspaces"], id, "workspace")
        states = self.states.get(found["id"])
        if states:
            found["state"] = states.pop(0) if len(states) > 1 else states[0]
        return dict(found)

    def command(self, id: str, verb: str) -> Json:
        self._change("command", id, verb)
        return self.workspace(id)

    def console(self, id: str) -> bytes:
        return self.consoles.pop(0) if len(self.consoles) > 1 else self.consoles[0]

    # images, nodes, tokens, events
    def images(self, **where: Any) -> Iterator[Json]:
        return iter([i for i in [image()] if where.get("name") in (None, i["name"], f"{i['name']}:latest")])

    def image(self, id: str) -> Json:
        return self._known([image()], id, "image")

    def judge_image(self, id: str) -> Json:
        return {"allowed": not self.unsigned, "reason": self.unsigned, "possible": "an image signed by desy"}

    def upload_image(
        self, file: Any, name: str, *, shared: Any = None, format: str | None = None, encrypt: bool = False,
        passphrase: str | None = None, progress: Callable[[int], object] | None = None,
    ) -> Json:  # fmt: skip
        said = (format, shared, encrypt and "encrypt", passphrase)
        self._change("upload_image", file.name, name, *(x for x in said if x or x == ()))
        if progress:
            progress(file.stat().st_size)
        return image(name=name, tags=[name], encrypted=bool(encrypt or passphrase))

    def encrypt_image(self, id: str, name: str, *, shared: Any = None) -> Json:
        self._change("encrypt_image", id, name, *(x for x in (shared,) if x))
        return image(name=name, tags=[name], encrypted=True)

    def image_passphrase(self, id: str) -> str:
        self._change("image_passphrase", id)
        return "the image's passphrase"

    def remove_image(self, id: str, *, now: bool = False) -> Json:
        self._change("remove_image", id, now)
        return image(removed_at=900.0) if now else image(retired_at=900.0)

    def tag_image(self, id: str, name: str) -> Json:
        self._change("tag_image", id, name)
        return image(tags=["demo", name])

    def untag_image(self, name: str) -> Json:
        self._change("untag_image", name)
        return image(tags=[])

    def share_image(self, id: str, shared: Any) -> Json:
        self._change("share_image", id, tuple(shared))
        return image(shared=list(shared))

    def copy_image(self, id: str, name: str) -> Json:
        self._change("copy_image", id, name)
        return image(tags=[name])

    def image_history(self, name: str, **where: Any) -> Iterator[Json]:
        row = {"name": "demo", "tag": "latest", "image": "img-1", "owner": "admin", "set_at": 900.0, "removed_at": None}
        return iter([row, row | {"image": "img-0", "set_at": 800.0, "removed_at": 900.0}])

    def verify_image(self, id: str) -> Json:
        self._change("verify_image", id)
        return image(damaged=self.damaged)

    def image_documents(self, id: str) -> list[Json]:
        common = {"image": id, "media_type": "application/json", "size_bytes": 3, "added_at": 900.0, "by": "ada"}
        kinds = {"doc-1": "sbom", "doc-2": "attestation", "doc-3": "attestation"}
        return [common | {"id": key, "kind": kind, "sha256": "ab" * 32} for key, kind in kinds.items()]

    def image_document(self, id: str, document: str) -> bytes:
        return f"{document}\x1b[2J".encode()

    def remove_image_document(self, id: str, document: str) -> Json:
        self._change("remove_image_document", id, document)
        return next(each for each in self.image_documents(id) if each["id"] == document)

    def collect_images(self, *, dry_run: bool = False) -> Json:
        self._change("collect_images", dry_run)
        return {"images": [image(tags=[])], "files": ["cd" * 32]}

    def nodes(self) -> Iterator[Json]:
        return iter([node(), node(id="nod-2", name="host-2", state="silent")])

    def node(self, id: str) -> Json:
        return self._known(list(self.nodes()), id, "node")

    def caches(self) -> Iterator[Json]:
        return iter([cache(), cache(node="nod-2", node_name="host-2", files=[])])

    def cache(self, node: str) -> Json:
        task = self.tasks.pop(0) if len(self.tasks) > 1 else self.tasks[0]
        return cache(node_name=node, tasks=[task])

    def prefetch_image(self, node: str, image: str) -> Json:
        self._change("prefetch_image", node, image)
        return cache_task()

    def clear_cache(self, node: str, image: str | None) -> Json:
        self._change("clear_cache", node, image)
        return cache_task(kind="clear", image_name=image or "")

    def drain_node(self, id: str) -> Json:
        self._change("drain_node", id)
        return node(state="drained")

    def undrain_node(self, id: str) -> Json:
        self._change("undrain_node", id)
        return node()

    def label_node(self, id: str, **change: Any) -> Json:
        self._change("label_node", id, change)
        return node(labels=["gpu", *change["labels"]])

    def plan_maintenance(self, node: str, duration_s: int, reason: str, *, start: int | None) -> Json:
        self._change("plan_maintenance", node, duration_s, reason, start)
        return maintenance(start=start or 1000)

    def pools(self) -> list[Json]:
        return [pool(), pool(name="far", default=False, require='"far" in labels', free=0)]

    def reserve_address(self, name: str, **more: Any) -> Json:
        self._change("reserve_address", name, more)
        return address(name=name, owner=more["owner"] or "ada")

    def addresses(self, **where: Any) -> Iterator[Json]:
        self.asked.append(("addresses", where))
        return iter(
            [
                address(),
                address(
                    id="adr-2",
                    address="192.0.2.18",
                    name="",
                    cluster="cls-1",
                    cluster_name="shop",
                    member="front-1",
                    released_at=None if where.get("live") else 2000.0,
                ),
            ]
        )

    def release_address(self, id: str) -> Json:
        self._change("release_address", id)
        return address()

    def maintenances(self, **where: Any) -> Iterator[Json]:
        self.asked.append(("maintenances", where))
        return iter([maintenance(), maintenance(id="mnt-0", start=500, leases=[])])

    def remove_maintenance(self, id: str) -> Json:
        self._change("remove_maintenance", id)
        return maintenance(state="removed")

    def remove_node(self, id: str, *, force: bool) -> Json:
        self._change("remove_node", id, force)
        return node()

    def invite_node(self, lifetime_s: int) -> Json:
        self._change("invite_node", lifetime_s)
        return {"id": "tok-9", "token": "vws1.join.secret"}

    def rates(self) -> list[Json]:
        boot = {"step": "boot", "hypervisor": "tcg", "image": "img-1", "unit": "s", "count": 14}
        suspend = {"step": "suspend", "hypervisor": "", "image": "", "unit": "MiB/s", "count": 0}
        return [
            boot | {"configured": 20.0, "expected": 5.123, "promised": 24.0},
            suspend | {"configured": 50.0, "expected": 50.0, "promised": 41.667},
        ]

    def create_token(self, subject: str, role: str, lifetime_s: int | None) -> Json:
        self._change("create_token", subject, role, lifetime_s)
        return {"id": "tok-2", "token": "vws1.secret", "subject": subject, "role": role}

    def tokens(self) -> Iterator[Json]:
        return iter([{"id": "tok-1", "subject": "admin", "role": "admin", "created_at": 900.0, "expires_at": None,
                      "revoked_at": None}])  # fmt: skip

    def revoke_token(self, id: str) -> Json:
        self._change("revoke_token", id)
        return {"id": id}

    def usage(self, progress: Callable[[int, int], object] | None = None, **where: Any) -> Json:
        self._change("usage", where)
        return self.used

    def events(self, after: int | None = None, **where: Any) -> Iterator[Json]:
        self.asked.append(("events", after, where))
        return iter([event for event in self.log if event["seq"] > (after or 0)])

    def follow_events(self, after: int | None = None, **where: Any) -> Iterator[Json]:
        self.asked.append(("follow_events", after, where))
        return iter([] if after is None else [event for event in self.log if event["seq"] > after])


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A home and a site's directory of the test's own; nothing of the user's is read or written."""
    for name in ("VWS_DIR", "VWS_URL", "VWS_TOKEN", "VWS_CA", "XDG_CONFIG_HOME", "VWS_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("VWS_DIR", str(tmp_path / "site"))
    return tmp_path


@pytest.fixture
def vws(client: FakeClient, home: Any) -> Callable[..., Result]:
    """Run a command line in this process, against the fake client."""

    def run(*arguments: str, input: str | None = None) -> Result:
        session = Session(lambda _: client)
        result = CliRunner().invoke(cli, list(arguments), obj=session, input=input, prog_name="vws")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
