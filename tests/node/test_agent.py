"""The agent over a fake hypervisor and a fake service: orders in, facts out, whatever happens in between."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from dataclasses import replace

import pytest

from tests.node.builders import FakeLink, Node, OwnClock, in_loop, order, orders, until
from vws.core.deployment import NetworkOrder, NicOrder
from vws.core.lifecycle import Desired, Observation
from vws.core.site import ImageFile
from vws.node.config import FakeConfig
from vws.node.fake import FakeHypervisor
from vws.node.link import Refused, TunnelRequest
from vws.ports import HypervisorError

O, D = Observation, Desired  # noqa: E741


@in_loop
async def test_what_is_ordered_comes_up_is_changed_and_goes(tmp_path):
    link = FakeLink(orders(order(), order("wsp-2")))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        await node.until_reported(O.RUNNING, "wsp-2")
        assert link.fact().host_key.startswith("ssh-ed25519 ")
        link.order(orders(order(desired=D.PAUSE), generation=2))
        await node.until_reported(O.PAUSED)
        await node.until_reported(None, "wsp-2")
        assert set(node.fake.remains()) == {"wsp-1"}
        link.order(orders(order(desired=D.SUSPEND), generation=3))
        await node.until_reported(O.SUSPENDED)
        link.order(orders(order(memory_mib=200, end=2_000_000_000), generation=4))
        await until(lambda: link.fact().state is O.RUNNING and link.fact().memory_mib == 200)
        link.order(orders(order(boots=2), generation=5))
        await until(lambda: link.fact().state is O.RUNNING and link.fact().boots == 2)
        link.order(orders(generation=6))
        await node.until_reported(None)
        assert node.fake.remains() == {}
        assert link.reports[-1].generation == 6


@in_loop
async def test_each_boot_is_started_once_and_reports_name_the_orders_they_were_made_under(tmp_path):
    starts: list[int] = []

    class Counting(FakeHypervisor):
        async def start(self, ordered, keys=None):
            starts.append(ordered.boots)
            await super().start(ordered, keys)

    link = FakeLink(orders(order()))
    link.repeat = True
    counting = Counting(tmp_path / "counting", FakeConfig.instant())
    async with Node(tmp_path, link, hypervisor=counting) as node:
        await node.until_reported(O.RUNNING)
        calls = link.calls
        await until(lambda: link.calls > calls + 5)
        assert starts == [1], "orders that are repeated are harmless"
    assert all(report.generation in (0, 1) for report in link.reports)
    for report in link.reports:
        assert report.generation == 0 or report.workspaces, "silence under these orders would mean that it is gone"
    assert [r.sequence for r in link.reports] == list(range(1, len(link.reports) + 1))


@in_loop
async def test_orders_of_an_older_generation_are_refused_and_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr("vws.node.agent.REFUSED_PAUSE_S", 0.1)
    link = FakeLink(orders(order(), generation=5))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.order(orders(generation=4))
        await until(lambda: "generation 4, but 5 was seen" in link.reports[-1].problem)
        assert link.fact().state is O.RUNNING
        assert link.reports[-1].generation == 5
        link.order(orders(order(), generation=6))
        await until(lambda: link.reports[-1].generation == 6 and not link.reports[-1].problem)


@in_loop
async def test_orders_for_another_node_are_refused(tmp_path):
    link = FakeLink(orders(order(), node="nod-2"))
    async with Node(tmp_path, link) as node:
        await until(lambda: bool(link.reports) and "another node (nod-2)" in link.reports[-1].problem)
        calls = link.calls
        await asyncio.sleep(0.4)
        assert link.calls - calls < 5, "what is refused is not asked for again in a hurry"
        assert node.fake.remains() == {}
        assert link.reports[-1].generation == 0
        assert "another node" in link.reports[-1].problem


@in_loop
async def test_half_a_message_is_refused(tmp_path):
    class Torn(FakeLink):
        async def orders(self, after, wait_s):
            pulled = await super().orders(after, wait_s)
            del pulled.orders["workspaces"][0]["end"]
            return pulled

    link = Torn(orders(order()))
    async with Node(tmp_path, link) as node:
        await until(lambda: bool(link.reports) and "cannot be read" in link.reports[-1].problem)
        assert node.fake.remains() == {}


# ---------------------------------------------------------------- ends


@in_loop
async def test_an_end_is_enforced_within_a_second_while_the_service_is_away(tmp_path):
    link = FakeLink()
    end = link.end_in(0.7)
    link.order(orders(order(end=end)))
    async with Node(tmp_path, link, look_every_s=10) as node:
        await node.until_reported(O.RUNNING)
        link.leave()
        await until(lambda: node.fake.remains() == {})
        assert 0 <= link.now() - end < 1
        link.come_back()
        await node.until_reported(O.ENDED)
        assert "console wsp-1" in link.log, "the end of its console's log is sent belatedly"
        link.order(orders(generation=2))
        await node.until_reported(None)


@in_loop
async def test_an_end_that_passed_while_the_agent_was_away_is_enforced_at_its_start_without_the_service(tmp_path):
    link = FakeLink()
    end = link.end_in(0.7)
    link.order(orders(order(end=end)))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.leave()
    await asyncio.sleep(end - link.now())
    async with Node(tmp_path, link) as node:
        started = time.time()
        await until(lambda: node.fake.remains() == {})
        assert time.time() - started < 1


@in_loop
async def test_an_agent_that_lost_its_orders_enforces_the_ends_that_the_hypervisor_kept(tmp_path):
    link = FakeLink()
    end = link.end_in(0.7)
    link.order(orders(order(end=end), order("wsp-2")))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        await node.until_reported(O.RUNNING, "wsp-2")
        link.leave()
    for name in ("orders.json", "memory.json"):
        (tmp_path / "agent" / name).unlink()
    async with Node(tmp_path, link) as node:
        await until(lambda: set(node.fake.remains()) == {"wsp-2"})
        assert 0 <= link.now() - end < 1
        link.ordered = orders(order(end=end), order("wsp-2"), generation=1)
        link.come_back()
        await node.until_reported(O.ENDED)
        await node.until_reported(O.RUNNING, "wsp-2")


@in_loop
async def test_an_extension_moves_the_end_that_is_enforced(tmp_path):
    link = FakeLink()
    end = link.end_in(0.7)
    link.order(orders(order(end=end)))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.order(orders(order(end=end + 100), generation=2))
        await until(lambda: node.agent.workspaces.instances["wsp-1"].end == end + 100)
        await asyncio.sleep(end + 0.3 - link.now())
        assert link.fact().state is O.RUNNING


@in_loop
async def test_an_extension_that_comes_too_late_revives_nothing(tmp_path):
    link = FakeLink()
    end = link.end_in(0.7)
    link.order(orders(order(end=end)))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.leave()
        await until(lambda: node.fake.remains() == {})
    link.ordered = orders(order(end=end + 100), generation=2)
    link.come_back()
    async with Node(tmp_path, link) as node:
        await until(lambda: link.fact() is not None and "before the extension arrived" in link.fact().reason)
        assert link.fact().state is O.ENDED
        assert node.fake.remains() == {}


@pytest.mark.parametrize(("ahead_s", "words"), [(600, "ahead of the service's"), (-600, "behind the service's")])
def test_ends_are_those_of_the_service_clock_even_after_a_restart_without_it(tmp_path, ahead_s, words):
    """By the node's own clock the end is 10 minutes past, or 10 minutes off."""

    @in_loop
    async def run():
        link = FakeLink()
        end = link.end_in(1.2)
        link.order(orders(order(end=end)))
        async with Node(tmp_path, link, clock=OwnClock(ahead_s)) as node:
            await node.until_reported(O.RUNNING)
            await until(lambda: f" s {words}" in link.reports[-1].problem)
            link.leave()
        async with Node(tmp_path, link, clock=OwnClock(ahead_s)) as node:
            await asyncio.sleep(0.4)
            assert set(node.fake.remains()) == {"wsp-1"}, "it is not removed before its time"
            await until(lambda: node.fake.remains() == {})
            assert 0 <= link.now() - end < 1

    run()


