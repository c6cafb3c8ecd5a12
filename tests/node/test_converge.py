"""The table by which an agent decides, row by row, and what holds for all of it."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.node.builders import instance, order
from vws.core.lifecycle import Desired, Observation
from vws.node import converge as subject
from vws.node.converge import Decision, Memory, Step, converge, failed, heard_out, looked, seen, succeeded
from vws.ports import Instance

O, D, S = Observation, Desired, Step  # noqa: E741
NOW = 500.0
UP = Memory(boot=1, booted_at=100.0, up=1, sized=(1, 128))


def decide(ordered, there, memory=UP, now=NOW, known=True) -> Decision:
    return converge(ordered, there, memory, now, known=known)


def run(**fields):
    return order(**({"end": 1000} | fields))


def first(**fields):
    return instance(boots=0, **fields)


# ordered, there, memory -> step, reported state
ROWS = [
    ("not created", run(), None, Memory(), S.CREATE, O.STAGING),
    ("half made", run(), first(created=False, state=O.STOPPED), Memory(), S.CREATE, O.STAGING),
    ("its disk vanished", run(may_create=False), None, UP, S.NOTHING, O.BROKEN),
    ("disk vanished in this boot", run(), instance(created=False, state=O.STOPPED), UP, S.NOTHING, O.BROKEN),
    ("made, first boot", run(), first(state=O.STOPPED), Memory(), S.START, O.STARTING),
    ("boot noted, never seen", run(), instance(state=O.STOPPED), Memory(), S.START, O.STARTING),
    ("boot noted, died unseen", run(), instance(state=O.BROKEN), Memory(), S.START, O.STARTING),
    ("earlier boot runs", run(boots=2), instance(), UP, S.STOP, O.STARTING),
    ("earlier boot is paused", run(boots=2), instance(state=O.PAUSED), UP, S.STOP, O.STARTING),
    ("earlier boot is saved", run(boots=2), instance(state=O.SUSPENDED), UP, S.RESTORE, O.STARTING),
    ("earlier boot ended", run(boots=2), instance(state=O.STOPPED), UP, S.START, O.STARTING),
    ("earlier boot died", run(boots=2), instance(state=O.BROKEN), UP, S.START, O.STARTING),
    ("booting, not asked yet", run(), instance(), Memory(boot=1, booted_at=400.0), S.LOOK, O.STARTING),
    ("booting, just asked", run(), instance(), Memory(1, 490.0, looked_at=499.9), S.NOTHING, O.STARTING),
    ("booting, to be asked again", run(), instance(), Memory(1, 490.0, looked_at=499.0), S.LOOK, O.STARTING),
    ("up", run(), instance(), UP, S.NOTHING, O.RUNNING),
    ("up, other size ordered", run(memory_mib=200), instance(), UP, S.RESIZE, O.RUNNING),
    ("up, other share ordered", run(cpus=2), instance(), UP, S.RESIZE, O.RUNNING),
    ("up, restarted agent", run(), instance(), Memory(1, 100.0, 1), S.RESIZE, O.RUNNING),
    ("paused", run(), instance(state=O.PAUSED), UP, S.RESUME, O.PAUSED),
    ("suspended", run(), instance(state=O.SUSPENDED), UP, S.RESTORE, O.SUSPENDED),
    ("powered itself off", run(), instance(state=O.STOPPED), UP, S.NOTHING, O.STOPPED),
    ("its command ended unseen", run(), instance(state=O.STOPPED, exit_status=0), Memory(), S.NOTHING, O.STOPPED),
    ("done, booted anew", run(boots=2), instance(state=O.STOPPED, exit_status=0), UP, S.START, O.STARTING),
    ("done, boot noted, never seen", run(boots=2), instance(boots=2, state=O.STOPPED, exit_status=0), UP,
     S.START, O.STARTING),
    ("died, console not kept", run(), instance(state=O.BROKEN), UP, S.CONSOLE, O.RUNNING),
    ("died", run(), instance(state=O.BROKEN, reason="panic"), replace(UP, console=1), S.NOTHING, O.BROKEN),
    ("to pause", run(desired=D.PAUSE), instance(), UP, S.PAUSE, O.RUNNING),
    ("is paused", run(desired=D.PAUSE), instance(state=O.PAUSED), UP, S.NOTHING, O.PAUSED),
    ("to pause, suspended", run(desired=D.PAUSE), instance(state=O.SUSPENDED), UP, S.RESTORE, O.SUSPENDED),
    ("to pause, off", run(desired=D.PAUSE), instance(state=O.STOPPED), UP, S.NOTHING, O.STOPPED),
    ("to suspend", run(desired=D.SUSPEND), instance(), UP, S.SUSPEND, O.RUNNING),
    ("to suspend, paused", run(desired=D.SUSPEND), instance(state=O.PAUSED), UP, S.SUSPEND, O.PAUSED),
    ("is suspended", run(desired=D.SUSPEND), instance(state=O.SUSPENDED), UP, S.NOTHING, O.SUSPENDED),
    ("new end", run(end=2000), instance(), UP, S.UPDATE, O.RUNNING),
    ("new end, paused", run(end=2000, desired=D.PAUSE), instance(state=O.PAUSED), UP, S.UPDATE, O.PAUSED),
    ("past its end", run(end=500), instance(end=500), UP, S.END, O.REMOVING),
    ("end noted", run(end=500), instance(end=500), replace(UP, ended=True), S.CONSOLE, O.REMOVING),
    ("end noted, console kept", run(end=500), instance(), replace(UP, ended=True, console=1), S.REMOVE, O.REMOVING),
    ("past its end, saved", run(end=500), instance(state=O.SUSPENDED), UP, S.END, O.REMOVING),
    ("past its end, gone", run(end=500), None, UP, S.NOTHING, O.ENDED),
    ("past its end, never made", run(end=500), None, Memory(), S.NOTHING, O.ENDED),
    ("extended too late", run(end=2000), instance(), replace(UP, ended=True, console=1), S.REMOVE, O.REMOVING),
    ("extended too late, gone", run(end=2000), None, replace(UP, ended=True), S.NOTHING, O.ENDED),
    ("to remove", run(desired=D.REMOVE), instance(), replace(UP, console=1), S.REMOVE, O.REMOVING),
    ("not ordered", None, instance(), UP, S.CONSOLE, O.REMOVING),
    ("not ordered, console kept", None, instance(), replace(UP, console=1), S.REMOVE, O.REMOVING),
    ("not ordered, never booted", None, first(state=O.STOPPED), Memory(), S.REMOVE, O.REMOVING),
    ("not ordered, half made", None, first(created=False, state=O.STOPPED, end=0), Memory(), S.REMOVE, O.REMOVING),
    ("not ordered, nothing there", None, None, UP, S.NOTHING, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ordered", "there", "memory", "step", "state"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_row(ordered, there, memory, step, state):
    decision = decide(ordered, there, memory)
    assert decision.step is step
    assert (decision.fact.state if decision.fact else None) is state


@pytest.mark.parametrize("state", [O.STOPPED, O.RUNNING])
def test_how_a_command_ended_is_told_in_every_later_boot(state):
    assert decide(run(), instance(state=state, exit_status=3)).fact.exit_status == 3
    assert decide(run(), instance(state=state)).fact.exit_status is None


def test_without_orders_everything_is_left_alone_until_its_own_end():
    assert decide(None, instance(end=501), Memory(), known=False) == Decision(S.NOTHING, None, again_at=501.0)
    assert decide(None, instance(end=500), Memory(), known=False).step is S.END
    # What was half made does not know its end yet; orders will tell.
    assert decide(None, first(created=False, end=0), Memory(), known=False).step is S.NOTHING


def test_an_end_sets_the_time_of_the_next_decision():
    assert decide(run(end=700), instance(end=700)).again_at == 700


def test_a_guest_is_asked_less_often_the_longer_it_takes():
    pauses = [subject.look_pause_s(waited_s) for waited_s in (0, 10, 29, 60, 120, 600)]
    assert pauses[0] == pauses[2] == 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] == 2.0


def test_a_guest_that_does_not_answer_in_time_is_broken_with_its_last_words():
    memory = Memory(boot=1, booted_at=NOW - 300, looked_at=NOW - 0.1)
    assert decide(run(), instance(), memory).step is S.CONSOLE
    memory = heard_out(memory, instance(), "Kernel panic")
    fact = decide(run(), instance(), memory).fact
    assert fact.state is O.BROKEN
    assert fact.reason == ("the guest did not answer within 300 s of its start; its console ended with: Kernel panic")


def test_a_guest_that_came_up_while_the_agent_was_away_is_asked_before_it_is_condemned():
    kept = Memory(boot=1, booted_at=NOW - 900)
    assert decide(run(), instance(), kept).step is S.LOOK
    assert (
        decide(run(), instance(), replace(looked(kept, instance(), True, NOW), sized=(1, 128))).fact.state is O.RUNNING
    )


@pytest.mark.parametrize("step", [S.CREATE, S.START])
def test_creation_and_start_are_tried_three_times(step):
    there = None if step is S.CREATE else first(state=O.STOPPED)
    memory, now, waited = Memory(), NOW, []
    for _ in range(3):
        assert decide(run(), there, memory, now).step is step
        memory = failed(memory, step, run(), "no luck", now)
        decision = decide(run(), there, memory, now)
        assert decision.step is S.NOTHING
        assert decision.fact.reason == "no luck"
        waited.append((decision.again_at or 0) - now)
        now = max(now, memory.failures[step].again_at)
    assert decision.fact.state is O.BROKEN
    assert waited[0] < waited[1], "the pause grows"
    again = decide(run(boots=2), there, memory, now)
    assert again.step is step, "a boot that is ordered anew is tried anew"


def test_a_final_error_breaks_at_once():
    memory = failed(Memory(), S.CREATE, run(), "the image is corrupt", NOW, final=True)
    fact = decide(run(), None, memory).fact
    assert (fact.state, fact.reason) == (O.BROKEN, "the image is corrupt")


def test_removal_is_tried_for_ever_with_the_reason_and_at_most_30_s_in_between():
    memory, now = replace(UP, console=1), NOW
    for _ in range(20):
        assert decide(None, instance(), memory, now).step is S.REMOVE
        memory = failed(memory, S.REMOVE, None, "device busy", now, final=True)
        decision = decide(None, instance(), memory, now)
        assert (decision.step, decision.fact.state, decision.fact.reason) == (S.NOTHING, O.REMOVING, "device busy")
        assert 0 < decision.again_at - now <= 30
        now = decision.again_at


def test_a_failed_suspension_leaves_it_running_with_the_reason():
    memory = failed(UP, S.SUSPEND, run(desired=D.SUSPEND), "no space left", NOW)
    fact = decide(run(desired=D.SUSPEND), instance(), memory).fact
    assert (fact.state, fact.reason) == (O.RUNNING, "no space left")
    assert decide(run(desired=D.RUN), instance(), memory).fact.reason == "", "called off"


def test_an_end_that_cannot_be_kept_holds_up_nothing_else():
    memory = failed(Memory(), S.UPDATE, run(), "read-only file system", NOW)
    assert decide(run(), first(state=O.STOPPED, end=1), memory).step is S.START


def test_a_failed_restoration_is_final_only_if_the_hypervisor_says_so():
    saved = instance(state=O.SUSPENDED)
    memory = UP
    for _ in range(10):
        memory = failed(memory, S.RESTORE, run(), "no memory free", NOW)
    assert decide(run(), saved, memory).fact.state is O.SUSPENDED
    memory = failed(memory, S.RESTORE, run(), "the saved memory is damaged", NOW, final=True)
    assert decide(run(), saved, memory).fact.state is O.BROKEN


def test_success_clears_the_failures_of_its_step():
    memory = failed(Memory(), S.START, run(), "no", NOW)
    assert S.START not in succeeded(memory, S.START, run(), NOW).failures


def test_a_restored_guest_has_the_whole_boot_limit_again():
    memory = succeeded(Memory(boot=1, booted_at=1.0), S.RESUME, run(), NOW)
    assert memory.booted_at == NOW


def test_it_reads_no_clock_and_no_chance():
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(Path(subject.__file__).read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert not imported & {"time", "datetime", "random", "os", "secrets", "asyncio"}


# ---------------------------------------------------------------- a model hypervisor that always succeeds


def carry_out(step: Step, ordered, there: Instance | None) -> Instance | None:
    """What a hypervisor without faults has after `step`."""
    if step is S.REMOVE:
        return None
    if step is S.CREATE:
        return instance(ordered.id, O.STOPPED, boots=0, end=ordered.end)
    assert there is not None
    states = {
        S.START: O.RUNNING, S.STOP: O.STOPPED, S.PAUSE: O.PAUSED,
        S.RESUME: O.RUNNING, S.SUSPEND: O.SUSPENDED, S.RESTORE: O.RUNNING,
    }  # fmt: skip
    there = replace(there, state=states.get(step, there.state))
    if step is S.START:
        return replace(there, boots=ordered.boots)
    return replace(there, end=ordered.end) if step is S.UPDATE else there


def settle(ordered, there, memory, now, known) -> tuple[list[Step], Decision, Instance | None]:
    """Decide and do until nothing is left to do; fails when that takes more than a few steps."""
    steps: list[Step] = []
    for _ in range(12):
        if there is not None:
            memory = seen(memory, there, now)
        decision = converge(ordered, there, memory, now, known=known)
        if decision.step is S.NOTHING:
            return steps, decision, there
        steps.append(decision.step)
        if decision.step is S.LOOK:
            memory = looked(memory, there, True, now)
        elif decision.step is S.CONSOLE:
            memory = heard_out(memory, there, "")
        else:
            there = carry_out(decision.step, ordered, there)
            memory = succeeded(memory, decision.step, ordered, now)
    raise AssertionError(f"does not settle: {steps}")


def orders_to_settle():
    return st.builds(
        order,
        desired=st.sampled_from(D),
        boots=st.integers(1, 3),
        may_create=st.booleans(),
        end=st.integers(400, 2000),
        memory_mib=st.sampled_from([64, 128]),
    )


def instances():
    return st.builds(
        instance,
        state=st.sampled_from([O.RUNNING, O.PAUSED, O.SUSPENDED, O.STOPPED, O.BROKEN]),
        boots=st.integers(0, 3),
        created=st.booleans(),
        end=st.integers(0, 2000),
        reason=st.sampled_from(["", "panic"]),
    )


def memories():
    return st.builds(
        Memory,
        boot=st.integers(0, 3),
        booted_at=st.floats(0, NOW),
        up=st.integers(0, 3),
        ended=st.booleans(),
        console=st.integers(0, 3),
        sized=st.none() | st.just((1, 128)),
    )


WANTED = {D.RUN: O.RUNNING, D.PAUSE: O.PAUSED, D.SUSPEND: O.SUSPENDED}


@settings(max_examples=1000, deadline=None)
@given(st.none() | orders_to_settle(), st.none() | instances(), memories(), st.booleans())
def test_it_settles_in_a_few_steps_at_what_was_ordered(ordered, there, memory, known):
    known = known or ordered is not None
    steps, decision, left = settle(ordered, there, memory, NOW, known)
    assert len(steps) <= 10
    over = ordered is not None and (memory.ended or ordered.end <= NOW)
    if (ordered is None and known) or over or (ordered and ordered.desired is D.REMOVE):
        assert left is None, "nothing that is not ordered survives"
    elif ordered is None:
        ended = there is not None and (memory.ended or 0 < there.end <= NOW)
        assert left == (None if ended else there)
    elif decision.fact.state is WANTED[ordered.desired]:
        assert left.boots >= ordered.boots
        assert left.end == ordered.end
    else:
        # What cannot be had without inventing a boot is told as it is.
        assert decision.fact.state in (O.STOPPED, O.BROKEN)
        assert S.START not in steps


@settings(max_examples=500, deadline=None)
@given(orders_to_settle(), instances(), memories())
def test_no_boot_is_started_twice(ordered, there, memory):
    steps, _, _ = settle(ordered, there, memory, NOW, True)
    assert steps.count(S.START) <= 1
    if there.boots >= ordered.boots and memory.boot >= ordered.boots:
        assert S.START not in steps
