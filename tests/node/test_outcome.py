"""What domain states mean, and how an end is told from the log when libvirtd remembers none."""

from __future__ import annotations

import libvirt as lv
import pytest

from vws.core.lifecycle import Observation as O
from vws.node.outcome import (
    DESTROYED,
    DIED,
    DISK_FULL,
    NOT_STARTED,
    PANICKED,
    POWERED_OFF,
    SAVED,
    Seen,
    end_of_run,
    live_state,
    panic_line,
)

STARTED = (
    "2026-11-21 04:57:59.034+0000: starting up libvirt version: 9.0.0, qemu version: 7.2\n/usr/bin/qemu -name x \\\n"
)
OFF = lv.VIR_DOMAIN_SHUTOFF


def ended(reason: str) -> str:
    return f"2026-11-21 04:58:59.034+0000: shutting down, reason={reason}\n"


@pytest.mark.parametrize(
    ("state", "reason", "meaning"),
    [
        (lv.VIR_DOMAIN_RUNNING, lv.VIR_DOMAIN_RUNNING_BOOTED, (O.RUNNING, "")),
        (lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_USER, (O.PAUSED, "")),
        (lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_SAVE, (O.RUNNING, "")),
        (lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_STARTING_UP, (O.RUNNING, "")),
        (lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_IOERROR, (O.BROKEN, DISK_FULL)),
        (lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PAUSED_CRASHED, (O.BROKEN, PANICKED)),
        (lv.VIR_DOMAIN_CRASHED, lv.VIR_DOMAIN_CRASHED_PANICKED, (O.BROKEN, PANICKED)),
        (lv.VIR_DOMAIN_SHUTDOWN, 0, (O.RUNNING, "")),
    ],
)
def test_live_states(state: int, reason: int, meaning: tuple[O, str]) -> None:
    assert live_state(Seen(state, reason)) == meaning


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (lv.VIR_DOMAIN_SHUTOFF_SHUTDOWN, POWERED_OFF),
        (lv.VIR_DOMAIN_SHUTOFF_DESTROYED, DESTROYED),
        (lv.VIR_DOMAIN_SHUTOFF_CRASHED, DIED),
        (lv.VIR_DOMAIN_SHUTOFF_FAILED, NOT_STARTED),
        (lv.VIR_DOMAIN_SHUTOFF_SAVED, SAVED),
        (lv.VIR_DOMAIN_SHUTOFF_UNKNOWN, ""),
    ],
)
def test_libvirts_own_reason_comes_first(reason: int, verdict: str) -> None:
    assert end_of_run(Seen(OFF, reason), "") == verdict


@pytest.mark.parametrize(
    ("log", "verdict"),
    [
        ("", ""),
        (STARTED + ended("shutdown"), POWERED_OFF),
        (STARTED + ended("crashed"), DIED),
        (STARTED + ended("destroyed"), DESTROYED),
        (STARTED + ended("saved"), SAVED),
        (STARTED + ended("failed"), NOT_STARTED),
        (STARTED + ended("something new"), DIED),
        (STARTED, DIED),
        (STARTED + ended("unknown"), DIED),
        (STARTED + ended("saved") + ended("unknown"), SAVED),
        (STARTED + ended("saved") + STARTED + ended("unknown"), DIED),
        (STARTED + ended("shutdown") + STARTED, DIED),
        (STARTED + ended("crashed") + STARTED + ended("shutdown"), POWERED_OFF),
    ],
)
def test_the_log_tells_what_a_restarted_libvirtd_has_forgotten(log: str, verdict: str) -> None:
    assert end_of_run(Seen(OFF, lv.VIR_DOMAIN_SHUTOFF_UNKNOWN), log) == verdict


def test_a_signalled_emulator_is_no_power_off() -> None:
    seen = Seen(OFF, lv.VIR_DOMAIN_SHUTOFF_SHUTDOWN)

    def said(who: str) -> str:
        return f"{STARTED}2026-11-21T04:58:10Z qemu-system-x86_64: terminating on signal 15 from pid 7 ({who})\n"

    assert end_of_run(seen, said("kill") + ended("shutdown")) == DIED
    assert end_of_run(seen, said("/usr/sbin/libvirtd") + ended("shutdown")) == POWERED_OFF
    assert end_of_run(seen, said("libvirtd") + ended("shutdown")) == POWERED_OFF
    assert end_of_run(seen, said("kill") + ended("shutdown") + STARTED + ended("shutdown")) == POWERED_OFF


def test_a_panics_own_line_is_told_before_the_last() -> None:
    console = b"boot\r\n\x1b[1m[ 3.9] Kernel panic - not syncing: no init\r\nRIP: 0010\r\n"
    assert panic_line(console) == "[1m[ 3.9] Kernel panic - not syncing: no init"
    assert panic_line(b"one\r\ntwo\r\n\r\n") == "two"
    assert panic_line(b"") == ""
