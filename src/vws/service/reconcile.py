"""The one loop: facts from nodes and the passing of time become changes.

The loop that starts leases also heals them: there is no second repair path. Reports queue up and are taken in
batches, one commit for all that wait, because a commit's cost is its disk flush. The one process that leads also
watches the clock (ends of leases, silent nodes).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from vws.core.cache_tasks import order_prefetches
from vws.core.deployment import NodeReport
from vws.core.draft import Draft
from vws.core.enactment import advance
from vws.core.errors import NotFound, Unavailable
from vws.core.maintenance import pass_time
from vws.core.policy import first_come
from vws.core.standing import absorb, expire, listen
from vws.faultpoints import reach
from vws.service.access import Caller
from vws.service.batches import next_batch
from vws.service.nodes import Nodes
from vws.service.once import KEPT_S
from vws.service.site import Site
from vws.service.usage import Usage

log = logging.getLogger(__name__)

TICK_S = 0.5
HEARD_FLUSH_S = 5.0
FORGET_EVERY_S = 3600.0
SHARE_EVERY_S = 10.0
BATCH_MAX = 32
REPORT_WAIT_S = 30.0


@dataclass(frozen=True)
class Waiting:
    report: NodeReport
    done: Future[int]


class Reconciler:
    """Start it once per process; `report` may be called from any thread."""

    def __init__(self, site: Site, nodes: Nodes, usage: Usage, tidy: Callable[[], None] = lambda: None) -> None:
        """`tidy`: called every few seconds by the one process that leads."""
        self._site = site
        self._usage = usage
        self._tidy = tidy
        self._nodes = nodes
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)
        self._stopping = threading.Event()
        self._flushed_at = self._forgot_at = self._shared_at = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    @property
    def works(self) -> bool:
        return self._thread.is_alive()

    def report(self, caller: Caller, report: NodeReport, instance: str | None = None) -> int:
        """Take a report in and return the number of the node's present orders, once it is committed."""
        return self.submit(caller, report, instance).result(REPORT_WAIT_S)

    def submit(self, caller: Caller, report: NodeReport, instance: str | None = None) -> Future[int]:
        """The same without waiting, for those who have no thread to spare for each of hundreds of nodes."""
        self._nodes.heard(caller, report.node, instance or report.instance)
        if self._stopping.is_set():
            raise Unavailable("the service is stopping", possible="the same report again in a moment")
        waiting = Waiting(report, Future())
        self._queue.put(waiting)
        return waiting.done

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        ticked_at = 0.0
        while not self._stopping.is_set():
            # Whatever goes wrong: a site whose loop has ended would look well and do nothing any more.
            try:
                self._take(next_batch(self._queue, BATCH_MAX, TICK_S))
                now = self._site.clock.now()
                if not ticked_at <= now < ticked_at + TICK_S:
                    ticked_at = now
                    self.tick()
            except Exception:
                log.exception("reconciling failed; it is tried again in %s s", TICK_S)

    def _take(self, batch: list[Waiting]) -> None:
        """Commit a batch and answer each; who gave up waiting gets no answer."""
        batch = [each for each in batch if each.done.set_running_or_notify_cancel()]
        errors = self._absorb_all([each for each in batch if self._nodes.is_news(each.report)])
        for each in batch:
            error = errors.get(id(each))
            if error is None:
                each.done.set_result(self._nodes.generation(each.report.node))
            else:
                each.done.set_exception(error)

    def _absorb_all(self, news: list[Waiting]) -> dict[int, Exception]:
        """Take reports in together, else one by one: a bad one must not keep the others waiting. Says which failed."""
        try:
            self._absorb([each.report for each in news])
        except Exception as error:
            if len(news) > 1 and not isinstance(error, Unavailable):
                return {key: why for each in news for key, why in self._absorb_all([each]).items()}
            log.exception("the reports of %s could not be taken in", ", ".join(each.report.node for each in news))
            return {id(each): error for each in news}
        return {}

    def _absorb(self, reports: list[NodeReport]) -> None:
        if not reports:
            return

        def decide(draft: Draft) -> None:
            for report in reports:
                if report.node not in draft.present.nodes:
                    raise NotFound(f"the node {report.node} was removed from this site")
                draft.actor = report.node
                absorb(draft, report)

        self._site.change("site", decide)
        reach("service.report.committed")

    def tick(self) -> None:
        """What the passing of time brings; called about twice a second."""
        self._site.catch_up()
        if not self._site.store.lead():
            return
        self._share()
        patience, silent_for_s = self._site.settings.patience, self._nodes.silent_for_s()

        def decide(draft: Draft) -> bool:
            expire(draft)
            listen(draft, silent_for_s, patience)
            pass_time(draft)
            advance(draft, self._site.ids.new)
            order_prefetches(draft)
            changed = bool(draft.changes)
            if changed:
                reach("service.tick.planned")
            return changed

        if self._site.change("site", decide):
            reach("service.end.committed")
        self._keep_house()

    def _share(self) -> None:
        """Put the queue in the order of present shares, where the site's order asks for them."""
        now = self._site.clock.now()
        if self._site.settings.chosen.order is first_come or abs(now - self._shared_at) < SHARE_EVERY_S:
            return
        with self._site.lock:
            if not self._site.present.outlook.planner.queue:
                return
        self._shared_at = now
        self._usage.catch_up()
        shares = self._usage.shares(now)
        with self._site.lock:
            self._site.present.outlook.reorder(shares, now)

    def _keep_house(self) -> None:
        now = self._site.clock.now()
        if abs(now - self._flushed_at) >= HEARD_FLUSH_S:
            self._flushed_at = now
            self._nodes.flush_heard()
            self._tidy()
        if abs(now - self._forgot_at) >= FORGET_EVERY_S:
            self._forgot_at = now
            self._site.store.forget(answers_before=now - KEPT_S)
