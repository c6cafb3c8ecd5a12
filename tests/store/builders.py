"""Whole values for the store, told apart by a number; what a test is about is given by name."""

from __future__ import annotations

from typing import Any

from vws.core.lifecycle import Desired, State
from vws.core.site import (
    Address,
    Answer,
    Capacity,
    Changes,
    Event,
    Group,
    Image,
    ImageFile,
    Lease,
    LeaseKind,
    LeaseState,
    Maintenance,
    Node,
    Revocation,
    Role,
    Signer,
    Token,
    Workspace,
)

NOW = 1_800_000_000.25


def image(number: int = 1, **fields: Any) -> Image:
    files = (ImageFile("kernel", "ab" * 32, 8 << 20, "kernel"), ImageFile("disk", "cd" * 32, 1 << 33, "qcow2", 2048))
    given = {"name": f"image-{number}", "owner": "ann", "sha256": "ef" * 32, "size_bytes": 5 << 30, "boot": "direct"}
    return Image(f"img-{number:06d}", **{**given, "files": files, "created_at": NOW, **fields})


def node(number: int = 1, **fields: Any) -> Node:
    given = {"name": f"node-{number}", "subnet": f"10.64.{number}.0/24", "joined_at": NOW}
    return Node(f"nod-{number:06d}", **{**given, "capacity": Capacity(8, 16384, 200_000, 1.5, 64), **fields})


def lease(number: int = 1, **fields: Any) -> Lease:
    given = {"name": f"lease-{number}", "owner": "ann", "kind": LeaseKind.IMMEDIATE, "state": LeaseState.PENDING}
    times = {"start": 1_800_000_000, "end": 5_000_000_000, "duration_s": 3_200_000_000}
    times |= {"created_at": NOW, "submitted_at": NOW}
    nested = {"groups": (Group("all", "img-000001", "image-1", 3, 1, 160, 1024),), "ssh_keys": ("ssh-ed25519 AAAA é",)}
    return Lease(f"lse-{number:06d}", **{**given, **times, **nested, **fields})


def workspace(number: int = 1, **fields: Any) -> Workspace:
    place = {"lease": "lse-000001", "node": "nod-000001", "image": "img-000001", "group": "all", "number": number}
    given = {"name": f"lease-1-{number}", "owner": "ann", "state": State.PLANNED, "desired": Desired.RUN}
    net = {"address": f"10.64.{number // 250}.{number % 250 + 2}", "mac": "52:54:00:00:00:01"}
    size = {"cpus": 1, "memory_mib": 160, "disk_mib": 1024, "cpus_defined": 1, "memory_defined_mib": 256}
    times = {"end": 5_000_000_000, "created_at": NOW, "changed_at": NOW}
    return Workspace(f"wsp-{number:06d}", **{**place, **given, **net, **size, **times, **fields})


def token(number: int = 1, **fields: Any) -> Token:
    given = {"subject": "ann", "role": Role.USER, "secret_sha256": f"{number:064x}", "created_at": NOW}
    return Token(f"tok-{number:06d}", **{**given, **fields})


def maintenance(number: int = 1, **fields: Any) -> Maintenance:
    given = {"node": "nod-000001", "start": 1_800_003_600, "end": 1_800_007_200, "reason": "new disks"}
    return Maintenance(f"mnt-{number:06d}", **{**given, "created_at": NOW, **fields})


def address(number: int = 1, **fields: Any) -> Address:
    given = {"pool": "campus", "address": "192.0.2.17", "owner": "ann", "created_at": NOW}
    return Address(f"adr-{number:06d}", **{**given, **fields})


def event(number: int = 1, **fields: Any) -> Event:
    given = {"actor": "ann", "kind": "lease.granted", "owner": "ann", "data": {"number": number, "why": "é\u2603"}}
    return Event(NOW + number, **{**given, **fields})


def answer(number: int = 1, **fields: Any) -> Answer:
    given = {"subject": "ann", "client_token": f"once-{number}", "fingerprint": "f" * 64, "status": 201}
    return Answer(**{**given, "body": '{"id": "lse-000001"}', "at": NOW, **fields})


def ground(**more: Any) -> Changes:
    """What workspaces refer to, and `more`."""
    return Changes(images=(image(),), nodes=(node(),), leases=(lease(),)) + Changes(**more)


def signer(number: int = 1, **fields: Any) -> Signer:
    given = {"name": f"signer-{number}", "keyid": f"{number:064x}", "kind": "Ed25519 key", "pem": "-----BEGIN…"}
    return Signer(f"sgn-{number:06d}", **{**given, "added_at": NOW, "by": "admin", **fields})


def revocation(number: int = 1, **fields: Any) -> Revocation:
    given = {"digest": f"{number:064x}", "name": "debian", "reason": "a bad kernel", "by": "admin", "made_at": NOW}
    return Revocation(f"rev-{number:06d}", **{**given, **fields})
