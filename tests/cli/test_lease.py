"""`vws lease`: what is asked of the service, what is printed, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient, Refused, lease, workspace
from vws.cli import progress
from vws.core.disks import Disk

Run = Callable[..., Result]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN6OMzb4A4sUBDJ7vGhPjHlnhqBOpoqE0mJvbV9+Yd7f ada@here"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_FIRST_S", 0.001)
    monkeypatch.setattr(progress, "POLL_MAX_S", 0.001)


def asked_of(client: FakeClient) -> dict[str, Any]:
    [(name, asked)] = client.asked
    assert name == "request_lease"
    return dict(asked)


def test_a_request_names_everything_in_mib_and_seconds(vws: Run, client: FakeClient) -> None:
    line = "lease request --image demo -n 3 --cpus 2 --memory 160MiB --disk 1.5GiB --for 2h --name demo"
    result = vws(*line.split())
    assert result.exit_code == 0, result.output
    asked = asked_of(client)
    assert asked["groups"] == [{"image": "demo", "count": 3, "cpus": 2, "memory_mib": 160, "disk_mib": 1536}]
    assert (asked["duration_s"], asked["name"]) == (7200, "demo")
    assert "vws lease wait demo" in result.stdout
    assert client.closed


def test_groups_take_what_they_leave_out_from_the_options(vws: Run, client: FakeClient) -> None:
    result = vws(
        "lease", "request", "--image", "demo", "--memory", "1GiB", "--for", "30m",
        "--group", "name=head,cpus=2", "--group", "name=worker,n=3,image=other,memory=256MiB",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert asked_of(client)["groups"] == [
        {"name": "head", "image": "demo", "count": 1, "cpus": 2, "memory_mib": 1024, "disk_mib": 1024},
        {"name": "worker", "image": "other", "count": 3, "cpus": 1, "memory_mib": 256, "disk_mib": 1024},
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--for 1h", "which image?"),
        ("--image demo", "for how long?"),
        ("--image demo --for 90", "which unit"),
        ("--image demo --for 1h --memory 1GB", "write 1GiB"),
        ("--image demo --for 1h -n two", "'two' is not a valid integer"),
        ("--image demo --for 1h --group n=3 -n 2", "-n says how many of one group"),
        ("--image demo --for 1h --group size=3", "'size=3' is none of"),
        ("--image demo --for 1h --group n=3,n=4", "given twice"),
        ("--image demo --for 1h --group n=x", "no whole number"),
        ("--image demo --for 1h --group memory=1GB", "write 1GiB"),
        ("--group name=head --for 1h", "group head names none"),
        ("--image demo --for 1h --ssh-key /does/not/exist", "does not exist"),
    ],
)
def test_a_line_that_cannot_be_understood_is_status_2(vws: Run, client: FakeClient, line: str, sentence: str) -> None:
    result = vws("lease", "request", *line.split())
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert client.asked == []


def test_what_is_only_absurd_is_left_to_the_service(vws: Run, client: FakeClient) -> None:
    client.refusal = Refused("count is 0", code="invalid-request", field="groups[0].count", possible="1 to 10000")
    result = vws("lease", "request", "--image", "demo", "-n", "0", "--for", "0s")
    assert result.exit_code == 1
    assert asked_of(client)["duration_s"] == 0
    assert "possible: 1 to 10000" in result.stderr
    assert result.stdout == ""


def test_vws_own_key_goes_into_every_lease_and_private_keys_into_none(vws: Run, client: FakeClient, home: Path) -> None:
    private = home / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----\n")
    line = ("lease", "request", "--image", "demo", "--for", "1h", "--ssh-key", str(private))
    refused = vws(*line)
    assert refused.exit_code == 1
    assert "private key" in refused.stderr
    assert "ssh-keygen -y" in refused.stderr
    assert client.asked == []

    (home / "id.pub").write_text(KEY + "\n")
    assert vws(*line).exit_code == 0
    keys = asked_of(client)["ssh_keys"]
    assert keys[0] == KEY
    assert keys[1] == (home / "site/keys/id_ed25519.pub").read_text().strip()
    assert len(keys) == 2
    assert (home / "site/keys/id_ed25519").stat().st_mode & 0o777 == 0o600
    assert not any("secret" in key for key in keys)


def test_without_a_named_key_the_usual_ones_are_taken(vws: Run, client: FakeClient, home: Path) -> None:
    (home / "home/.ssh").mkdir()
    (home / "home/.ssh/id_ed25519.pub").write_text(KEY)
    vws("lease", "request", "--image", "demo", "--for", "1h")
    assert asked_of(client)["ssh_keys"][0] == KEY


def test_a_site_elsewhere_gets_a_key_of_the_users_configuration(
    vws: Run, client: FakeClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VWS_URL", "https://example.org")
    vws("lease", "request", "--image", "demo", "--for", "1h")
    assert asked_of(client)["ssh_keys"] == [(home / "home/.config/vws/id_ed25519.pub").read_text().strip()]
    assert not (home / "site/keys").exists()


def test_a_file_that_is_no_key_is_named(vws: Run, client: FakeClient, home: Path) -> None:
    (home / "x.pub").write_text("hello world\n")
    result = vws("lease", "request", "--image", "demo", "--for", "1h", "--ssh-key", str(home / "x.pub"))
    assert result.exit_code == 1
    assert "x.pub: this is not an ssh public key" in result.stderr


# ---------------------------------------------------------------- waiting


def life(*states: str, after: str = "active", **changes: Any) -> list[Any]:
    """A lease whose one workspace goes through `states`."""
    pending = [
        lease(
            workspace(1, state=s, running_at=None, step="fetching the image" if s == "staging" else ""), state="pending"
        )
        for s in states
    ]
    return [*pending, lease(workspace(1, **changes), state=after)]


REQUEST = ("lease", "request", "--image", "demo", "--for", "1h", "--wait")


def test_waiting_prints_a_line_per_change_and_ends_with_what_next(vws: Run, client: FakeClient) -> None:
    client.lives = life("planned", "staging", "staging", "starting")
    result = vws(*REQUEST)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("demo-1")]
    assert [line.split()[1] for line in lines] == ["planned", "staging", "starting", "running"]
    assert "fetching the image" in lines[1]
    assert lines[3] == "demo-1  running  host-1  10.64.0.2  4.5 s"
    assert "demo is active after 5.2 s" in result.stdout
    assert "vws ssh demo-1" in result.stdout


def test_waiting_with_json_leaves_stdout_to_the_lease(vws: Run, client: FakeClient) -> None:
    client.lives = life("staging")
    result = vws(*REQUEST, "--json")
    assert json.loads(result.stdout)["state"] == "active"
    assert "demo-1  staging" in result.stderr


@pytest.mark.parametrize("state", ["failed", "degraded"])
def test_a_lease_that_fails_while_waiting_is_status_1_with_the_reason(vws: Run, client: FakeClient, state: str) -> None:
    client.lives = life("staging", after=state, state="failed", reason="the image is corrupt")
    result = vws(*REQUEST)
    assert result.exit_code == 1
    assert f"demo is {state}" in result.stderr
    assert "workspace demo-1: is failed: the image is corrupt" in result.stderr
    assert "vws lease explain lse-1; its last words: vws workspace console wsp-1" in result.stderr


def test_a_disk_that_a_guest_could_not_prepare_is_seen_where_one_looks(vws: Run, client: FakeClient) -> None:
    why = "the disk data could not be prepared: no mkfs.xfs"
    described = asdict(Disk("data", 16, "xfs"))
    bad, good = workspace(1, reason=why), workspace(2, step="of its boot")
    client.lives = [lease(bad, good)]
    client.lives[0]["groups"][0]["disks"] = [described]
    told = vws(*REQUEST).stdout
    assert f"demo-1: {why}" in told
    assert "A disk that a guest cannot prepare is told a little later: vws lease show demo" in told
    for words in (("lease", "show", "demo"), ("workspace", "list")):
        lines = vws(*words).stdout
        assert lines.count(why) == 1
        assert "of its boot" not in lines
    client.lives = [lease(good)]
    assert "told a little later" not in vws(*REQUEST).stdout, "there is none"


def test_what_never_had_a_console_has_no_last_words(vws: Run, client: FakeClient) -> None:
    reason = "this node refuses to boot it"
    client.lives = life("staging", after="failed", state="failed", reason=reason, host_key="")
    told = vws(*REQUEST).stderr
    assert reason in told
    assert "console" not in told


def test_a_lease_that_ends_while_waiting_is_status_1(vws: Run, client: FakeClient) -> None:
    client.lives = [
        lease(workspace(1), state="pending"),
        lease(workspace(1, state="terminated"), state="ended", reason="cancelled"),
    ]
    result = vws(*REQUEST)
    assert result.exit_code == 1
    assert "demo is ended: cancelled" in result.stderr


def test_a_wait_that_takes_too_long_says_that_it_goes_on(vws: Run, client: FakeClient) -> None:
    client.lives = [lease(workspace(1, state="starting", running_at=None), state="pending")]
    result = vws(*REQUEST, "--timeout", "0s")
    assert result.exit_code == 1
    assert "demo is still pending after 0s" in result.stderr
    assert "vws lease wait demo" in result.stderr


def test_an_interrupted_wait_leaves_the_lease_and_says_how_to_go_on(
    vws: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "lease", interrupt)
    result = vws(*REQUEST)
    assert result.exit_code == 1
    assert "the lease demo goes on" in result.stderr
    assert "vws lease cancel demo ends it" in result.stderr
    assert [call[0] for call in client.asked] == ["request_lease"]


def test_a_service_that_is_away_for_a_moment_is_waited_for(
    vws: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.lives = life("starting")
    there, tries = client.lease, iter(range(3))

    def away(id: str) -> Any:
        if next(tries, None) is not None:
            raise Refused("https://127.0.0.1 does not answer", code="unreachable")
        return there(id)

    monkeypatch.setattr(client, "lease", away)
    result = vws(*REQUEST)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("the service is away, waiting for it") == 1

    monkeypatch.setattr(progress, "PATIENCE_S", 0)
    tries = iter(range(3))
    result = vws(*REQUEST)
    assert result.exit_code == 1
    assert "does not answer" in result.stderr


def test_waiting_for_a_lease_that_was_asked_for_before(vws: Run, client: FakeClient) -> None:
    client.lives = life("starting")
    assert vws("lease", "wait", "demo").exit_code == 0


def test_cancel_waits_until_nothing_is_left(vws: Run, client: FakeClient) -> None:
    gone = lease(workspace(1, state="terminated"), state="ended")
    client.lives = [lease(workspace(1)), lease(workspace(1, state="terminating"), state="ending"), gone]
    result = vws("lease", "cancel", "demo", "--wait")
    assert result.exit_code == 0
    assert client.asked == [("cancel_lease", "lse-1")]
    assert "nothing of it is left" in result.stdout


# ---------------------------------------------------------------- looking


def test_a_list_is_a_table_for_people_and_an_array_for_programs(vws: Run, client: FakeClient) -> None:
    text = vws("lease", "list").stdout.splitlines()
    assert text[0].split() == ["NAME", "STATE", "WORKSPACES", "IMAGE", "OWNER", "END", "ID"]
    assert "2/2 running" in text[1]
    assert text[1].endswith("lse-1")
    assert [each["id"] for each in json.loads(vws("lease", "list", "--json").stdout)] == ["lse-1"]
    assert [each["id"] for each in json.loads(vws("--json", "lease", "list").stdout)] == ["lse-1"]


def test_lists_hold_what_lives_unless_all_is_asked_for(vws: Run, client: FakeClient) -> None:
    vws("lease", "list")
    vws("lease", "list", "--all", "--state", "failed")
    assert client.asked == [
        ("leases", {"live": True, "state": None, "series": None}),
        ("leases", {"live": False, "state": "failed", "series": None}),
    ]


def test_advice_names_the_site_as_the_command_line_did(vws: Run, client: FakeClient, home: Path) -> None:
    result = vws("--dir", str(home / "site"), "lease", "request", "--image", "demo", "--for", "1h")
    assert f"Next: vws --dir {home / 'site'} lease wait demo" in result.stdout
    result = vws("ssh", "nope", "--dir", str(home / "site"))
    assert f"vws --dir {home / 'site'} workspace list --all" in result.stderr


def test_an_empty_list_is_a_sentence_on_stderr_or_an_empty_array(vws: Run, client: FakeClient) -> None:
    client.lives = []
    result = vws("lease", "list")
    assert (result.stdout, result.exit_code) == ("", 0)
    assert "There are no leases" in result.stderr
    assert json.loads(vws("lease", "list", "--json").stdout) == []


def test_show_is_an_object_with_its_workspaces(vws: Run, client: FakeClient) -> None:
    text = vws("lease", "show", "demo").stdout
    assert "2 × demo, 1 CPU, 160 MiB, disk 1 GiB" in text
    assert "10.64.0.3" in text
    shown = json.loads(vws("lease", "show", "lse-1", "--json").stdout)
    assert [w["name"] for w in shown["workspaces"]] == ["demo-1", "demo-2"]


def test_a_lease_that_is_not_there_is_status_1_on_stderr(vws: Run, client: FakeClient) -> None:
    result = vws("lease", "show", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no lease 'nope'" in result.stderr
    assert json.loads(vws("lease", "show", "nope", "--json").stderr)["code"] == "not-found"


def test_explaining_a_lease_says_what_each_member_is_doing(vws: Run, client: FakeClient) -> None:
    client.lives = [lease(workspace(1, state="staging", step="fetching the image, 40 %"), state="pending")]
    text = vws("lease", "explain", "demo").stdout
    assert text.splitlines() == ["demo is pending", "  demo-1 is staging on host-1: fetching the image, 40 %"]


NO_ROOM = {
    "fits": False,
    "reason": "the site has no room for 50 × (1 CPU, 2048 MiB memory, 1024 MiB disk) together now",
    "nodes": [{"node": "nod-1", "name": "host-1", "reason": "480 MiB of memory free, 2048 needed"}],
    "offers": [{"kind": "fewer", "count": 2, "text": "2 of this size would fit now"}],
}


@pytest.mark.parametrize("command", [("request", "--dry-run"), ("explain",)])
def test_asking_before_asking_changes_nothing_and_tells_by_its_status(
    vws: Run, client: FakeClient, command: tuple[str, ...]
) -> None:
    line = ("lease", *command, "--image", "demo", "-n", "50", "--memory", "2GiB", "--for", "2h")
    client.fit = {
        "fits": True,
        "reason": "all of it would start now",
        "nodes": [{"node": "nod-1", "name": "host-1", "reason": "it would take 50"}],
        "offers": [],
    }
    result = vws(*line)
    assert result.exit_code == 0
    assert "host-1: it would take 50" in result.stdout
    client.fit = NO_ROOM
    result = vws(*line)
    assert result.exit_code == 1
    assert "would fit: 2 of this size would fit now" in result.stderr
    result = vws(*line, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == NO_ROOM
    assert {call[0] for call in client.asked} == {"explain_request"}


def test_explain_wants_a_lease_or_a_description_not_both(vws: Run) -> None:
    assert vws("lease", "explain", "demo", "--image", "demo").exit_code == 2
    assert vws("lease", "explain").exit_code == 2


# ---------------------------------------------------------------- changing


def test_extend_and_resize_take_names_and_ask_by_id(vws: Run, client: FakeClient) -> None:
    assert "ends at" in vws("lease", "extend", "demo", "--for", "1h").stdout
    assert vws("lease", "resize", "demo", "--memory", "256MiB", "--group", "worker").exit_code == 0
    assert client.asked == [
        ("extend_lease", "lse-1", 3600),
        ("resize_lease", "lse-1", {"memory_mib": 256, "cpus": None, "group": "worker"}),
    ]


def test_resize_says_which_workspaces_need_a_boot_for_it(vws: Run, client: FakeClient) -> None:
    client.lives = [lease(workspace(1, memory_mib=256, memory_defined_mib=160))]
    result = vws("lease", "resize", "demo", "--memory", "256MiB")
    assert "demo-1: 256 MiB from the next boot on" in result.stdout


def test_resize_says_that_the_number_of_cpus_waits_for_a_boot_and_their_share_does_not(
    vws: Run, client: FakeClient
) -> None:
    members = [
        workspace(1, cpus=1, cpus_defined=2),
        workspace(2, cpus=1, cpus_defined=1),
        workspace(3, cpus=4, cpus_defined=2, group="other"),
        workspace(4, cpus=4, cpus_defined=2, state="terminated"),
    ]
    client.lives = [lease(*members)]
    lines = vws("lease", "resize", "demo", "--cpus", "1", "--group", "").stdout.splitlines()
    boot = "from the next boot on (vws workspace reboot NAME)"
    assert lines[1:] == [f"demo-1: 1 CPU {boot}; that share of CPU time now."]


def test_resize_of_nothing_is_no_command(vws: Run) -> None:
    assert vws("lease", "resize", "demo").exit_code == 2


@pytest.mark.parametrize("change", [("extend", "--for", "1h"), ("resize", "--memory", "9GiB")])
def test_a_change_that_has_no_room_leaves_the_lease_as_it_is(
    vws: Run, client: FakeClient, change: tuple[str, ...]
) -> None:
    client.refusal = Refused(
        "host-1 has no room for that", code="cannot-fit", field="lease", possible="up to 1 MiB each"
    )
    result = vws("lease", change[0], "demo", *change[1:])
    assert "kept: nothing was changed" in result.stderr


def test_a_refused_change_shows_what_would_be_possible(vws: Run, client: FakeClient) -> None:
    client.refusal = Refused("the lease has ended", code="conflict", possible="ask for a new lease")
    result = vws("lease", "extend", "demo", "--for", "1h")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: the lease has ended",
        "  possible: ask for a new lease",
        "  kept: nothing was changed",
    ]
