"""The decisions about clusters: launching, growing, shrinking and ending them, and putting them to sleep as a whole.

A cluster is leases that share networks and a context. Its launch is one lease of several groups, so that its members
are planned together; whenever it grows, another lease until the same end is beside it. So growing is all or nothing as
well, is refused with offers, and is charged and planned like everything else.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from typing import Any

from vws.core.addresses import give, pool_named
from vws.core.admission import HeldBefore, nothing_before
from vws.core.agreement import Ids, cancel, command, grant
from vws.core.context import ContextState
from vws.core.deployment import WorkspaceFact
from vws.core.draft import Draft
from vws.core.errors import CannotFit, CommandRefused, Conflict, InUse, InvalidRequest, NameTaken, VwsError
from vws.core.lifecycle import UNORDERED, Command, Observation, State
from vws.core.members import member_name
from vws.core.pools import Pool, default_of
from vws.core.requirements import LENGTH_MAX
from vws.core.site import (
    LEASE_AHEAD,
    Cluster,
    Group,
    GroupRoles,
    Lease,
    LeaseState,
    Network,
    Node,
    OnFailure,
    Workspace,
)
from vws.core.standing import REPLACEMENTS_MAX, broken_among, latest, to_be_replaced, witness
from vws.core.terms import COUNT_MAX, GroupRequest, LeaseRequest, When, check_name, check_number

NETWORKS_MAX = 8


class ClusterState(StrEnum):
    """WAITING for its start or for room; LAUNCHING until all members ran once; CONFIGURING until all hooks have ended
    well, and again while members come, go, wake or are replaced; READY; DEGRADED while a member is lost, stopped or
    failed in whose place no other one comes; FAILED:
    a hook ended badly, or a member did not report in time; SUSPENDED as a whole."""

    WAITING = auto()
    LAUNCHING = auto()
    CONFIGURING = auto()
    READY = auto()
    DEGRADED = auto()
    FAILED = auto()
    SUSPENDED = auto()
    ENDING = auto()
    ENDED = auto()


# Its members' names have to have room for group and number, and its growths' for their number.
NAME_LENGTH_MAX = 30


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """A network that a cluster is to have. cidr: its range; outgoing: whether its members reach what the node reaches.

    public: no network of its own, but the one of the site's default pool, or the node's own where there is no pool.
    pool: the same, of the pool of that name.
    """

    name: str
    cidr: str = ""
    outgoing: bool = False
    public: bool = False
    pool: str = ""

    @property
    def private(self) -> bool:
        return not (self.public or self.pool)


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """lease: the launch, whose groups name the networks. context: the id of the context that the members share.
    file: what it is launched from, to be kept."""

    name: str
    lease: LeaseRequest
    networks: tuple[NetworkRequest, ...] = ()
    roles: tuple[GroupRoles, ...] = ()
    context: str = ""
    file: str = ""


def launch(
    draft: Draft, request: ClusterRequest, *, owner: str, ids: Ids, id: str = "", before: HeldBefore = nothing_before
) -> Cluster:
    """The cluster with its first lease. id: its own, if it has one already.

    Raises what granting raises, InvalidRequest, NameTaken.
    """
    check_cluster(request)
    if any(cluster.name == request.name for cluster in draft.present.clusters.values()):
        raise NameTaken(
            f"a cluster is already called {request.name}",
            field="name",
            asked=request.name,
            possible="another name (--name)",
        )
    pools = pools_meant(draft, request)
    cluster = drawn_up(draft, request, pools, owner=owner, ids=ids, id=id)
    asked = replace(alone(request, pools), cluster=cluster.id)
    give(draft, cluster, asked.groups, ids)
    grant(draft, asked, owner=owner, ids=ids, before=before)
    draft.say("cluster.launched", owner=owner, cluster=cluster.id, name=cluster.name)
    return cluster


def drawn_up(
    draft: Draft, request: ClusterRequest, pools: Mapping[str, Pool], *, owner: str, ids: Ids, id: str = ""
) -> Cluster:
    """The cluster that is asked for, in the draft, without any lease yet. pools: by `pools_meant`."""
    return draft.put_cluster(
        Cluster(
            id=id or ids("cls"),
            name=request.name,
            owner=owner,
            networks=tuple(_networks(request, pools, ids)),
            roles=tuple(_roles(request, group) for group in request.lease.groups),
            context=request.context,
            file=request.file,
            created_at=draft.now,
        )
    )


def alone(request: ClusterRequest, pools: Mapping[str, Pool]) -> LeaseRequest:
    """The lease of a launch as it would be planned, for asking without launching. pools: by `pools_meant`."""
    groups = tuple(_where_pools_are(group, pools) for group in request.lease.groups)
    one_node = any(network.private for network in request.networks)
    return replace(request.lease, groups=groups, name=request.name, one_node=one_node)


def lacking(draft: Draft, request: ClusterRequest, *, owner: str, ids: Ids) -> VwsError | None:
    """Why a launch would get no addresses of pools, None if it would. The draft is not to be kept."""
    networks = tuple(_networks(request, pools_meant(draft, request), ids))
    cluster = Cluster(ids("cls"), request.name, owner, networks, (), "", "", draft.now)
    try:
        give(draft, cluster, request.lease.groups, ids)
    except (CannotFit, InUse) as error:
        return error
    return None


def pools_meant(draft: Draft, request: ClusterRequest) -> dict[str, Pool]:
    """The pools of its public networks, by these networks' names. Raises InvalidRequest where none or two are meant."""
    found: dict[str, Pool] = {}
    for network in request.networks:
        pool = _pool_meant(draft, network)
        if pool is not None:
            twice = next((name for name, other in found.items() if other.name == pool.name), None)
            if twice is not None:
                raise InvalidRequest(
                    f"the networks {twice} and {network.name} are of the same pool, {pool.name}",
                    field=f"networks.{network.name}",
                    asked=pool.name,
                    possible="one of them, or another pool",
                )
            found[network.name] = pool
    return found


