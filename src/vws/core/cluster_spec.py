"""A cluster as its file describes it, complete: parameters are filled in, files have their contents.

From it come the lease (`lease_request`), the cluster (`cluster_request`), the context (`ClusterFile.context`) and its
members (`expected`). It is plain JSON in the record (core/wire.py), and holds nothing of a site but names of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vws.core.cluster import ClusterRequest, NetworkRequest
from vws.core.cluster_parameters import Chosen
from vws.core.context import ContextSpec, Expected
from vws.core.errors import InvalidRequest
from vws.core.site import GroupRoles
from vws.core.terms import GroupRequest, LeaseRequest, When


@dataclass(frozen=True, slots=True)
class ClusterGroup:
    """request: what the planner places, with its networks and disks. roles: what its members are to each other."""

    request: GroupRequest
    roles: GroupRoles

    @property
    def name(self) -> str:
        return self.request.name

    def expected(self, first: int = 1, count: int | None = None) -> Iterator[Expected]:
        """Its members from number `first` on, as the context knows them before anybody has an address."""
        last = first + (self.request.count if count is None else count)
        for number in range(first, last):
            yield Expected(f"{self.name}-{number}", self.roles.provides, self.roles.requires, self.request.networks)


@dataclass(frozen=True, slots=True)
class LeaseWishes:
    """What the file says of the lease; the launch may say otherwise. duration_s: None if the file is silent."""

    duration_s: int | None = None
    best_effort: bool = False
    preemptible: bool = False
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """notes: what the user should know and was not refused, sentences."""

    name: str
    groups: tuple[ClusterGroup, ...]
    context: ContextSpec
    networks: tuple[NetworkRequest, ...] = ()
    lease: LeaseWishes = LeaseWishes()
    parameters: tuple[Chosen, ...] = ()
    notes: tuple[str, ...] = ()

    def expected(self) -> tuple[Expected, ...]:
        """All members of the launch."""
        return tuple(member for group in self.groups for member in group.expected())

    def network(self, name: str) -> NetworkRequest:
        return next(network for network in self.networks if network.name == name)


def lease_request(
    file: ClusterFile,
    *,
    name: str | None = None,
    duration_s: int | None = None,
    ssh_keys: tuple[str, ...] = (),
    when: When | None = None,
    start: int | None = None,
    deadline: int | None = None,
) -> LeaseRequest:
    """The one lease of a launch; what is given here goes before what the file says. Times are UTC seconds.

    Raises InvalidRequest if neither says for how long.
    """
    lasts_s = duration_s if duration_s is not None else file.lease.duration_s
    if lasts_s is None:
        raise InvalidRequest(
            "for how long? neither the cluster file nor the launch says it",
            field="lease.for",
            possible="lease: {for: 4h} in the file, or --for 4h",
        )
    by_file = When.BEST_EFFORT if file.lease.best_effort else When.IMMEDIATE
    return LeaseRequest(
        groups=tuple(group.request for group in file.groups),
        duration_s=lasts_s,
        name=name or file.name,
        ssh_keys=ssh_keys,
        when=when or by_file,
        start=start,
        deadline=deadline,
        urgent=file.lease.urgent,
        preemptible=file.lease.preemptible,
    )


def cluster_request(file: ClusterFile, lease: LeaseRequest, *, context: str = "", text: str = "") -> ClusterRequest:
    """What launches it. lease: as `lease_request` gives it. context: the id of its context. text: to be kept."""
    roles = tuple(group.roles for group in file.groups)
    return ClusterRequest(file.name, lease, file.networks, roles, context, text)


def renamed(file: ClusterFile, name: str) -> ClusterFile:
    """The same under another name, as by `--name`."""
    return replace(file, name=name, context=replace(file.context, name=name))
