"""Making the workspaces of a lease: one for each member, with a name, an address and an order for its node."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from vws.core.draft import Draft
from vws.core.lifecycle import Desired, State
from vws.core.site import Group, Lease, Node, Workspace
from vws.core.usage import member_of

Ids = Callable[[str], str]


def make_members(draft: Draft, lease: Lease, hosts: Sequence[str], ids: Ids, *, end: int) -> None:
    """Order the members of `lease` from their nodes (`hosts`: ids, group by group), to be removed at `end`."""
    left = iter(hosts)
    for group in lease.groups:
        for number in range(1, group.count + 1):
            node = next(left)
            address = _free_address(draft.node(node), draft.addresses_held(node))
            member = _member(
                lease, group, name_of(lease, group, number), number, node, address, draft.now, ids("wsp"), end
            )
            draft.say_workspace("workspace.planned", draft.order(member), address=address, **member_of(member))


def name_of(lease: Lease, group: Group, number: int) -> str:
    """What the member of a group is called, `number` counting from 1."""
    return f"{lease.name}-{group.name}-{number}" if group.name else f"{lease.name}-{number}"


def _member(
    lease: Lease, group: Group, name: str, number: int, node: str, address: str, now: float, id: str, end: int
) -> Workspace:
    return Workspace(
        id=id,
        name=name,
        lease=lease.id,
        owner=lease.owner,
        group=group.name,
        number=number,
        node=node,
        image=group.image,
        state=State.PLANNED,
        desired=Desired.RUN,
        address=address,
        mac=mac_of(address),
        cpus=group.cpus,
        memory_mib=group.memory_mib,
        disk_mib=group.disk_mib,
        cpus_defined=group.cpus,
        memory_defined_mib=group.memory_mib,
        end=end,
        created_at=now,
        changed_at=now,
    )


def _free_address(node: Node, held: set[str]) -> str:
    hosts = ipaddress.ip_network(node.subnet).hosts()
    next(hosts)  # the gateway's
    return next(text for text in map(str, hosts) if text not in held)


def mac_of(address: str) -> str:
    """A locally administered MAC address with the IPv4 address in it: as unique as that is."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x77, *ipaddress.IPv4Address(address).packed))
