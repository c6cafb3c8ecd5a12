"""A service's rates follow its record: as it writes it, as it reads it again, as others write it."""

from __future__ import annotations

from tests.service.conftest import ANN, Rig
from vws.core.deployment import WorkspaceFact
from vws.core.lifecycle import UNORDERED, Command
from vws.core.lifecycle import Observation as O
from vws.core.rates import Configured, Step
from vws.service import rates as subject
from vws.service.rates import Line, SiteRates, lines
from vws.service.site import Settings


def obey(rig, state: O = O.RUNNING) -> None:
    """As nodes that say what they run guests by."""
    present = rig.site.present
    for node in list(present.nodes.values()):
        facts = (
            WorkspaceFact(w.id, state, boots=w.boots) for w in present.on_node(node.id) if w.state not in UNORDERED
        )
        rig.report(node.id, *facts, hypervisor="fake")


def live(rig, times: int = 3) -> None:
    """Leases that boot in 6 s and are saved in 4."""
    rig.enroll("one")
    obey(rig)
    for _ in range(times):
        lease = rig.request()
        obey(rig, O.STARTING)
        rig.clock.time += 6
        obey(rig)
        (workspace,) = rig.leases.members(lease.id)
        rig.leases.command(ANN, workspace.id, Command.SUSPEND)
        rig.clock.time += 4
        obey(rig, O.SUSPENDED)
        rig.leases.cancel(ANN, lease.id)
        rig.clock.time += 1
        obey(rig)


def test_a_service_that_starts_knows_what_the_one_before_had_learned(rig):
    live(rig)
    known = rig.site.rates.now
    assert {key.step for key in known.learned} >= {Step.ENACT, Step.BOOT, Step.SUSPEND}
    again = SiteRates(Configured())
    again.load(rig.store)
    assert again.now == known


def test_only_the_last_events_are_read(rig, monkeypatch):
    live(rig)
    monkeypatch.setattr(subject, "EVENTS_READ", 0)
    again = SiteRates(Configured())
    again.load(rig.store)
    assert again.now.learned == {}


def test_what_another_process_commits_is_learned_once(rig, tmp_path):
    other = Rig(rig.store, tmp_path / "other", Settings())
    live(rig)
    assert other.site.rates.now.learned == {}
    other.site.catch_up()
    assert other.site.rates.now == rig.site.rates.now
    other.site.catch_up()
    assert other.site.rates.now == rig.site.rates.now


def test_what_was_under_way_at_a_restart_tells_nothing(rig, tmp_path):
    rig.enroll("one")
    rig.request()
    obey(rig, O.STARTING)
    rig.clock.time += 1000
    later = Rig(rig.store, tmp_path / "later", Settings())
    later.clock.time = rig.clock.time
    obey(later)
    assert not [key for key in later.site.rates.now.learned if key.step is Step.BOOT]


def test_the_lines_for_an_administrator_name_every_step(rig):
    assert [line.step for line in lines(rig.site.rates.now)] == [str(step) for step in Step]
    assert all(line.count == 0 for line in lines(rig.site.rates.now))
    live(rig, times=9)
    by_step = {line.step: line for line in lines(rig.site.rates.now) if not line.image}
    assert by_step["boot"] == Line("boot", "fake", "", "s", 20.0, 6.0, 24.0, 9)
    assert (by_step["suspend"].unit, by_step["suspend"].count) == ("MiB/s", 9)
    assert by_step["transfer"] == Line("transfer", "", "", "MiB/s", 12.5, 12.5, 10.417, 0)
