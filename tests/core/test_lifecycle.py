"""The lifecycle tables: total, closed, and true to a few stories."""

import pytest

from vws.core.errors import CommandRefused
from vws.core.lifecycle import (
    COMMANDS,
    FINAL,
    GOALS,
    OBSERVATIONS,
    Command,
    Observation,
    State,
    commanded,
    observed,
)

S, C, O = State, Command, Observation  # noqa: E741


def test_every_state_answers_every_observation():
    assert set(OBSERVATIONS) == set(S)
    for state, row in OBSERVATIONS.items():
        assert set(row) == set(O), f"{state} has no answer for {set(O) - set(row)}"


def test_every_state_has_a_row_of_commands_and_every_command_a_goal():
    assert set(COMMANDS) == set(S)
    assert set(GOALS) == set(C)


@pytest.mark.parametrize("state", S)
def test_whatever_the_state_it_can_be_terminated(state):
    assert C.TERMINATE in COMMANDS[state]
    after = commanded(state, C.TERMINATE)
    assert after in FINAL | {S.TERMINATING}


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_leaves_a_final_state(state):
    assert {observed(state, fact) for fact in O} == {state}
    assert {commanded(state, c) for c in COMMANDS[state]} == {state}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("fact", O)
def test_a_repeated_observation_changes_nothing(state, fact):
    once = observed(state, fact)
    assert observed(once, fact) == once


@pytest.mark.parametrize(("state", "command"), [(s, c) for s in S for c in COMMANDS[s]])
def test_a_repeated_command_is_taken_and_changes_nothing(state, command):
    once = commanded(state, command)
    assert commanded(once, command) == once


@pytest.mark.parametrize("state", sorted(set(S) - FINAL - {S.TERMINATING}))
def test_a_silent_node_makes_its_workspaces_lost_and_a_broken_one_fails(state):
    assert observed(state, O.SILENT) is S.LOST
    assert observed(state, O.BROKEN) is S.FAILED
    assert observed(state, O.ENDED) is S.TERMINATED


def test_a_silent_node_is_no_proof_that_the_domain_is_gone():
    assert observed(S.TERMINATING, O.SILENT) is S.TERMINATING
    assert observed(S.TERMINATING, O.RUNNING) is S.TERMINATING
    assert observed(S.TERMINATING, O.GONE) is S.TERMINATED


def test_suspend_and_restore_wait_for_their_goal():
    state = commanded(S.RUNNING, C.SUSPEND)
    assert observed(state, O.RUNNING) is S.SUSPENDING
    state = observed(state, O.SUSPENDED)
    assert state is S.SUSPENDED
    state = commanded(state, C.RESTORE)
    assert observed(state, O.SUSPENDED) is S.RESTORING
    assert observed(state, O.RUNNING) is S.RUNNING


def test_a_lost_workspace_comes_back_as_what_it_is():
    for fact, state in [(O.RUNNING, S.RUNNING), (O.PAUSED, S.PAUSED), (O.SUSPENDED, S.SUSPENDED)]:
        assert observed(S.LOST, fact) is state
    assert observed(S.LOST, O.GONE) is S.FAILED


def test_a_refusal_names_what_is_allowed():
    with pytest.raises(CommandRefused) as refused:
        commanded(S.SUSPENDED, C.PAUSE)
    assert refused.value.asked == "pause"
    assert "restore" in refused.value.possible
    assert "terminate" in refused.value.possible