def _pool_meant(draft: Draft, network: NetworkRequest) -> Pool | None:
    pools = draft.present.pools
    if network.pool:
        return pool_named(draft, network.pool, f"networks.{network.name}.pool")
    if not network.public or not pools:
        return None
    pool = default_of(pools)
    if pool is None:
        raise InvalidRequest(
            f"the site has several pools, and none of them is the default for {network.name}",
            field=f"networks.{network.name}.public",
            asked=True,
            possible=f"pool: NAME instead, one of: {', '.join(pools)}",
        )
    return pool


def _networks(request: ClusterRequest, pools: Mapping[str, Pool], ids: Ids) -> Iterator[Network]:
    """Those that nodes have for it: its private ones, and those of pools."""
    for network in request.networks:
        pool = pools.get(network.name)
        if pool is not None:
            yield Network(pool.network, network.name, pool.cidr, True, pool.name, pool.gateway)
        elif network.private:
            yield Network(ids("net"), network.name, network.cidr, network.outgoing)


def _where_pools_are(group: GroupRequest, pools: Mapping[str, Pool]) -> GroupRequest:
    required = [pools[name].require for name in group.networks if name in pools and pools[name].require]
    if not required:
        return group
    parts = [part for part in (group.requirement, *dict.fromkeys(required)) if part]
    whole = parts[0] if len(parts) == 1 else " and ".join(f"({part})" for part in parts)
    check_number(len(whole), f"groups.{group.name}.require", 0, LENGTH_MAX, "characters, with what its pools require")
    return replace(group, requirement=whole)


def _roles(request: ClusterRequest, group: GroupRequest) -> GroupRoles:
    given = next((roles for roles in request.roles if roles.group == group.name), GroupRoles(group.name))
    return replace(given, last=group.first + group.count - 1)


def check_cluster(request: ClusterRequest) -> None:
    """Raise InvalidRequest for what could never be a cluster."""
    check_name(request.name)
    check_number(len(request.name), "name", 1, NAME_LENGTH_MAX, "characters")
    check_number(len(request.networks), "networks", 0, NETWORKS_MAX)
    if request.lease.when is When.PERIODIC:
        raise InvalidRequest(
            "a cluster is launched once", field="lease.when", asked="periodic", possible="now, a time, best effort"
        )
    for network in request.networks:
        _check_network(network)
    names = [network.name for network in request.networks]
    if len(set(names)) < len(names):
        raise InvalidRequest("two networks have one name", field="networks", asked=names, possible="different names")
    for group in request.lease.groups:
        _check_group(group, names, private={n.name for n in request.networks if n.private})


