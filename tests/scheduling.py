"""Who of several workers of pytest-xdist runs which file.

Files with real machines come first (tests/conftest.py), and two workers begin there. Emulated machines that contend for
the processors cost twice as much of them, but many wait for a time or for each other: so all further workers begin at
the other end, with tests that only compute.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

WITH_MACHINES = 2


class FromBothEnds(LoadFileScheduling):
    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.nodes.index(node) >= WITH_MACHINES:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
