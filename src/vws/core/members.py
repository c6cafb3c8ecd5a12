"""Making the workspaces of a lease: one for each member, with a name, an address and an order for its node."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Sequence

from vws.core.draft import Draft
from vws.core.lifecycle import Desired, State
from vws.core.site import Group, Lease, Network, Nic, Node, Workspace
from vws.core.usage import member_of

Ids = Callable[[str], str]


def make_members(draft: Draft, lease: Lease, hosts: Sequence[str], ids: Ids, *, end: int) -> None:
    """Order the members of `lease` from their nodes (`hosts`: ids, group by group), to be removed at `end`."""
    left, held = iter(hosts), _Held(draft, lease.cluster)
    for group in lease.groups:
        for number in group.numbers:
            _make(draft, lease, group, number, draft.node(next(left)), held, id=ids("wsp"), end=end)


def make_again(draft: Draft, lease: Lease, before: Workspace, ids: Ids) -> None:
    """Order a member anew, of the same name and on the same node, once nothing is left of it."""
    group = next(group for group in lease.groups if group.name == before.group)
    held = _Held(draft, lease.cluster)
    _make(draft, lease, group, before.number, draft.node(before.node), held, id=ids("wsp"), end=before.end)


def _make(draft: Draft, lease: Lease, group: Group, number: int, node: Node, held: _Held, *, id: str, end: int) -> None:
    whole = draft.cluster(lease.cluster).name if lease.cluster else lease.name
    name = name_of(whole, group, number)
    member = member_name(group.name, number)
    nics = tuple(held.give(node, network, member) for network in group.networks or ("",))
    made = _member(draft, lease, group, number, name=name, node=node, nics=nics, id=id, end=end)
    draft.say_workspace("workspace.planned", draft.order(made), address=made.address, **member_of(made))


def name_of(whole: str, group: Group, number: int) -> str:
    """What the member of a group is called at the site. whole: its cluster's name, or its lease's."""
    return f"{whole}-{member_name(group.name, number)}"


def member_name(group: str, number: int) -> str:
    """What it is called among the members of its lease or cluster. group: its group's name."""
    return f"{group}-{number}" if group else f"{number}"


def _member(
    draft: Draft, lease: Lease, group: Group, number: int, *, name: str, node: Node, nics: tuple[Nic, ...], id: str,
    end: int,
) -> Workspace:  # fmt: skip
    return Workspace(
        id=id,
        name=name,
        lease=lease.id,
        owner=lease.owner,
        group=group.name,
        number=number,
        node=node.id,
        image=group.image,
        state=State.PLANNED,
        desired=Desired.RUN,
        address=nics[0].address,
        mac=nics[0].mac,
        cpus=group.cpus,
        memory_mib=group.memory_mib,
        disk_mib=group.disk_mib,
        cpus_defined=group.cpus,
        memory_defined_mib=group.memory_mib,
        end=end,
        created_at=draft.now,
        changed_at=draft.now,
        network=nics[0].network,
        nics=nics if group.networks else (),
    )


class _Held:
    """The addresses that are held in each network while the members of one lease are made."""

    def __init__(self, draft: Draft, cluster: str) -> None:
        self._draft = draft
        self._cluster = draft.cluster(cluster) if cluster else None
        self._held: dict[str, set[str]] = {}

    def give(self, node: Node, name: str, member: str) -> Nic:
        """An interface on the network of that name in the cluster; on the node's own if there is none."""
        network = self._cluster.network(name) if self._cluster is not None else None
        if network is not None and network.pool:
            return self._of_pool(network, member)
        id, cidr = (network.id, network.cidr) if network is not None else ("", node.subnet)
        if (id or cidr) not in self._held:
            self._held[id or cidr] = self._addresses(node, id)
        held = self._held[id or cidr]
        hosts = map(str, ipaddress.ip_network(cidr).hosts())
        next(hosts)  # the gateway's
        address = next(text for text in hosts if text not in held)
        held.add(address)
        return Nic(id, address, mac_of(address, id))

    def _of_pool(self, network: Network, member: str) -> Nic:
        """With the address that was given at the grant (core/addresses.py)."""
        assert self._cluster is not None
        given = self._draft.addresses_of_cluster(self._cluster.id)
        address = next(a.address for a in given if (a.pool, a.member) == (network.pool, member))
        return Nic(network.id, address, mac_of(address, network.id))

    def _addresses(self, node: Node, network: str) -> set[str]:
        if not network:
            return set(self._draft.addresses_held(node.id))
        assert self._cluster is not None
        return self._draft.addresses_in(network, self._cluster.id)


def mac_of(address: str, network: str = "") -> str:
    """A locally administered MAC address. On a node's own network it has the IPv4 address in it: as unique as that is.
    On a cluster's it is of address and network, so that no two interfaces of a guest have the same."""
    if not network:
        return ":".join(f"{byte:02x}" for byte in (0x02, 0x77, *ipaddress.IPv4Address(address).packed))
    digest = hashlib.sha256(f"{network} {address}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x78, *digest[:4]))
