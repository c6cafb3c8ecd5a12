"""What users have in leases that have not ended.

Limits ask for it at each request, and a user of a large site may have thousands of leases: so they are kept by their
owners, and their workspaces are counted as leases come, change and go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vws.core.site import LEASE_FINAL, Lease, LeaseState

# What is being removed was given back, whatever is left of it.
OVER = LEASE_FINAL | {LeaseState.ENDING}


class Outstanding:
    def __init__(self) -> None:
        self._of: dict[str, dict[str, Lease]] = {}
        self._nodes: dict[str, int] = {}

    def put(self, lease: Lease) -> None:
        """A lease as it is from now on."""
        mine = self._of.setdefault(lease.owner, {})
        nodes = self._nodes.get(lease.owner, 0) - _nodes_of(mine.get(lease.id))
        if lease.state in OVER:
            mine.pop(lease.id, None)
        else:
            mine[lease.id] = lease
            nodes += _nodes_of(lease)
        self._nodes[lease.owner] = nodes

    def of(self, users: Collection[str], but: Collection[str] = ()) -> Iterator[Lease]:
        """The leases of some users, but those of certain ids."""
        for user in sorted(users):
            for lease in self._of.get(user, {}).values():
                if lease.id not in but:
                    yield lease

    def nodes(self, users: Collection[str], but: Collection[str] = ()) -> int:
        """How many workspaces these have together."""
        all_told = sum(self._nodes.get(user, 0) for user in users)
        return all_told - sum(_nodes_of(self._of[user].get(id)) for user in users if user in self._of for id in but)


def _nodes_of(lease: Lease | None) -> int:
    return 0 if lease is None else sum(group.count for group in lease.groups)
