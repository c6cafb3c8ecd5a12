"""Refusals in the words of the command that asked: its options, not the fields of the API."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient, Refused
from vws.cli.times import show_time

Run = Callable[..., Result]
ASKED = ("lease", "request", "--image", "demo", "--for", "2h")


def told(vws: Run, client: FakeClient, refused: Refused, *line: str) -> list[str]:
    client.refusal = refused
    result = vws(*(line or ASKED))
    assert result.exit_code == 1
    return [each for each in result.stderr.splitlines() if not each.startswith("  kept:")]


@pytest.mark.parametrize(
    ("detail", "members", "lines"),
    [
        (
            "groups[0].memory_mib is 10 MiB",
            {"field": "groups[0].memory_mib", "asked": 10, "possible": "a whole number from 32 to 64 MiB"},
            ["Error: --memory is 10 MiB", "  possible: a whole number from 32 to 64 MiB"],
        ),
        (
            "no node has 9000 MiB of memory for one workspace: n2 has the most, 3950",
            {"field": "groups[0].memory_mib", "asked": 9000, "possible": "3950 MiB or less"},
            [
                "Error: no node has 9000 MiB of memory for one workspace: n2 has the most, 3950",
                "  option: --memory",
                "  possible: 3950 MiB or less",
            ],
        ),
        (
            "the disk swap has 0 MiB",
            {"field": "groups[0].disks[1].size_mib", "asked": 0, "possible": "1 to 9 MiB"},
            ["Error: the disk swap has 0 MiB", "  option: --disk", "  possible: 1 to 9 MiB"],
        ),
        (
            "duration_s is 0 s",
            {"field": "duration_s", "asked": 0, "possible": "1 s or more, not duration_s: 0"},
            ["Error: --for is 0 s", "  possible: 1 s or more, not --for: 0"],
        ),
        (
            "start is 2026-11-21T08:00:00Z, 2m before now",
            {"field": "start", "asked": 7, "possible": "8 to 9"},
            ["Error: --at is 2026-11-21T08:00:00Z, 2m before now", f"  asked: {show_time(7)}", "  possible: 8 to 9"],
        ),
        (
            "command is for leases that the site may run when it suits, not for immediate ones",
            {"field": "command", "possible": "when: best-effort or deadline, or no command"},
            [
                "Error: --command is for leases that the site may run when it suits, not for immediate ones",
                "  possible: --best-effort or --by, or no --command",
            ],
        ),
        (
            "the site has no room for 3 × (1 CPU, 512 MiB memory, 1024 MiB disk) together now",
            {"field": "groups", "asked": "3 × (1 CPU, 512 MiB memory, 1024 MiB disk)", "possible": "another size"},
            [
                "Error: the site has no room for 3 × (1 CPU, 512 MiB memory, 1024 MiB disk) together now",
                "  possible: another size",
            ],
        ),
        (
            "the user ann may have 4 workspaces at a time, and asks for 5",
            {"field": "concurrent", "limit": "concurrent", "asked": 5, "possible": "4 workspaces"},
            [
                "Error: the user ann may have 4 workspaces at a time, and asks for 5",
                "  limit: concurrent",
                "  possible: 4 workspaces",
            ],
        ),
    ],
)
def test_a_refusal_names_the_options_of_its_command(vws: Run, client: FakeClient, detail, members, lines) -> None:
    assert told(vws, client, Refused(detail, code="odd", **members)) == lines


def test_what_a_group_says_itself_is_named_there(vws: Run, client: FakeClient) -> None:
    groups = ("--group", "name=head", "--group", "name=worker,memory=10MiB", "--disk", "1MiB")
    refused = Refused("groups[1].memory_mib is 10 MiB", code="odd", field="groups[1].memory_mib", asked=10)
    assert told(vws, client, refused, *ASKED, *groups) == ["Error: memory= of --group worker is 10 MiB"]
    refused = Refused("it needs more", code="odd", field="groups[2].disk_mib")
    own = told(vws, client, refused, *ASKED, *groups, "--group", "name=store,disk=1MiB")
    assert own == ["Error: it needs more", "  field: disk= of --group store"]
    refused = Refused("it needs more", code="odd", field="groups[1].disk_mib")
    assert told(vws, client, refused, *ASKED, *groups) == ["Error: it needs more", "  option: --disk"]


def test_another_command_names_its_own_options(vws: Run, client: FakeClient) -> None:
    shorter = {"kind": "shorter", "duration_s": 60, "text": "1m"}
    refused = Refused("it cannot go on", code="odd", field="duration_s", offers=[shorter])
    line = ("lease", "extend", "demo", "--for", "2h")
    assert told(vws, client, refused, *line) == [
        "Error: it cannot go on",
        "  option: --for",
        "  would fit: 1m (--for 1m)",
    ]
    refused = Refused("no room", code="odd", offers=[{"kind": "fewer", "count": 2, "text": "2 would fit"}])
    assert told(vws, client, refused, *line) == ["Error: no room", "  would fit: 2 would fit"], "it has no -n"


def test_of_several_groups_it_is_said_which_would_be_smaller(vws: Run, client: FakeClient) -> None:
    offer = {"kind": "combined", "group": "worker", "count": 7, "duration_s": 60, "text": "7 of worker for 1m"}
    lines = told(vws, client, Refused("no room", code="odd", offers=[offer]))
    assert lines[1] == f"  would fit: {offer['text']} (n=7 of --group worker, --for 1m)"


def test_a_program_is_told_the_fields(vws: Run, client: FakeClient) -> None:
    client.refusal = Refused("duration_s is 0 s", code="odd", field="duration_s", asked=0)
    problem = json.loads(vws(*ASKED, "--json").stderr)
    assert (problem["detail"], problem["field"]) == ("duration_s is 0 s", "duration_s")
