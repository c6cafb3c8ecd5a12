"""What administrators say of nodes: labels, attributes, maintenance."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient

Run = Callable[..., Result]


def test_changes_are_words_with_signs(vws: Run, client: FakeClient) -> None:
    result = vws("node", "label", "host-1", "+ssd", "-hpc", "rack=r12", "-old", "disks=-4", 'serial="0042"', "url=a=b")
    assert result.stdout == "host-1: labels gpu, ssd; attributes gpus=2, rack=r1.\n"
    attributes = {"rack": "r12", "disks": -4, "serial": "0042", "url": "a=b"}
    assert client.asked == [
        ("label_node", "host-1", {"labels": ["ssd"], "attributes": attributes, "remove": ["hpc", "old"]})
    ]


@pytest.mark.parametrize("words", [["-old", "--json"], ["--json", "-old"], ["--json", "--", "-old"]])
def test_options_stay_options_among_them(vws: Run, client: FakeClient, words: list[str]) -> None:
    assert json.loads(vws("node", "label", "host-1", *words).stdout)["name"] == "host-1"
    assert client.asked[-1][2]["remove"] == ["old"]


@pytest.mark.parametrize("words", [["gpu"], ["+"], ["-"], ["=x"], ["+a=b"], ["-a=b"], [], ["+a", "-a"], ["a=1", "-a"]])
def test_what_is_no_change_is_not_sent(vws: Run, client: FakeClient, words: list[str]) -> None:
    result = vws("node", "label", "host-1", *words)
    assert result.exit_code == 2
    assert client.asked == []


def test_a_node_shows_what_it_is(vws: Run) -> None:
    shown = vws("node", "show", "host-1").stdout
    for line in ("bandwidth     1000 Mbit/s", "accelerators  nvidia, 10de:2204", "attributes    gpus=2, rack=r1"):
        assert line in shown
    assert " for 1h: new disks" in shown
    assert "in 2h" in vws("node", "list").stdout.splitlines()[1]


def test_a_maintenance_is_planned_and_says_what_is_in_its_way(vws: Run, client: FakeClient) -> None:
    result = vws("node", "maintenance", "add", "host-1", "--from", "+2h", "--for", "90m", "--reason", "new disks")
    _, name, duration_s, reason, start = client.asked[0]
    assert (name, duration_s, reason) == ("host-1", 5400, "new disks")
    assert abs(start - (time.time() + 7200)) < 60
    assert "vws node maintenance remove mnt-1" in result.stdout
    assert result.stderr == "2 leases will be there meanwhile and stay: demo, train.\n"
    vws("node", "maintenance", "add", "host-1", "--for", "1h", "--reason", "now")
    assert client.asked[1][-1] is None


def test_maintenances_are_listed_by_their_start_and_called_off(vws: Run, client: FakeClient) -> None:
    lines = vws("node", "maintenance", "list", "host-1", "--all").stdout.splitlines()
    assert client.asked == [("maintenances", {"node": "host-1", "all": True})]
    assert [line.split()[0] for line in lines] == ["ID", "mnt-0", "mnt-1"]
    assert lines[2].endswith("new disks  demo, train")
    assert "is removed" in vws("node", "maintenance", "remove", "mnt-1").stdout
