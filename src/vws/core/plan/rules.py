"""What a site's configuration chooses among when it plans, as one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from vws.core.plan.demand import Demand

# Whose memory may be saved to make room.
NOBODYS: Final = 0
SINGLES: Final = 1  # of demands with one member
ANYBODYS: Final = 2

UNLIMITED: Final = 1 << 30


@final
class Rules:
    """bookings: how many soft demands may be promised a later start (0 none, 1 EASY, UNLIMITED conservative). backfill:
    False stops at the first that cannot start. suspend: NOBODYS, SINGLES, ANYBODYS. migrate: whether what was saved may
    be resumed on other nodes. Rates in MiB/s: nodes work side by side, the members on a node one after another; enact_s
    is what each member of a lease adds to a suspension or resumption (Sotomayor et al., HPCC 2009).

    useful: a block that is cut has to run so many times as long as its suspension and resumption take.
    smallest_first: who goes ahead of the queue is tried by area (members times seconds), those that have waited longer
    than patience_s in turn before them. setbacks_max: how often a demand is suspended, and how often restarted, before
    it is left to run; spared_after_s: how long one has to wait until no hard demand may take its booking, nor kill it.
    spread: members go where most is left, rather than where it is taken soonest.

    may_suspend(hard, victim). may_start(demand, at): whether nothing but room keeps a soft one from beginning then.
    host_rank(demand, node, at, until): the smallest is preferred, of the nodes that have room from `at` until `until`.
    """

    def __init__(
        self,
        *,
        bookings: int = 1,
        backfill: bool = True,
        suspend: int = ANYBODYS,
        migrate: bool = True,
        suspend_mib_per_s: float = 50.0,
        resume_mib_per_s: float = 50.0,
        transfer_mib_per_s: float = 12.5,
        enact_s: float = 0.0,
        useful: float = 2.0,
        patience_s: int = 86_400,
        smallest_first: bool = True,
        setbacks_max: int = 10,
        spared_after_s: int = 4 * 86_400,
        spread: bool = False,
        may_start: Callable[[Demand, int], bool] | None = None,
        may_suspend: Callable[[Demand, Demand], bool] | None = None,
        host_rank: Callable[[Demand, int, int, int], float] | None = None,
    ) -> None:
        self.bookings = bookings
        self.backfill = backfill
        self.suspend = suspend
        self.migrate = migrate
        self.suspend_mib_per_s = suspend_mib_per_s
        self.resume_mib_per_s = resume_mib_per_s
        self.transfer_mib_per_s = transfer_mib_per_s
        self.enact_s = enact_s
        self.useful = useful
        self.patience_s = patience_s
        self.smallest_first = smallest_first
        self.setbacks_max = setbacks_max
        self.spared_after_s = spared_after_s
        self.spread = spread
        self.may_start = may_start
        self.may_suspend = may_suspend
        self.host_rank = host_rank

    def learn(
        self, suspend_s_per_mib: float, resume_s_per_mib: float, transfer_s_per_mib: float, enact_s: float
    ) -> bool:
        """Plan with these rates from now on; whether they are others than before."""
        before = (self.suspend_mib_per_s, self.resume_mib_per_s, self.transfer_mib_per_s, self.enact_s)
        self.suspend_mib_per_s = 1.0 / max(suspend_s_per_mib, 1e-9)
        self.resume_mib_per_s = 1.0 / max(resume_s_per_mib, 1e-9)
        self.transfer_mib_per_s = 1.0 / max(transfer_s_per_mib, 1e-9)
        self.enact_s = enact_s
        return before != (self.suspend_mib_per_s, self.resume_mib_per_s, self.transfer_mib_per_s, self.enact_s)

    def can_be_saved(self, demand: Demand) -> bool:
        """Whether a block of this demand may end in a suspension."""
        return (
            demand.preemptible
            and demand.suspensions < self.setbacks_max
            and demand.by < 0
            and (self.suspend == ANYBODYS or (self.suspend == SINGLES and demand.members == 1))
        )

    def can_be_restarted(self, demand: Demand) -> bool:
        """Whether it may be killed and queued anew."""
        return demand.restartable and demand.restarts < self.setbacks_max

    def save_s(self, demand: Demand, hosts: list[int] | None) -> int:
        """Seconds to write the members' memory to their nodes' disks (hosts unknown: one member per node)."""
        return self._memory_s(demand, hosts, self.suspend_mib_per_s)

    def alone_s(self, largest_mib: int, members: int) -> int:
        """The same for members of which each is alone on its node."""
        return seconds(largest_mib / self.suspend_mib_per_s) + seconds(self.enact_s * members)

    def restore_s(self, demand: Demand, hosts: list[int] | None) -> int:
        """Seconds to read it back."""
        return self._memory_s(demand, hosts, self.resume_mib_per_s)

    def transfer_s(self, demand: Demand) -> int:
        """Seconds for one round of transfers between nodes: those of the largest memory."""
        return seconds(demand.largest_mib / self.transfer_mib_per_s)

    def _memory_s(self, demand: Demand, hosts: list[int] | None, mib_per_s: float) -> int:
        worst = 0
        if hosts is None or demand.one_per_node:
            worst = seconds(demand.largest_mib / mib_per_s)
        else:
            on_node: dict[int, int] = {}
            member = 0
            for part in demand.parts:
                each_s = seconds(int(part.size.memory_mib) / mib_per_s)
                for _ in range(part.count):
                    node = hosts[member]
                    member += 1
                    on_node[node] = on_node.get(node, 0) + each_s
            worst = max(on_node.values())
        return worst + seconds(self.enact_s * demand.members)


def seconds(value: float) -> int:
    """Rounded up: what takes a part of a second is planned with the whole of it."""
    whole = int(value)
    return whole if whole == value else whole + 1