@in_loop
async def test_an_end_waits_for_no_guest_that_takes_its_time_to_stop(tmp_path):
    link = FakeLink()
    end = link.end_in(1.2)
    deaf = [order(f"wsp-{number}") for number in range(1, 9)]
    link.order(orders(*deaf, order("wsp-9", end=end)))
    async with Node(tmp_path, link, fake=FakeConfig.instant(stop_s=3)) as node:
        await until(lambda: bool(link.reports) and all(f.state is O.RUNNING for f in link.reports[-1].workspaces))
        link.order(orders(*(replace(each, boots=2) for each in deaf), order("wsp-9", end=end), generation=2))
        await node.until_reported(O.ENDED, "wsp-9")
        assert 0 <= link.now() - end < 1
        assert link.fact().step == "stopping, to boot anew"


@in_loop
async def test_that_an_end_has_come_is_on_disk_before_its_removal_begins_and_holds_nothing_up(tmp_path):
    writers, there = [], []
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        keep = node.state.keep_memories

        def slowly(memories, *, durable):
            if durable:
                writers.append(threading.current_thread())
                time.sleep(0.1)
                there.append(set(node.fake.remains()))
            keep(memories, durable=durable)

        node.state.keep_memories = slowly
        await node.until_reported(O.RUNNING)
        link.order(orders(order(end=int(link.now())), generation=2))
        await node.until_reported(O.ENDED)
        assert there == [{"wsp-1"}]
        assert threading.main_thread() not in writers, "it has the other workspaces to see to"
        assert node.state.memories()["wsp-1"].ended