def _check_network(network: NetworkRequest) -> None:
    where = f"networks.{network.name}"
    check_name(network.name, where)
    if not network.private:
        return
    possible = "a private range such as 10.20.0.0/24, of 4 to 65536 addresses"
    try:
        found = ipaddress.IPv4Network(network.cidr)
    except ValueError as error:
        raise InvalidRequest(f"{error}", field=f"{where}.range", asked=network.cidr, possible=possible) from None
    if not found.is_private or not 16 <= found.prefixlen <= 30 or found.is_link_local or found.is_loopback:
        raise InvalidRequest(
            f"{found} cannot be a cluster's network", field=f"{where}.range", asked=network.cidr, possible=possible
        )


def _check_group(group: GroupRequest, names: Sequence[str], *, private: set[str]) -> None:
    where = f"groups.{group.name}"
    if not group.name:
        raise InvalidRequest("a cluster's groups have names", field="groups", possible="a name for each")
    if group.apart and private.intersection(group.networks):
        raise InvalidRequest(
            "its network is on one node, so that its members cannot be apart",
            field=f"{where}.apart",
            asked=True,
            possible="apart: false, or a public network",
        )
    for name in group.networks:
        if name not in names:
            raise InvalidRequest(
                f"there is no network {name!r}",
                field=f"{where}.networks",
                asked=name,
                possible=f"one of {', '.join(names)}" if names else "define it under networks",
            )
    if len(set(group.networks)) < len(group.networks):
        raise InvalidRequest("a network is named twice", field=f"{where}.networks", asked=list(group.networks))
    if group.address:
        _check_address(group, [name for name in group.networks if name not in private])


def _check_address(group: GroupRequest, public: Sequence[str]) -> None:
    """One address is one member's, and has one network to be in."""
    if group.count != 1 or len(public) != 1:
        of = f"{group.count} members" if group.count != 1 else f"{len(public)} public networks"
        raise InvalidRequest(
            f"{group.name} names an address and has {of}",
            field=f"groups.{group.name}.address",
            asked=group.address[:60],
            possible="one member on one public network",
        )


# ---------------------------------------------------------------- changing


def grow(
    draft: Draft, cluster: Cluster, group: str, count: int, *, ids: Ids, before: HeldBefore = nothing_before
) -> Lease:
    """Another lease of the cluster, of so many members more, until its end. Raises what granting raises."""
    check_number(count, "count", 1, COUNT_MAX)
    cluster, leases = draft.find_cluster(cluster.id) or cluster, _leases(draft, cluster, "grown")
    first, model = leases[0], _group(leases, group)
    last = cluster.roles_of(group).last
    now = int(draft.now)
    left_s = first.duration_s - first.worked_s if first.end is None else first.end - now
    asked = LeaseRequest(
        (
            GroupRequest(
                model.image, count, model.cpus, model.memory_mib, model.disk_mib, group,
                _beside(draft, cluster, first, model.requirement), model.apart, model.together, model.bandwidth_mbit,
                last + 1, model.networks, model.disks,
            ),
        ),
        max(1, left_s),
        name=_growth_name(draft, cluster, leases),
        ssh_keys=first.ssh_keys,
        preemptible=first.preemptible,
        cluster=cluster.id,
        one_node=first.one_node,
    )  # fmt: skip
    give(draft, cluster, asked.groups, ids)
    try:
        lease = grant(draft, asked, owner=cluster.owner, ids=ids, before=before)
    except CannotFit as refused:
        raise _no_growth(draft, cluster, first, refused) from None
    assert isinstance(lease, Lease)
    roles = tuple(replace(r, last=last + count) if r.group == group else r for r in cluster.roles)
    draft.put_cluster(replace(cluster, roles=roles))
    draft.say("cluster.grown", owner=cluster.owner, cluster=cluster.id, name=cluster.name, group=group, count=count)
    return lease


