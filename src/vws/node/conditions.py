"""How things stand with a node, said once for each change: in the log, and for its administrator in reports."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from vws.node.link import Link, LinkError, Refused

log = logging.getLogger(__name__)

# Those for which a node should get no new workspaces; the others concern the link only.
REPORTED = ("hypervisor", "network", "disk", "clock", "orders", "generation", "keeping")


class Conditions:
    """`changed` is called when what is reported did."""

    def __init__(self, node: str, changed: Callable[[], None]) -> None:
        self._node = node
        self._changed = changed
        self._problems: dict[str, str] = {}

    def tell(self, of: str, problem: str) -> None:
        """`problem`: in words for the node's administrator; "" when all is well."""
        before = self._problems.get(of, "")
        if problem == before:
            return
        self._problems[of] = problem
        if problem:
            log.warning("%s: %s", self._node, problem)
        else:
            log.info("%s: well again: %s", self._node, before)
        if of in REPORTED:
            self._changed()

    def get(self, of: str) -> str:
        return self._problems.get(of, "")

    @property
    def reported(self) -> str:
        return "; ".join(dict.fromkeys(problem for of in REPORTED if (problem := self.get(of))))


class Trouble:
    """How one of the agent's loops gets through refusals (slowly) and absences of the service (as soon as it can)."""

    def __init__(self, link: Link, conditions: Conditions, doing: str) -> None:
        self._link = link
        self._conditions = conditions
        self._doing = doing
        self._times = 0

    def over(self) -> None:
        self._times = 0
        self._conditions.tell(self._doing, "")

    async def endure(self, error: LinkError) -> None:
        """Return when it is time to try again."""
        self._times += 1
        if isinstance(error, Refused):
            self._conditions.tell(self._doing, _advice(error))
            await asyncio.sleep(min(2.0**self._times, 60.0) * random.uniform(0.8, 1.0))
            return
        await self._link.reachable()  # the link itself says that the service is away, once for all who use it
        # Somebody listens. The first try again is at once; what fails then is no mere restart of the service.
        if self._times > 1:
            await asyncio.sleep(min(0.1 * 2.0**self._times, 10.0) * random.uniform(0.5, 1.0))


def _advice(error: Refused) -> str:
    if error.status in (401, 403, 404):
        return (
            f"the service does not accept this node ({error.reason}); it takes no new orders and goes on enforcing "
            "the ends it knows. If the node was removed from the site, stop its agent; else join it anew"
        )
    if error.status == 409:
        return (
            f"the service refuses this agent ({error.reason}); another agent seems to run with this node's "
            "credentials: stop one of them"
        )
    return f"the service refused ({error.status}): {error.reason}"