@in_loop
async def test_an_end_that_comes_while_its_image_is_fetched_stops_that(tmp_path):
    class Stalling(FakeLink):
        async def fetch(self, sha256, size_bytes, target, progress):
            await asyncio.sleep(1000)

    file = ImageFile("disk", "0" * 64, 100, "raw")
    link = Stalling()
    end = link.end_in(0.7)
    link.order(orders(order(end=end, files=(file,)), order("wsp-2", files=(file,))))
    async with Node(tmp_path, link, builds_at_once=1) as node:
        await node.until_reported(O.ENDED)
        assert link.now() - end < 1
        # The second waited for its turn; what only waits is not held up by what stalls.
        link.order(orders(generation=2))
        await node.until_reported(None, "wsp-2")
        await until(lambda: node.fake.remains() == {})


# ---------------------------------------------------------------- restarts


@in_loop
async def test_a_killed_agent_goes_on_where_it_was(tmp_path):
    link = FakeLink(orders(order(), order("wsp-2", desired=D.PAUSE)))
    node = await Node(tmp_path, link).__aenter__()
    await node.until_reported(O.PAUSED, "wsp-2")
    await node.until_reported(O.RUNNING)
    await node.kill()
    heard = len(link.reports)
    link.leave()
    async with Node(tmp_path, link) as node:
        await until(lambda: node.agent.workspaces.sighted)
        link.come_back()
        await until(lambda: len(link.reports) > heard)
        first = link.reports[heard]
        assert first.incarnation > link.reports[0].incarnation
        assert first.instance == link.reports[0].instance
        assert {f.id: f.state for f in first.workspaces} == {"wsp-1": O.RUNNING, "wsp-2": O.PAUSED}
        assert first.generation == 1, "kept orders are obeyed and named"


@in_loop
async def test_orders_that_went_missing_with_a_copied_directory_are_not_obeyed_there(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path / "a", link) as node:
        await node.until_reported(O.RUNNING)
    (tmp_path / "a" / "agent").rename(tmp_path / "agent")
    link.leave()
    async with Node(tmp_path, link) as node:
        await until(lambda: node.agent.workspaces.sighted)
        assert node.agent.workspaces.orders is None
        assert node.fake.remains() == {}


