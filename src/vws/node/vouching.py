"""The last gate before a boot: this node boots what was vouched for, and nothing else.

What the service ordered is compared with what was granted and signed, by this node's own arithmetic; and the files that
will be opened with what was verified when they came. Both cost next to nothing for an image that nobody touched: files
are told by their size, times and inode, signatures are remembered.

An order without a word on its image comes from a service that vouches for nothing; then only the files are looked at.
"""

from __future__ import annotations

from vws.core.deployment import WorkspaceOrder
from vws.core.trust import why_not_vouched
from vws.node.images import ImageCache
from vws.ports import ImageRefused


def must_be_vouched(order: WorkspaceOrder) -> None:
    """Raise ImageRefused unless what is ordered is what is vouched for. Looks at no file."""
    reason = "" if order.vouched is None else why_not_vouched(order, order.vouched)
    if reason:
        raise ImageRefused(f"this node refuses to boot it: {reason}")


def must_be_whole(order: WorkspaceOrder, cache: ImageCache) -> None:
    """The same, and raise HypervisorError unless its files are here as they were verified. Blocks."""
    must_be_vouched(order)
    cache.check(order.all_files)
