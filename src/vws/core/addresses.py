"""Who has which address of a pool: given to members of clusters, reserved by users, taken back.

An address is given when the lease is granted, in the same commit: what was granted needs nothing more that could be
refused. It is held by the cluster and the member's name in it, so a member that is made again in the place of a failed
one has the same. It goes back once its node has said that nothing of the member is left, and no other comes in its
place; before that a guest might still answer by it. One that is reserved goes back to its owner, and stays his.

Nobody holds an address twice, whatever the order of launches and ends: each decision sees all that is held, and the
store has a rule of its own against two live rows for one address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from vws.core.draft import Draft
from vws.core.errors import CannotFit, Conflict, InUse, InvalidRequest, LimitReached, NameTaken
from vws.core.members import member_name
from vws.core.pools import Pool
from vws.core.site import LEASE_AHEAD, Address, Cluster, Lease, Network
from vws.core.standing import latest, to_be_replaced
from vws.core.terms import GroupRequest, check_name

Ids = Callable[[str], str]
NAMES_SHOWN = 10


def pool_named(draft: Draft, name: str, field: str = "pool") -> Pool:
    """Raises InvalidRequest naming those there are."""
    pool = draft.present.pools.get(name)
    if pool is None:
        names = ", ".join(draft.present.pools)
        raise InvalidRequest(
            f"there is no pool {name[:60]!r}",
            field=field,
            asked=name[:60],
            possible=f"one of: {names}" if names else "this site has set no addresses aside (pools in site.toml)",
        )
    return pool


def free_in(draft: Draft, pool: Pool) -> list[str]:
    """The addresses of a pool that nobody holds or has reserved, in their order."""
    taken = {address.address for address in draft.addresses_of_pool(pool.name)}
    return [address for address in pool if address not in taken]


# ---------------------------------------------------------------- given to members


def give(draft: Draft, cluster: Cluster, groups: Iterable[GroupRequest], ids: Ids) -> None:
    """Addresses for all members of `groups`, in each pool that they are on; raises CannotFit if a pool has too few,
    InvalidRequest or InUse for a reserved one that cannot be had."""
    groups = tuple(groups)
    for network in cluster.networks:
        on_it = [group for group in groups if network.pool and network.name in group.networks]
        if on_it:
            pool = pool_named(draft, network.pool, f"networks.{network.name}.pool")
            _check_unchanged(cluster, network, pool)
            _give_in(draft, cluster, pool, on_it, ids)


def _check_unchanged(cluster: Cluster, network: Network, pool: Pool) -> None:
    if network.id != pool.network:
        raise Conflict(
            f"the pool {pool.name} is {pool.cidr} by now, and was {network.cidr} when {cluster.name} was launched",
            field="group",
            asked=cluster.name,
            possible="a new cluster",
        )


def _give_in(draft: Draft, cluster: Cluster, pool: Pool, groups: Sequence[GroupRequest], ids: Ids) -> None:
    for group in groups:
        if group.address:
            _hold_reserved(draft, cluster, pool, group)
    wanted = [
        member_name(group.name, number)
        for group in groups
        if not group.address
        for number in range(group.first, group.first + group.count)
    ]
    free = free_in(draft, pool)
    if len(free) < len(wanted):
        raise _exhausted(pool, len(free), len(wanted), groups)
    for member, address in zip(wanted, free, strict=False):
        draft.put_address(
            Address(ids("adr"), pool.name, address, cluster.owner, draft.now, cluster=cluster.id, member=member)
        )


def _exhausted(pool: Pool, free: int, wanted: int, groups: Sequence[GroupRequest]) -> CannotFit:
    names = ", ".join(group.name for group in groups)
    problem = f"the pool {pool.name} has {free} free of its {pool.size} addresses, {names} would take {wanted}"
    text = f"{free} member{'' if free == 1 else 's'} with an address of {pool.name}"
    offers = [{"kind": "addresses", "pool": pool.name, "count": free, "text": text}] if free else []
    later = "the same when others have ended (vws address list)"
    return CannotFit(
        problem,
        field="networks",
        asked=wanted,
        possible=f"{text}, or {later}" if free else later,
        details={"nodes": [], "offers": offers},
    )


def _hold_reserved(draft: Draft, cluster: Cluster, pool: Pool, group: GroupRequest) -> None:
    field = f"groups.{group.name}.address"
    mine = [a for a in draft.addresses_of_pool(pool.name) if a.name and a.owner == cluster.owner]
    found = next((a for a in mine if group.address in (a.name, a.address)), None)
    if found is None:
        names = ", ".join(f"{a.name} ({a.address})" for a in islice(mine, NAMES_SHOWN))
        raise InvalidRequest(
            f"you have not reserved {group.address[:60]} in the pool {pool.name}",
            field=field,
            asked=group.address[:60],
            possible=f"one of: {names}" if names else f"reserve one (vws address reserve NAME --pool {pool.name})",
        )
    if found.cluster:
        holder = draft.find_cluster(found.cluster)
        called = holder.name if holder is not None else found.cluster
        raise InUse(
            f"the address {found.name} ({found.address}) is held by {found.member} of the cluster {called}",
            field=field,
            asked=group.address[:60],
            possible=f"once that has ended (vws cluster terminate {called}), or another address",
        )
    draft.put_address(replace(found, cluster=cluster.id, member=member_name(group.name, group.first)))


def take_back(draft: Draft) -> None:
    """What the leases that this decision touched no longer need."""
    for id in draft.touched_leases:
        lease = draft.lease(id)
        if lease.cluster:
            _take_back_of(draft, lease)


def _take_back_of(draft: Draft, lease: Lease) -> None:
    held = draft.addresses_of_cluster(lease.cluster)
    if held:
        done = _names(lease) - _needing(draft, lease)
        for address in held:
            if address.member in done:
                _free(draft, address)


def _names(lease: Lease) -> set[str]:
    """Of its members, in their cluster."""
    return {member_name(group.name, number) for group in lease.groups for number in group.numbers}


def _needing(draft: Draft, lease: Lease) -> set[str]:
    """The members of a lease that need their addresses still, or will."""
    if lease.ended:
        return set()
    everybody = _names(lease)
    if lease.state in LEASE_AHEAD or lease.restartable:
        return everybody
    made = draft.members(lease.id)
    coming = to_be_replaced(draft.find_cluster(lease.cluster), lease, made)
    gone = [w for w in latest(made) if w.released_at is not None and w not in coming]
    return everybody - {member_name(w.group, w.number) for w in gone}


def _free(draft: Draft, address: Address) -> None:
    if address.name:
        draft.put_address(replace(address, cluster="", member=""))
    else:
        draft.put_address(replace(address, released_at=draft.now))


# ---------------------------------------------------------------- reserved by users


def reserve(
    draft: Draft, pool: Pool, name: str, *, owner: str, id: str, address: str = "", unlimited: bool = False
) -> Address:
    """An address of the pool that is the owner's under that name until he releases it. address: which; "": any.
    unlimited: whether he may have more than the pool allows each user.

    Raises InvalidRequest, NameTaken, InUse, LimitReached, CannotFit.
    """
    check_name(name)
    if any(a.name == name for a in draft.present.addresses.values()):
        raise NameTaken(f"an address is already reserved as {name}", field="name", asked=name, possible="another name")
    if not unlimited:
        _check_quota(draft, pool, owner)
    free = free_in(draft, pool)
    if address:
        _check_free(pool, address, free)
    elif not free:
        raise CannotFit(
            f"the pool {pool.name} has no free address, all {pool.size} are held or reserved",
            field="pool",
            asked=pool.name,
            possible="the same when others have ended",
        )
    reserved = Address(id, pool.name, address or free[0], owner, draft.now, name)
    draft.say("address.reserved", owner=owner, name=name, pool=pool.name, address=reserved.address)
    return draft.put_address(reserved)


def _check_quota(draft: Draft, pool: Pool, owner: str) -> None:
    held = sum(1 for a in draft.addresses_of_pool(pool.name) if a.name and a.owner == owner)
    if held >= pool.reserved_max:
        raise LimitReached(
            f"{owner} has {held} addresses of the pool {pool.name} reserved, and may have {pool.reserved_max}",
            field="reserved_max",
            asked=held + 1,
            possible="release one (vws address release), or ask an administrator for it",
            details={"limit": "reserved_max", "party": owner, "held": held, "offers": []},
        )


def _check_free(pool: Pool, address: str, free: Sequence[str]) -> None:
    if address not in pool:
        raise InvalidRequest(
            f"{address[:60]} is not an address of the pool {pool.name}",
            field="address",
            asked=address[:60],
            possible="none: then the site chooses one",
        )
    if address not in free:
        raise InUse(
            f"the address {address} is reserved or held already",
            field="address",
            asked=address,
            possible=f"another one, such as {free[0]}" if free else "the same later: the pool has none left",
        )


def release(draft: Draft, address: Address) -> Address:
    """Give a reserved address back to its pool. Raises InUse while a member holds it."""
    if address.cluster:
        holder = draft.find_cluster(address.cluster)
        called = holder.name if holder is not None else address.cluster
        raise InUse(
            f"the address {address.name} ({address.address}) is held by {address.member} of the cluster {called}",
            field="id",
            asked=address.name,
            possible=f"end that first (vws cluster terminate {called})",
        )
    draft.say("address.released", owner=address.owner, name=address.name, pool=address.pool, address=address.address)
    return draft.put_address(replace(address, released_at=draft.now))
