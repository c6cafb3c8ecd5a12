"""What an agent keeps on disk, what it makes of files that are no good, and the service's clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node.builders import OwnClock, order, orders
from vws.core.errors import DuplicateNode
from vws.core.wire import to_json
from vws.node.clock import NodeClock, ServiceClock
from vws.node.converge import Memory
from vws.node.state import AgentState, Lock


def test_orders_come_back_as_they_were(tmp_path):
    sent = orders(order(), order("wsp-2"), generation=7)
    AgentState(tmp_path).keep_orders(to_json(sent))
    assert AgentState(tmp_path).orders() == sent


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"place": 1}', b"\xff\xfe", b"null"])
@pytest.mark.parametrize("name", ["orders.json", "memory.json", "identity.json", "clock.json"])
def test_a_torn_file_counts_as_absent(tmp_path, name, torn):
    (tmp_path / name).write_bytes(torn)
    state = AgentState(tmp_path)
    assert state.orders() is None
    assert state.memories() == {}
    assert state.clock_ahead_s() == 0.0
    assert len(state.instance()) == 24
    assert state.next_incarnation() > 0


def test_orders_of_another_shape_are_set_aside(tmp_path):
    state = AgentState(tmp_path)
    state.keep_orders({"node": "nod-1"})
    assert state.orders() is None
    assert (tmp_path / "orders.json.unreadable").exists()


def test_only_what_must_outlive_the_process_is_kept_of_memories(tmp_path):
    memory = Memory(boot=2, booted_at=5.5, up=1, ended=True, console=2, looked_at=9.0, sized=(1, 2))
    AgentState(tmp_path).keep_memories({"wsp-1": memory}, durable=True)
    assert AgentState(tmp_path).memories() == {"wsp-1": Memory(boot=2, booted_at=5.5, up=1, ended=True)}


def test_an_installation_has_one_name_and_a_copy_another(tmp_path):
    state = AgentState(tmp_path / "a")
    name = state.instance()
    assert AgentState(tmp_path / "a").instance() == name
    (tmp_path / "a").rename(tmp_path / "b")
    assert AgentState(tmp_path / "b").instance() != name


def test_incarnations_grow_even_if_the_clock_was_set_back(tmp_path):
    first = AgentState(tmp_path).next_incarnation()
    future = first + 10**18
    (tmp_path / "identity.json").write_text(json.dumps({"id": "x", "incarnation": future}))
    assert AgentState(tmp_path).next_incarnation() == future + 1


def test_a_directory_has_one_agent_and_the_second_is_told_the_first_ones_pid(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(DuplicateNode, match=rf"pid {os.getpid()}\) already runs"):
        Lock(tmp_path)
    lock.release()
    Lock(tmp_path).release()


def test_a_lock_goes_with_its_process(tmp_path):
    code = (
        "import os, sys, pathlib; from vws.node.state import Lock;"
        "Lock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=20, env=environment())
    assert result.returncode == -9
    Lock(tmp_path).release()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}


def test_consoles_are_spooled_until_dropped(tmp_path):
    state = AgentState(tmp_path)
    state.spool_console("wsp-2", b"two")
    state.spool_console("wsp-1", b"one")
    assert state.spooled_consoles() == ["wsp-1", "wsp-2"]
    assert state.spooled_console("wsp-2") == b"two"
    state.drop_console("wsp-2")
    state.drop_console("wsp-2")
    assert state.spooled_consoles() == ["wsp-1"]


# ---------------------------------------------------------------- the clock


class Still(NodeClock):
    def __init__(self, wall: float, steady: float) -> None:
        self.at = [wall, steady]

    def wall(self) -> float:
        return self.at[0]

    def steady(self) -> float:
        return self.at[1]


def test_the_service_clock_is_learned_from_answers_and_follows_them():
    own = Still(wall=1000.0, steady=10.0)
    clock = ServiceClock(own)
    assert clock.now() == 1000.0
    own.at = [1001.0, 11.0]
    assert clock.learn(5001.0, asked_at=10.9, answered_at=11.0)
    assert clock.now() == pytest.approx(5001.05, abs=0.06)
    assert clock.ahead_s() == pytest.approx(4000, abs=0.2)
    own.at = [9999.0, 21.0]  # somebody sets the wall clock
    assert clock.now() == pytest.approx(5011.05, abs=0.06)
    assert not clock.learn(5011.0, asked_at=20.9, answered_at=21.0)
    assert clock.learn(4911.0, asked_at=20.9, answered_at=21.0), "the service's clock was set"
    assert clock.now() == pytest.approx(4911.05, abs=0.06)


def test_an_answer_held_back_long_tells_as_much():
    own = Still(wall=1000.0, steady=35.0)
    clock = ServiceClock(own)
    clock.learn(2000.0, asked_at=10.0, answered_at=35.0)
    assert clock.now() == pytest.approx(2000.05, abs=0.06)
    clock.learn(2000.0, asked_at=10.0, answered_at=35.0)
    assert clock.now() == pytest.approx(2000.05, abs=0.06)


def test_without_a_service_there_are_the_wall_clock_and_the_kept_difference(tmp_path):
    AgentState(tmp_path).keep_clock(-600.0)
    kept = AgentState(tmp_path).clock_ahead_s()
    own = OwnClock(ahead_s=600)
    assert ServiceClock(own, kept).now() == pytest.approx(NodeClock().wall(), abs=1)
