"""What stands in for a replay where only the running of many is tested; other processes import it."""

from __future__ import annotations

import os
import signal
import time


def told(cell):
    return {"leases": len(cell.jobs.jobs), "process": os.getpid()}


def failing_with_easy(cell):
    if cell.policy == "easy":
        raise ValueError("no such luck")
    return told(cell)


def killed_with_easy(cell):
    if cell.policy == "easy":
        os.kill(os.getpid(), signal.SIGKILL)
    return told(cell)


def exiting(cell):
    os._exit(3)


def endless(cell):
    time.sleep(60)


def first_done(cell):
    if cell.policy == "endless":
        endless(cell)
    return told(cell)
