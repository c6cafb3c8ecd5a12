"""What a site needs and nobody asks for: what nothing points at is dropped, lists of others are read again.

Both last as long as a bucket or a stranger's web server likes, so they have a thread of their own: the loop that plans
and heals leases waits for nobody. Of several processes the one that leads does them. What fails is tried again when it
is due the next time and told in events, and nothing that was in force is given up for it.

Lists are not read on the stroke of a clock: sites that follow the same one would all come at once. When each is due
hangs on its id, so that a restart changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import threading

from vws.core.errors import VwsError
from vws.core.site import Subscription
from vws.service.access import SITE
from vws.service.image_lists import ImageLists
from vws.service.images import Images
from vws.service.site import Site

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
# After the start; a site that is restarted daily is to be cleaned, too.
FIRST_AFTER_S = 600.0
# A list that could not be read is tried again sooner.
AGAIN_AFTER_S = 3600.0
# How far the times of lists are apart, of the time between two reads.
SPREAD = 0.2


class Housekeeper:
    def __init__(self, site: Site, images: Images, lists: ImageLists) -> None:
        self._site, self._images, self._lists = site, images, lists
        self._rules = site.settings.images
        self._collect_at = site.clock.now() + min(FIRST_AFTER_S, self._rules.collect_every_s or 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end. What it is waiting for on the network is not waited for."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                if self._site.store.lead():
                    self.step()
            except Exception:
                log.exception("keeping house failed; it is tried again")

    def step(self) -> None:
        """Do what is due now."""
        self._collect()
        for each in self._lists.subscriptions(SITE):
            if not self._ended.is_set() and self._is_due(each):
                self._refresh(each)

    def _collect(self) -> None:
        every_s, now = self._rules.collect_every_s, self._site.clock.now()
        # A clock that was set back must not put it off for ever.
        if every_s is None or self._collect_at - every_s <= now < self._collect_at:
            return
        self._collect_at = now + every_s
        images, files = self._images.collect(SITE)
        log.info("dropped what nothing points at: %d images, %d files", len(images), len(files))

    def _is_due(self, found: Subscription) -> bool:
        every_s, now = self._rules.lists_every_s, self._site.clock.now()
        if every_s is None or not found.url:
            return False
        wait_s = min(every_s, AGAIN_AFTER_S) if found.problem else every_s
        due_at = found.refreshed_at + wait_s * (1 + SPREAD * _place(found.id))
        return not found.refreshed_at <= now < due_at

    def _refresh(self, found: Subscription) -> None:
        try:
            self._lists.refresh(SITE, found.id)
        except VwsError as error:
            log.warning("the image list %s could not be read again: %s", found.name, error.problem)


def _place(id: str) -> float:
    """-0.5 to 0.5, the same for an id each time."""
    return hashlib.sha256(id.encode()).digest()[0] / 255 - 0.5