def _beside(draft: Draft, cluster: Cluster, first: Lease, requirement: str) -> str:
    """The same, on the node where the cluster's networks are."""
    if not first.one_node:
        return requirement
    here = _nodes_of(draft, cluster)
    if not here:
        raise Conflict(
            f"{cluster.name} has not begun, so it is not known where it will be",
            field="cluster",
            asked=cluster.name,
            possible="the same once it runs",
        )
    whole = f"({requirement}) and " if requirement else ""
    found = f'{whole}name == "{here[0].name}"'
    check_number(len(found), "requirement", 0, LENGTH_MAX, "characters")
    return found


def _nodes_of(draft: Draft, cluster: Cluster) -> list[Node]:
    nodes = {w.node for lease in draft.leases_of_cluster(cluster.id) for w in draft.members(lease.id)}
    return [draft.present.nodes[node] for node in sorted(nodes) if node in draft.present.nodes]


def _no_growth(draft: Draft, cluster: Cluster, first: Lease, refused: CannotFit) -> CannotFit:
    """The same refusal as those see it who grow a cluster: on which node it is has been decided, and so has its end."""
    offers = [offer for offer in refused.details.get("offers", ()) if _helps_growth(offer, first)]
    nodes = list(refused.details.get("nodes", ()))
    if first.one_node:
        here = _nodes_of(draft, cluster)[0]
        elsewhere = f"the cluster's network is on node {here.name}"
        nodes = [told if told["node"] == here.id else told | {"reason": elsewhere} for told in nodes]
    told = "; ".join(offer["text"] for offer in offers)
    return CannotFit(
        refused.problem,
        field="count",
        asked=refused.asked,
        possible=told or "the same when others have ended, or a cluster of its own",
        details={"nodes": nodes, "offers": offers},
    )


def _helps_growth(offer: Mapping[str, Any], first: Lease) -> bool:
    in_time = first.end is None or offer.get("start", 0) < first.end
    return offer["kind"] == "fewer" or (offer["kind"] == "later" and in_time)


def _growth_name(draft: Draft, cluster: Cluster, leases: Sequence[Lease]) -> str:
    number = len(leases)
    while draft.present.lease_named(f"{cluster.name}-more{number}") is not None:
        number += 1
    return f"{cluster.name}-more{number}"


def shrink(draft: Draft, cluster: Cluster, group: str, count: int) -> list[Workspace]:
    """Terminate so many members of a group, the last ones. Raises InvalidRequest if there are not more of them."""
    leases = _leases(draft, cluster, "shrunk")
    _group(leases, group)
    there = [w for w in members_of(draft, cluster) if w.group == group]
    check_number(count, "count", 1, COUNT_MAX)
    if count >= len(there):
        raise InvalidRequest(
            f"{group} has {len(there)} member{'s' if len(there) != 1 else ''}, and one stays",
            field="count",
            asked=count,
            possible=f"at most {len(there) - 1}" if len(there) > 1 else f"vws cluster terminate {cluster.name}",
        )
    gone = sorted(there, key=lambda w: w.number)[-count:]
    draft.say("cluster.shrunk", owner=cluster.owner, cluster=cluster.id, name=cluster.name, group=group, count=count)
    return [command(draft, workspace, Command.TERMINATE) for workspace in gone]


def suspend(draft: Draft, cluster: Cluster) -> list[Workspace]:
    """Save all members, or none: raises CommandRefused if one of them cannot be."""
    return _command_all(draft, cluster, Command.SUSPEND, State.SUSPENDED)


def restore(draft: Draft, cluster: Cluster) -> list[Workspace]:
    """Resume all members that are saved."""
    return _command_all(draft, cluster, Command.RESTORE, State.RUNNING)


def _command_all(draft: Draft, cluster: Cluster, order: Command, done: State) -> list[Workspace]:
    _leases(draft, cluster, f"told to {order}")
    there = [workspace for workspace in members_of(draft, cluster) if workspace.state is not done]
    return [command(draft, workspace, order) for workspace in there]


def give_up(draft: Draft, cluster: Cluster, reasons: Mapping[str, str]) -> None:
    """Call members failed that run but did not do their part, so that others are made in their place: those whose group
    wants it, as often as it may be. reasons: by the member's name among the members."""
    for lease in draft.leases_of_cluster(cluster.id):
        made = Counter((w.group, w.number) for w in draft.members(lease.id))
        for workspace in draft.members(lease.id):
            reason = reasons.get(member_name(workspace.group, workspace.number))
            wanted = cluster.roles_of(workspace.group).on_failure is OnFailure.REPLACE
            often = made[workspace.group, workspace.number]
            if reason and wanted and workspace.state not in UNORDERED and often <= REPLACEMENTS_MAX:
                fact = WorkspaceFact(workspace.id, Observation.BROKEN, workspace.boots, reason)
                witness(draft, workspace, Observation.BROKEN, fact)