@in_loop
async def test_a_guest_that_powers_itself_off_stays_off_over_restarts(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        node.fake.power_off("wsp-1")
        await node.until_reported(O.STOPPED)
    async with Node(tmp_path, link) as node:
        await until(lambda: link.reports[-1].incarnation == node.agent._incarnation)
        assert link.fact().state is O.STOPPED


@in_loop
async def test_stopping_leaves_workspaces_and_their_network_and_an_empty_node_nothing(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
    assert node.fake._shelf.ids("network") == {"bridge"}
    assert set(node.fake.remains()) == {"wsp-1"}
    async with Node(tmp_path, link) as node:
        link.order(orders(generation=2))
        await node.until_reported(None)
    assert node.fake._shelf.ids("network") == set()


@in_loop
async def test_a_retired_agent_ends_what_is_leased_without_the_service_and_leaves(tmp_path):
    link = FakeLink()
    end = link.end_in(0.7)
    link.order(orders(order(end=end)))
    node = await Node(tmp_path, link, look_every_s=10).__aenter__()
    await node.until_reported(O.RUNNING)
    link.leave()
    node.agent.retire()
    await node.gone()
    assert 0 <= link.now() - end < 1.5
    assert node.fake.remains() == {}
    assert node.fake._shelf.ids("network") == set()


@in_loop
async def test_a_service_that_is_back_calls_retirement_off_and_the_log_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.leave()
        node.agent.retire()
        await asyncio.sleep(0.05)
        link.come_back()
        link.order(orders(generation=2))
        await node.until_reported(None)
        await asyncio.sleep(0.1)
        assert node._task is not None
        assert not node._task.done()
    assert caplog.text.count("the service answers, so this node stays") == 1


# ---------------------------------------------------------------- what befalls guests and nodes


@in_loop
async def test_a_crash_is_reported_at_once_with_its_reason_after_its_console(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link, look_every_s=10, report_every_s=10) as node:
        await node.until_reported(O.RUNNING)
        link.log.clear()
        node.fake.crash("wsp-1", "the guest's kernel panicked")
        await node.until_reported(O.BROKEN, within_s=1)
        assert link.fact().reason == "the guest's kernel panicked"
        assert link.log[:2] == ["console wsp-1", "report"]
        assert b"Linux version" in link.consoles["wsp-1"]


@in_loop
async def test_the_console_is_kept_before_a_workspace_is_said_to_be_gone(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.order(orders(generation=2))
        await node.until_reported(None)
        gone = next(i for i, r in enumerate(link.reports) if r.generation == 2 and not r.workspaces)
        reports = [i for i, what in enumerate(link.log) if what == "report"]
        assert link.log.index("console wsp-1") < reports[gone]
        assert b"login:" in link.consoles["wsp-1"]


@pytest.mark.parametrize(("status", "left"), [(404, []), (403, ["wsp-1"])])
def test_a_console_that_the_service_does_not_take_holds_up_nothing(tmp_path, status, left):
    class Deaf(FakeLink):
        async def keep_console(self, workspace, data):
            raise Refused(status, "", "no")

    @in_loop
    async def run():
        link = Deaf(orders(order()))
        async with Node(tmp_path, link) as node:
            await node.until_reported(O.RUNNING)
            link.order(orders(generation=2))
            await node.until_reported(None, within_s=1)
            assert node.state.spooled_consoles() == left

    run()


@in_loop
async def test_a_guest_that_never_answers_is_broken_with_the_end_of_its_console(tmp_path):
    link = FakeLink(orders(order(boot_limit_s=1)))
    async with Node(tmp_path, link, fake=FakeConfig.instant(failures={"guest": 1})) as node:
        await node.until_reported(O.STARTING)
        await node.until_reported(O.BROKEN)
        assert "did not answer within 1 s" in link.fact().reason
        assert "init: starting" in link.fact().reason


@in_loop
async def test_a_corrupt_image_breaks_it_at_once_with_a_reason(tmp_path):
    data = b"not what it should be"
    file = ImageFile("disk", "0" * 64, len(data), "raw")
    link = FakeLink(orders(order(files=(file,))))
    link.blobs["0" * 64] = data
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.BROKEN, within_s=1)
        assert "the image is corrupt" in link.fact().reason


@in_loop
async def test_a_disk_that_is_full_for_a_moment_is_overcome_and_one_that_stays_full_is_told(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        node.fake.fill_disk()
        await until(lambda: link.reports != [] and link.fact() and "no space is left" in link.fact().reason)
        assert link.fact().state is O.STAGING
        node.fake.fill_disk(False)
        await node.until_reported(O.RUNNING)
        node.fake.fill_disk()
        link.order(orders(order(), order("wsp-2"), generation=2))
        await node.until_reported(O.BROKEN, "wsp-2")
        assert "no space is left" in link.fact("wsp-2").reason


@in_loop
async def test_an_image_that_is_fetched_is_verified_and_its_progress_told(tmp_path):
    data = bytes(100_000)
    digest = hashlib.sha256(data).hexdigest()
    link = FakeLink(orders(order(files=(ImageFile("disk", digest, len(data), "raw"),))))
    link.blobs[digest] = data
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
    assert (tmp_path / "fake" / "images" / digest).read_bytes() == data


@in_loop
async def test_a_service_that_goes_away_in_mid_download_is_no_failure(tmp_path):
    data = b"x" * 1000
    digest = hashlib.sha256(data).hexdigest()

    class Leaving(FakeLink):
        async def fetch(self, sha256, size_bytes, target, progress):
            if not self.blobs:
                self.blobs[digest] = data
                self.leave()
            return await super().fetch(sha256, size_bytes, target, progress)

    link = Leaving(orders(order(files=(ImageFile("disk", digest, len(data), "raw"),))))
    async with Node(tmp_path, link) as node:
        await until(lambda: link.away)
        await asyncio.sleep(0.3)
        link.come_back()
        await node.until_reported(O.RUNNING)
        assert not any(f.reason for r in link.reports for f in r.workspaces)


@in_loop
async def test_a_vanished_disk_is_a_loss_and_is_never_made_anew(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        link.order(orders(order(may_create=False), generation=2))
        await until(lambda: link.reports[-1].generation == 2)
        node.fake.lose_disk("wsp-1")
        await node.until_reported(O.BROKEN)
        assert "its disk has vanished" in link.fact().reason


@in_loop
async def test_a_removal_that_fails_is_tried_until_it_is_done_and_says_why(tmp_path):
    class Sticky(FakeHypervisor):
        left = 1

        async def remove(self, id):
            if self.left:
                self.left -= 1
                raise HypervisorError("the tap is busy", final=True)
            await super().remove(id)

    link = FakeLink(orders(order()))
    async with Node(tmp_path, link, hypervisor=Sticky(tmp_path / "sticky", FakeConfig.instant())) as node:
        await node.until_reported(O.RUNNING)
        link.order(orders(generation=2))
        await until(lambda: link.fact() is not None and link.fact().reason == "the tap is busy")
        assert link.fact().state is O.REMOVING
        await node.until_reported(None)


@in_loop
async def test_a_step_without_effect_is_not_repeated_in_a_hurry(tmp_path):
    pauses = 0

    class Numb(FakeHypervisor):
        async def pause(self, id):
            nonlocal pauses
            pauses += 1

    link = FakeLink(orders(order(desired=D.PAUSE)))
    async with Node(tmp_path, link, hypervisor=Numb(tmp_path / "numb", FakeConfig.instant())):
        await until(lambda: link.fact() is not None and "pause had no effect" in link.fact().reason)
        await asyncio.sleep(0.3)
        assert pauses == 1


@in_loop
async def test_a_workspace_withdrawn_while_it_is_made_is_not_called_gone_before_it_is(tmp_path):
    made, go_on = asyncio.Event(), asyncio.Event()

    class Slow(FakeHypervisor):
        async def create(self, ordered, fetch, step, keys=None):
            self._shelf.put("overlay", ordered.id, {})
            made.set()
            await go_on.wait()

    link = FakeLink(orders(order()))
    slow = Slow(tmp_path / "slow", FakeConfig.instant())
    async with Node(tmp_path, link, hypervisor=slow, look_every_s=10) as node:
        await made.wait()
        link.order(orders(generation=2))
        await until(lambda: bool(link.reports) and link.reports[-1].generation == 2)
        assert link.fact().state is O.REMOVING
        go_on.set()
        await node.until_reported(None)
        assert slow.remains() == {}
    assert link.states() == [s for s in ("-", "staging", "removing", "-") if s in link.states()][-len(link.states()) :]


# ---------------------------------------------------------------- a service with troubles


@pytest.mark.parametrize(("status", "words"), [(401, "does not accept this node"), (409, "another agent seems to run")])
def test_a_refusal_is_logged_once_and_not_repeated_in_a_hurry(tmp_path, caplog, status, words):
    @in_loop
    async def run():
        link = FakeLink()
        link.order(orders(order(end=link.end_in(0.7))))
        async with Node(tmp_path, link) as node:
            await node.until_reported(O.RUNNING)
            link.refusal = Refused(status, "", "no")
            link.order(orders(generation=2))
            calls = link.calls
            await until(lambda: node.fake.remains() == {})
            assert link.now() - node.agent.workspaces.orders.workspaces[0].end < 1, "ends are enforced all the same"
            assert link.calls - calls < 12

    with caplog.at_level(logging.WARNING):
        run()
    said = [record.getMessage() for record in caplog.records if words in record.getMessage()]
    assert len(said) == 2, "once for orders, once for reports"


@in_loop
async def test_a_service_that_returns_is_noticed_quickly(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link, report_every_s=0.1) as node:
        await node.until_reported(O.RUNNING)
        link.leave()
        await asyncio.sleep(0.3)
        heard = len(link.reports)
        link.come_back()
        await until(lambda: len(link.reports) > heard, within_s=1)
        link.order(orders(order("wsp-2"), generation=2))
        await node.until_reported(O.RUNNING, "wsp-2", within_s=1)


@in_loop
async def test_changes_that_come_together_make_one_report_and_quiet_means_the_usual_beat(tmp_path):
    many = [order(f"wsp-{i}") for i in range(50)]
    link = FakeLink(orders(*many))
    async with Node(tmp_path, link, report_every_s=0.2, look_every_s=10, builds_at_once=64, coalesce_s=0.02) as node:
        await until(lambda: bool(link.reports) and all(f.state is O.RUNNING for f in link.reports[-1].workspaces))
        assert len(link.reports) < 25
        before = len(link.reports)
        await asyncio.sleep(0.5)
        assert 1 <= len(link.reports) - before <= 4
        assert node.agent.workspaces.generation == 1


# ---------------------------------------------------------------- tunnels


@in_loop
async def test_a_tunnel_joins_its_user_to_the_guest(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        tunnel = link.request_tunnel(TunnelRequest("tun-1", "wsp-1", "tcp:22"))
        await until(lambda: tunnel.sent == b"SSH-2.0-fake\r\n")
        await tunnel.to_send.put(b"hello")
        await until(lambda: tunnel.sent.endswith(b"hello"))
        await tunnel.to_send.put(None)
        await until(lambda: tunnel.closed == (1000, ""))


@pytest.mark.parametrize(
    ("target", "workspace", "code", "words"),
    [
        ("tcp:80", "wsp-1", 4502, "nothing listens on port 80"),
        ("tcp:22", "wsp-9", 4404, "wsp-9 is not on this node"),
        ("tcp:99999", "wsp-1", 4404, "no target"),
        ("file:/etc/passwd", "wsp-1", 4404, "no target"),
    ],
)
def test_a_tunnel_that_cannot_be_says_why(tmp_path, target, workspace, code, words):
    @in_loop
    async def run():
        link = FakeLink(orders(order()))
        async with Node(tmp_path, link) as node:
            await node.until_reported(O.RUNNING)
            tunnel = link.request_tunnel(TunnelRequest("tun-1", workspace, target))
            await until(lambda: tunnel.closed is not None)
            assert tunnel.closed[0] == code
            assert words in tunnel.closed[1]

    run()


@in_loop
async def test_a_console_is_followed_until_its_reader_leaves_and_its_tail_is_had_at_once(tmp_path):
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        follower = link.request_tunnel(TunnelRequest("tun-1", "wsp-1", "console"))
        await until(lambda: b"login:" in follower.sent)
        link.order(orders(order(boots=2), generation=2))
        await until(lambda: b"boot 2 of" in follower.sent)
        assert follower.sent.count(b"boot 1 of") == 1
        assert follower.closed is None
        await follower.to_send.put(None)
        await until(lambda: follower.closed is not None)
        tail = link.request_tunnel(TunnelRequest("tun-2", "wsp-1", "console:tail=20"))
        await until(lambda: tail.closed is not None)
        assert len(tail.sent) == 20


@in_loop
async def test_a_tunnel_that_waits_is_opened_once(tmp_path):
    class Slow(FakeLink):
        opened = 0

        async def tunnel(self, id):
            self.opened += 1
            await asyncio.sleep(0.3)
            return await super().tunnel(id)

    link = Slow(orders(order()))
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        calls = link.calls
        tunnel = link.request_tunnel(TunnelRequest("tun-1", "wsp-1", "tcp:22"))
        await until(lambda: tunnel.sent != b"")
        assert link.opened == 1
        assert link.calls - calls < 15, "the answer that a tunnel waits does not make the agent spin"


def test_nothing_the_agent_keeps_is_readable_by_others(tmp_path):
    @in_loop
    async def run():
        link = FakeLink(orders(order()))
        async with Node(tmp_path, link) as node:
            await node.until_reported(O.RUNNING)
            node.fake.crash("wsp-1")
            await node.until_reported(O.BROKEN)

    run()
    for path in [*(tmp_path / "agent").rglob("*"), tmp_path / "agent"]:
        assert path.stat().st_mode & 0o077 == 0, path


@in_loop
async def test_the_network_of_new_orders_is_made_before_they_are_obeyed_and_finished_before_leaving(tmp_path):
    done: list[str] = []

    class Slow(FakeHypervisor):
        async def open(self, ordered):
            await asyncio.sleep(0.2)
            await super().open(ordered)
            done.append(f"open {ordered.subnet if ordered else None}")

        async def create(self, ordered, fetch, step, keys=None):
            done.append("create")
            await super().create(ordered, fetch, step, keys)

    link = FakeLink(orders(order()))
    async with Node(tmp_path, link, hypervisor=Slow(tmp_path / "slow", FakeConfig.instant())) as node:
        await node.until_reported(O.RUNNING)
        assert done == ["open None", "open 10.64.0.0/24", "create"]
        link.order(replace(orders(order(), generation=2), subnet="10.64.9.0/24"))
        await until(lambda: bool(node.agent._watch._opening) and not node.agent._watch._opening.done())
    assert done[-1] == "open 10.64.9.0/24", "what was begun when it was told to stop is not left half made"


@in_loop
async def test_a_network_that_comes_with_orders_is_made_before_its_member_and_news_are_heard_on(tmp_path):
    network = NetworkOrder("net-1", "10.20.0.0/24", "10.20.0.1")
    member = order("wsp-2", nics=(NicOrder("net-1", "02:77:00:00:00:01", "10.20.0.2"),))
    link = FakeLink(orders(order()))
    async with Node(tmp_path, link, look_every_s=60) as node:
        await node.until_reported(O.RUNNING)
        listening = node.agent._watch._listening
        link.order(replace(orders(order(), member, generation=2), networks=(network,)))
        await node.until_reported(O.RUNNING, "wsp-2")
        assert node.agent._watch._listening is listening
        node.fake.crash("wsp-1")
        await node.until_reported(O.BROKEN)
        link.order(orders(order(), generation=3))
        await node.until_reported(None, "wsp-2")
        assert node.fake._shelf.ids("network") == {"bridge"}


@in_loop
async def test_a_look_while_new_orders_are_prepared_does_not_take_their_network_away_again(tmp_path):
    opened: list[tuple[str, ...]] = []

    class Slow(FakeHypervisor):
        async def open(self, ordered):
            await asyncio.sleep(0.2)
            await super().open(ordered)
            opened.append(tuple(network.id for network in ordered.networks) if ordered else ())

    network = NetworkOrder("net-1", "10.20.0.0/24", "10.20.0.1")
    member = order("wsp-2", nics=(NicOrder("net-1", "02:77:00:00:00:01", "10.20.0.2"),))
    link = FakeLink(orders(order()))
    slow = Slow(tmp_path / "slow", FakeConfig.instant())
    async with Node(tmp_path, link, hypervisor=slow, look_every_s=60) as node:
        await node.until_reported(O.RUNNING)
        opened.clear()
        link.order(replace(orders(order(), member, generation=2), networks=(network,)))
        await until(lambda: not node.agent._watch._opening.done())
        node.agent._watch.look_now()
        await node.until_reported(O.RUNNING, "wsp-2")
        await until(lambda: node.agent._watch._opening.done())
        assert opened == [("net-1",)]


@in_loop
async def test_a_disk_that_is_nearly_full_is_a_problem(tmp_path):
    link = FakeLink(orders())
    async with Node(tmp_path, link, min_free_mib=1 << 40):
        await until(lambda: bool(link.reports) and "MiB are free on the disk" in link.reports[-1].problem)


@in_loop
async def test_how_a_command_ended_is_reported_by_the_next_agent_too(tmp_path):
    link = FakeLink(orders(order(command="exit 3"), order("wsp-2", command="sleep 60")))
    for _ in range(2):
        async with Node(tmp_path, link) as node:
            await node.until_reported(O.STOPPED)
            assert link.fact().exit_status == 3
            await node.until_reported(O.RUNNING, "wsp-2")
            assert link.fact("wsp-2").exit_status is None


@in_loop
async def test_a_download_is_told_of_the_workspace_that_it_was_made_for(tmp_path):
    data = b"x" * (3 << 20)
    file = ImageFile("disk", hashlib.sha256(data).hexdigest(), len(data), "raw")
    link = FakeLink(orders(order(files=(file,)), order("wsp-2", files=(file,))))
    link.blobs[file.sha256] = data
    async with Node(tmp_path, link) as node:
        await node.until_reported(O.RUNNING)
        await node.until_reported(O.RUNNING, "wsp-2")
        assert sorted(link.fact(id).fetched_mib for id in ("wsp-1", "wsp-2")) == [0, 3]
