"""What the planner knows of a lease, and the block of time that it was given.

A *demand* asks for members on nodes for so many seconds of running. Hard ones (`at >= 0`) start at their moment and are
never moved; soft ones wait for room, may be booked ahead, and may be cut short, saved and resumed if preemptible.

A *block* is the one interval in which a demand holds nodes: its steps follow each other without a gap,

    begin [transfer] moved [prepare or resume] run [run] stop [save or shut down] end

and each step occupies what it occupies: a member that is being saved or restored takes memory, disk and its place, no
CPU. All members of a demand run at the same time.
"""

from __future__ import annotations

from typing import Final, final

from vws.core.plan.profile import NOTHING, Amount

# The phases of a demand's life.
WAITING: Final = 0  # in the queue, without a block
BOOKED: Final = 1  # its block lies ahead
PREPARING: Final = 2  # its block has begun: moving, staging, booting or resuming
RUNNING: Final = 3
SAVING: Final = 4
SAVED: Final = 5  # in the queue, its memory on disk
STOPPING: Final = 6
OVER: Final = 7

PHASES: Final = ("waiting", "booked", "preparing", "running", "saving", "saved", "stopping", "over")


@final
class Kind:
    """What parts have in common that differ in nothing but how many members they have: until when, at a moment, the
    longest openings for such members stay open."""

    def __init__(self, eligible: list[bool] | None) -> None:
        self.eligible = eligible
        self.at = -1
        self.grown = 0
        self.longest: list[int] = []


@final
class Part:
    """`count` equal members. apart: no two on one node; together: all on one.

    eligible: by node, whether it may be there at all (None: anywhere); prefers: where it would rather be.
    """

    def __init__(
        self,
        count: int,
        size: Amount,
        *,
        apart: bool = False,
        together: bool = False,
        eligible: list[bool] | None = None,
        prefers: list[bool] | None = None,
    ) -> None:
        self.count = count
        self.size = size
        self.apart = apart
        self.together = together
        self.eligible = eligible
        self.prefers = prefers
        self.saved_size = Amount(0, size.memory_mib, size.disk_mib, 0, size.places)
        self.kept_size = NOTHING  # what a saved member goes on holding beside its block
        self.kind: Kind | None = None  # the timeline's

    @property
    def asked(self) -> Amount:
        """What one opening must have room for."""
        return self.size.times(self.count) if self.together else self.size

    @property
    def openings_needed(self) -> int:
        return 1 if self.together else self.count

    @property
    def most_per_node(self) -> int:
        return 1 if self.apart or self.together else self.count


@final
class Block:
    """hosts: the node of each member, part by part, -1 for one that is gone. saves: it ends in a suspension; restores:
    it begins with a resumption; doomed: it is ended at `stop` even if its work is not done, which is then lost.
    """

    def __init__(self, hosts: list[int], begin: int, moved: int, run: int, stop: int, end: int) -> None:
        self.hosts = hosts
        self.begin = begin
        self.moved = moved
        self.run = run
        self.stop = stop
        self.end = end
        self.saves = False
        self.restores = False
        self.doomed = False
        self.moves = 0
        self.order = 0  # of being laid: who comes first when several are due at a time


@final
class Demand:
    """A lease as the planner sees it. Times are whole seconds, durations seconds.

    number: its place among all (ties are broken by it). requested: seconds of running. at: when a hard one runs, -1 for
    soft ones. by: a deadline, -1 for none. prepare_s: what staging and booting take at most, shutdown_s what the end
    takes. turn: who is to be served first, by the site's policy (the smallest). one_node: all parts on one node.
    """

    def __init__(
        self,
        id: str,
        number: int,
        submit: int,
        parts: list[Part],
        requested: int,
        *,
        at: int = -1,
        by: int = -1,
        preemptible: bool = True,
        restartable: bool = False,
        urgent: bool = False,
        prepare_s: int = 0,
        shutdown_s: int = 0,
        turn: float = 0.0,
        standing: object = None,
        one_node: bool = False,
    ) -> None:
        self.id = id
        self.number = number
        self.submit = submit
        self.parts = parts
        self.requested = requested
        self.at = at
        self.by = by
        self.preemptible = preemptible
        self.restartable = restartable
        self.urgent = urgent
        self.prepare_s = prepare_s
        self.shutdown_s = shutdown_s
        self.turn = turn
        self.standing = standing
        self.one_node = one_node
        self.asks = parts  # what openings are looked for
        self.hurries = False  # it would rather begin before its time
        self.phase = WAITING
        self.block: Block | None = None
        self.worked = 0
        self.saved_on: list[int] = []
        self.saved_at = 0
        self.suspensions = 0
        self.restarts = 0
        self.migrations = 0
        self.taken = 0  # its place among all that were taken in
        self.least = -1  # how long a block it needs to begin, without having been saved; -1: not known
        self.next = -1  # when the next step of its block begins
        self.kept = False  # what is kept of its members is held apart from its block
        self.alike: dict[str, Demand] | None = None  # among whom the planner keeps it while it could give way
        self.one_per_node = True
        self.members = 0
        self.largest_mib = 0  # of its members' memory
        self.total = NOTHING
        self.saved_total = NOTHING
        self.area = 0
        self.resize(parts)

    def resize(self, parts: list[Part]) -> None:
        """Its members have other sizes from now on."""
        self.parts = parts
        self.least = -1
        self.one_per_node = True
        self.members = 0
        self.largest_mib = 0
        self.total = NOTHING
        self.saved_total = NOTHING
        for part in parts:
            self.members += part.count
            self.largest_mib = max(self.largest_mib, int(part.size.memory_mib))
            self.one_per_node = self.one_per_node and (part.apart or part.count == 1) and len(parts) == 1
            self.total = self.total.plus(part.size.times(part.count))
            self.saved_total = self.saved_total.plus(part.saved_size.times(part.count))
        self.area = self.members * self.requested
        self.asks = [self._whole()] if self.one_node else parts

    def _whole(self) -> Part:
        """All members as one that is as large."""
        return Part(
            1,
            self.total,
            together=True,
            eligible=_everywhere([part.eligible for part in self.parts]),
            prefers=_everywhere([part.prefers for part in self.parts]),
        )

    def __repr__(self) -> str:
        return f"<Demand {self.id} {PHASES[self.phase]}>"

    @property
    def hard(self) -> bool:
        return self.at >= 0

    @property
    def remaining(self) -> int:
        return self.requested - self.worked

    def saved_size_of(self, member: int) -> Amount:
        for part in self.parts:
            if member < part.count:
                return part.saved_size
            member -= part.count
        raise IndexError(member)

    def sizes(self) -> list[Amount]:
        """The size of each member, part by part."""
        found: list[Amount] = []
        for part in self.parts:
            for _ in range(part.count):
                found.append(part.size)
        return found


def _everywhere(masks: list[list[bool] | None]) -> list[bool] | None:
    """Where all of the masks hold; None holds anywhere."""
    found: list[bool] | None = None
    for mask in masks:
        if mask is not None:
            found = mask if found is None else [a and b for a, b in zip(found, mask, strict=True)]
    return found
