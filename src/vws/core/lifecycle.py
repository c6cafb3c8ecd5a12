"""How a workspace moves through its life.

Every legal move is in the two tables below; nothing else decides what a
workspace may do next, and docs/states.md is drawn from them.

A *command* comes from a user or from the end of a lease and may be refused. An
*observation* is a fact from a node and is never refused: each state has an
answer for each of them. States ending in -ing wait for their goal and ignore
the facts of the moment before; the other states take facts as they are, so that
whatever happened on a node, the record ends up saying it.

Besides its state a workspace has a *desired* condition, which is what its node
is told. It outlives LOST: a workspace that was paused when its node fell silent
is to be paused when the node returns.

FAILED and TERMINATED are final. The node is told to remove what is left of
both, and only when it says that nothing is left does the workspace's address
return to the pool (`Workspace.released_at` in core/site.py).
"""

from __future__ import annotations

from enum import StrEnum, auto

from vws.core.errors import CommandRefused


class State(StrEnum):
    PLANNED = auto()
    STAGING = auto()
    STARTING = auto()
    RUNNING = auto()
    PAUSING = auto()
    PAUSED = auto()
    RESUMING = auto()
    SUSPENDING = auto()
    SUSPENDED = auto()
    RESTORING = auto()
    REBOOTING = auto()
    STOPPED = auto()
    TERMINATING = auto()
    TERMINATED = auto()
    FAILED = auto()
    LOST = auto()


class Command(StrEnum):
    PAUSE = auto()
    RESUME = auto()
    SUSPEND = auto()
    RESTORE = auto()
    REBOOT = auto()
    TERMINATE = auto()


class Observation(StrEnum):
    """What a node says of a workspace; SILENT is what the site says of the node.

    ENDED: the node enforced the lease's end by itself and nothing is left.
    GONE: nothing of it is on the node. REMOVING: not ordered any more, still there.
    """

    STAGING = auto()
    STARTING = auto()
    RUNNING = auto()
    PAUSED = auto()
    SUSPENDED = auto()
    STOPPED = auto()
    BROKEN = auto()
    REMOVING = auto()
    ENDED = auto()
    GONE = auto()
    SILENT = auto()


class Desired(StrEnum):
    RUN = auto()
    PAUSE = auto()
    SUSPEND = auto()
    REMOVE = auto()


S, C, O = State, Command, Observation  # noqa: E741

COMMANDS: dict[State, dict[Command, State]] = {
    S.PLANNED: {C.TERMINATE: S.TERMINATING},
    S.STAGING: {C.TERMINATE: S.TERMINATING},
    S.STARTING: {C.REBOOT: S.REBOOTING, C.TERMINATE: S.TERMINATING},
    S.RUNNING: {
        C.PAUSE: S.PAUSING,
        C.RESUME: S.RUNNING,
        C.SUSPEND: S.SUSPENDING,
        C.RESTORE: S.RUNNING,
        C.REBOOT: S.REBOOTING,
        C.TERMINATE: S.TERMINATING,
    },
    S.PAUSING: {C.PAUSE: S.PAUSING, C.RESUME: S.RESUMING, C.TERMINATE: S.TERMINATING},
    S.PAUSED: {
        C.PAUSE: S.PAUSED,
        C.RESUME: S.RESUMING,
        C.SUSPEND: S.SUSPENDING,
        C.TERMINATE: S.TERMINATING,
    },
    S.RESUMING: {C.RESUME: S.RESUMING, C.TERMINATE: S.TERMINATING},
    # A suspension that cannot finish (no disk space) can be called off.
    S.SUSPENDING: {C.SUSPEND: S.SUSPENDING, C.RESUME: S.RESUMING, C.TERMINATE: S.TERMINATING},
    S.SUSPENDED: {C.SUSPEND: S.SUSPENDED, C.RESTORE: S.RESTORING, C.TERMINATE: S.TERMINATING},
    S.RESTORING: {C.RESTORE: S.RESTORING, C.TERMINATE: S.TERMINATING},
    S.REBOOTING: {C.REBOOT: S.REBOOTING, C.TERMINATE: S.TERMINATING},
    S.STOPPED: {C.REBOOT: S.REBOOTING, C.TERMINATE: S.TERMINATING},
    S.TERMINATING: {C.TERMINATE: S.TERMINATING},
    S.TERMINATED: {C.TERMINATE: S.TERMINATED},
    S.FAILED: {C.TERMINATE: S.FAILED},
    S.LOST: {C.TERMINATE: S.TERMINATING},
}