def terminate(draft: Draft, cluster: Cluster) -> Cluster:
    """End all of its leases. A repeat changes nothing."""
    for lease in draft.leases_of_cluster(cluster.id):
        cancel(draft, lease)
    return cluster


def members_of(draft: Draft, cluster: Cluster) -> list[Workspace]:
    """Its workspaces that are to be, in their order."""
    leases = draft.leases_of_cluster(cluster.id)
    return [w for lease in leases for w in draft.members(lease.id) if w.state not in UNORDERED]


def _leases(draft: Draft, cluster: Cluster, what: str) -> list[Lease]:
    """The leases of a cluster that goes on."""
    alive = [lease for lease in draft.leases_of_cluster(cluster.id) if lease.state is not LeaseState.ENDING]
    if cluster.ended_at is not None or not alive:
        raise CommandRefused(
            f"{cluster.name} has ended or is ending; it cannot be {what}",
            field="cluster",
            asked=cluster.name,
            possible="a new one (vws cluster launch)",
        )
    return alive


def _group(leases: Sequence[Lease], name: str) -> Group:
    # As it was at first: what it grew by names its node.
    groups = {group.name: group for lease in reversed(leases) for group in lease.groups}
    if name not in groups:
        raise InvalidRequest(
            f"there is no group {name!r} in it", field="group", asked=name[:60], possible=f"one of {', '.join(groups)}"
        )
    return groups[name]


# ---------------------------------------------------------------- looking


def stands(
    cluster: Cluster, leases: Sequence[Lease], members: Sequence[Workspace], context: tuple[ContextState, str] | None
) -> tuple[ClusterState, str]:
    """How a cluster is, and why if it is not ready. context: its context's state and reason, None without one."""
    alive = [lease for lease in leases if not lease.ended]
    there = [workspace for workspace in members if workspace.state not in UNORDERED]
    if cluster.ended_at is not None:
        return ClusterState.ENDED, "; ".join(dict.fromkeys(lease.reason for lease in leases if lease.reason))
    if not alive or all(lease.state is LeaseState.ENDING for lease in alive):
        return ClusterState.ENDING, "; ".join(dict.fromkeys(lease.reason for lease in alive if lease.reason))
    if all(lease.state in LEASE_AHEAD for lease in alive):
        return ClusterState.WAITING, alive[0].reason
    if there and all(workspace.state is State.SUSPENDED for workspace in there):
        return ClusterState.SUSPENDED, ""
    if any(lease.state is LeaseState.PENDING and lease.active_at is None for lease in alive[:1]):
        return ClusterState.LAUNCHING, alive[0].reason
    mending = [lease.reason for lease in alive if lease.state is LeaseState.DEGRADED]
    if mending and _goes_on_broken(cluster, alive, members):
        return ClusterState.DEGRADED, "; ".join(mending)
    if context is not None and context[0] is ContextState.FAILED:
        return ClusterState.FAILED, context[1]
    settled = all(lease.state is LeaseState.ACTIVE for lease in alive)
    is_ready = settled and (not cluster.context or (context is not None and context[0] is ContextState.READY))
    # A context knows nothing of sleep: its members are configured while they are being saved or resumed.
    resting = [workspace for workspace in there if workspace.state is not State.RUNNING]
    if is_ready and resting:
        return ClusterState.CONFIGURING, f"{resting[0].name} is {resting[0].state}"
    return (ClusterState.READY, "") if is_ready else (ClusterState.CONFIGURING, "; ".join(mending))


def _goes_on_broken(cluster: Cluster, leases: Sequence[Lease], members: Sequence[Workspace]) -> bool:
    """Whether a member is broken in whose place no other one comes."""
    for lease in leases:
        made = [workspace for workspace in members if workspace.lease == lease.id]
        replaced = to_be_replaced(cluster, lease, made)
        if any(workspace not in replaced for workspace in broken_among(latest(made))):
            return True
    return False