GOALS: dict[Command, Desired] = {
    C.PAUSE: Desired.PAUSE,
    C.RESUME: Desired.RUN,
    C.SUSPEND: Desired.SUSPEND,
    C.RESTORE: Desired.RUN,
    C.REBOOT: Desired.RUN,
    C.TERMINATE: Desired.REMOVE,
}


def _facts(here: State, **moves: State) -> dict[Observation, State]:
    """A row of the table: what is not named leaves the state `here`; the ends are the same for all."""
    row = dict.fromkeys(O, here)
    row |= {O.BROKEN: S.FAILED, O.ENDED: S.TERMINATED, O.GONE: S.FAILED, O.SILENT: S.LOST}
    return row | {O[name]: state for name, state in moves.items()}


OBSERVATIONS: dict[State, dict[Observation, State]] = {
    # Not yet there is no loss: the node has not begun.
    S.PLANNED: _facts(
        S.PLANNED,
        STAGING=S.STAGING,
        STARTING=S.STARTING,
        RUNNING=S.RUNNING,
        STOPPED=S.STOPPED,
        GONE=S.PLANNED,
    ),
    S.STAGING: _facts(S.STAGING, STARTING=S.STARTING, RUNNING=S.RUNNING, STOPPED=S.STOPPED, GONE=S.STAGING),
    S.STARTING: _facts(S.STARTING, STAGING=S.STAGING, RUNNING=S.RUNNING, STOPPED=S.STOPPED),
    # A guest that was up once is running until it is gone; its own reboots are its own affair.
    S.RUNNING: _facts(S.RUNNING, PAUSED=S.PAUSED, SUSPENDED=S.SUSPENDED, STOPPED=S.STOPPED),
    S.PAUSING: _facts(S.PAUSING, PAUSED=S.PAUSED, STOPPED=S.STOPPED),
    S.PAUSED: _facts(S.PAUSED, RUNNING=S.RUNNING, SUSPENDED=S.SUSPENDED, STOPPED=S.STOPPED),
    S.RESUMING: _facts(S.RESUMING, RUNNING=S.RUNNING, STOPPED=S.STOPPED),
    S.SUSPENDING: _facts(S.SUSPENDING, SUSPENDED=S.SUSPENDED, STOPPED=S.STOPPED),
    S.SUSPENDED: _facts(S.SUSPENDED, RUNNING=S.RUNNING, PAUSED=S.PAUSED, STOPPED=S.STOPPED),
    S.RESTORING: _facts(S.RESTORING, RUNNING=S.RUNNING, STOPPED=S.STOPPED),
    # Which boot a RUNNING belongs to is told apart in core/deployment.py, by the count of boots.
    S.REBOOTING: _facts(S.REBOOTING, STARTING=S.STARTING, RUNNING=S.RUNNING, STOPPED=S.STOPPED),
    S.STOPPED: _facts(S.STOPPED, RUNNING=S.RUNNING),
    # A node's death is no proof that the domain died: only the node, back again, can say so.
    S.TERMINATING: _facts(S.TERMINATING, BROKEN=S.TERMINATING, GONE=S.TERMINATED, SILENT=S.TERMINATING),
    S.TERMINATED: dict.fromkeys(O, S.TERMINATED),
    S.FAILED: dict.fromkeys(O, S.FAILED),
    S.LOST: _facts(
        S.LOST,
        STAGING=S.STAGING,
        STARTING=S.STARTING,
        RUNNING=S.RUNNING,
        PAUSED=S.PAUSED,
        SUSPENDED=S.SUSPENDED,
        STOPPED=S.STOPPED,
    ),
}

FINAL = frozenset({S.TERMINATED, S.FAILED})
# What a node must not run or keep.
UNORDERED = FINAL | {S.TERMINATING}
# The guest rests because its user said so: nothing moves in it, not even its clock.
WAKING = frozenset({S.RESUMING, S.RESTORING})
RESTING = WAKING | {S.PAUSING, S.PAUSED, S.SUSPENDING, S.SUSPENDED}
# The lease's promise is being kept.
SETTLED = RESTING | {S.RUNNING, S.REBOOTING}


def commanded(state: State, command: Command) -> State:
    """Return the state after `command`, or raise CommandRefused naming what is allowed instead."""
    try:
        return COMMANDS[state][command]
    except KeyError:
        allowed = ", ".join(sorted(c for c in COMMANDS[state] if COMMANDS[state][c] != state))
        raise CommandRefused(
            f"cannot {command} a workspace that is {state}",
            field="command",
            asked=str(command),
            possible=f"while {state}: {allowed or 'nothing, it has ended'}",
        ) from None


def observed(state: State, fact: Observation) -> State:
    """Return the state after `fact`. Never refuses; a repeat changes nothing."""
    return OBSERVATIONS[state][fact]
