"""Images, nodes, tokens, events and the site's commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import FakeClient, Refused, image
from vws.client.errors import ApiError

Run = Callable[..., Result]


# ---------------------------------------------------------------- images


def test_an_import_says_what_next(vws: Run, client: FakeClient, home: Path) -> None:
    (home / "demo.vws").write_bytes(b"x" * 3000)
    result = vws("image", "import", str(home / "demo.vws"), "--name", "mine")
    assert result.exit_code == 0
    assert "sending demo.vws (3 KiB)" in result.stdout
    assert "vws lease request --image mine" in result.stdout
    client.unsigned = "it is not signed"
    told = vws("image", "import", str(home / "demo.vws"), "--name", "mine").stdout
    assert "It may not run yet: it is not signed. Accepted: an image signed by desy." in told
    assert "Next: vws image policy test mine" in told
    assert "lease request" not in told
    result = vws("image", "import", str(home / "demo.vws"), "--name", "mine", "--json")
    assert json.loads(result.stdout)["id"] == "img-1"


def test_what_has_the_name_already_is_not_sent_again(
    vws: Run, client: FakeClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "x").write_bytes(b"another")
    assert "'A/B' cannot be a name" in vws("image", "import", str(home / "x"), "--name", "A/B").stderr
    assert vws("image", "import", str(home / "x"), "--name", "demo", "--share", "cms").exit_code == 0
    assert client.asked == [("upload_image", "x", "demo", ("cms",))]
    same = hashlib.sha256(b"another").hexdigest()
    monkeypatch.setattr(client, "images", lambda name: iter([image(sha256=same)]))
    assert "image demo (img-1) is ready" in vws("image", "import", str(home / "x"), "--name", "demo").stdout
    assert len(client.asked) == 1
    shared = vws("image", "import", str(home / "x"), "--name", "demo", "--share", "cms").stdout
    assert "for everybody." in shared
    assert "vws image share demo --with cms" in shared
    monkeypatch.setattr(client, "images", lambda name: iter([image(sha256=same, damaged="its disk")]))
    vws("image", "import", str(home / "x"), "--name", "demo")
    assert len(client.asked) == 2, "what is damaged is mended by sending it again"


def test_an_import_of_nothing_is_status_2_and_of_nonsense_status_1(vws: Run, client: FakeClient, home: Path) -> None:
    (home / "empty").touch()
    empty = vws("image", "import", str(home / "empty"), "--name", "demo")
    assert (empty.exit_code, "empty is empty" in empty.stderr) == (1, True)
    assert vws("image", "import", str(home / "none"), "--name", "demo").exit_code == 2
    device = vws("image", "import", "/dev/zero", "--name", "demo")
    assert (device.exit_code, "/dev/zero is no ordinary file" in device.stderr) == (1, True)
    (home / "x").write_text("hello")
    client.refusal = Refused("the file is neither a bundle nor a disk image", code="invalid-request", field="file")
    result = vws("image", "import", str(home / "x"), "--name", "mine")
    assert result.exit_code == 1
    assert "neither a bundle nor a disk image" in result.stderr


def test_images_are_listed_shown_and_removed(vws: Run, client: FakeClient) -> None:
    assert "14 MiB" in vws("image", "list").stdout
    assert "kernel, 8 MiB" in vws("image", "show", "demo").stdout
    assert "goes when no lease and no image" in vws("image", "remove", "demo").stdout
    assert "is removed" in vws("image", "remove", "demo", "--now").stdout
    assert client.asked == [("remove_image", "img-1", False), ("remove_image", "img-1", True)]


def test_names_are_given_and_taken_away(vws: Run, client: FakeClient) -> None:
    assert "is called demo, demo:2" in vws("image", "tag", "demo", "demo:2").stdout
    assert vws("image", "tag", "demo", "demo", "--remove").exit_code == 0
    assert "is yours" in vws("image", "copy", "demo", "mine:1").stdout
    assert client.asked == [
        ("tag_image", "img-1", "demo:2"), ("untag_image", "demo"), ("copy_image", "img-1", "mine:1")
    ]  # fmt: skip
    lines = vws("image", "history", "demo").stdout.splitlines()
    assert ("img-1" in lines[1], "now" in lines[1], "img-0" in lines[2]) == (True, True, True)
    (newest,) = json.loads(vws("image", "history", "demo", "--last", "1", "--json").stdout)
    assert newest["image"] == "img-1"
    assert vws("image", "history", "demo", "--last", "9" * 20).exit_code == 0
    assert vws("image", "history", "demo", "--last", "0").exit_code == 2


def test_who_may_use_an_image_is_said_as_a_whole(vws: Run, client: FakeClient) -> None:
    assert "its owner and the VO cms" in vws("image", "share", "demo", "--with", "cms").stdout
    assert "by its owner." in vws("image", "share", "demo", "--private").stdout
    assert vws("image", "share", "demo").exit_code == 2
    assert vws("image", "share", "demo", "--private", "--with", "cms").exit_code == 2
    assert client.asked == [("share_image", "img-1", ("cms",)), ("share_image", "img-1", ())]


def test_a_damaged_image_is_status_1(vws: Run, client: FakeClient) -> None:
    assert vws("image", "verify").exit_code == 0
    client.damaged = "its disk was altered"
    result = vws("image", "verify", "demo")
    assert (result.exit_code, "its disk was altered" in result.stdout) == (1, True)
    assert json.loads(vws("image", "verify", "demo", "--json").stdout)[0]["damaged"]


def test_of_all_images_those_of_others_are_passed_over(
    vws: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify_image(id: str) -> dict[str, Any]:
        if id == "img-1":
            raise ApiError(403, {"code": "forbidden", "detail": "only its owner"})
        return image(tags=["mine"])

    monkeypatch.setattr(client, "images", lambda: iter([image(), image(id="img-2")]))
    monkeypatch.setattr(client, "verify_image", verify_image)
    assert vws("image", "verify").stdout == "mine: as it came\n"
    assert "only its owner" in vws("image", "verify", "demo").stderr


def test_what_goes_is_said_beforehand(vws: Run, client: FakeClient) -> None:
    assert "1 images (14 MiB) and 1 files would go" in vws("image", "gc", "--dry-run").stdout
    assert "are gone" in vws("image", "gc").stdout
    assert client.asked == [("collect_images", True), ("collect_images", False)]


def test_documents_are_listed_and_handed_out_as_they_came(vws: Run, home: Path) -> None:
    assert [line.split()[0] for line in vws("image", "documents", "demo").stdout.splitlines()[1:]] == [
        "sbom", "attestation", "attestation"
    ]  # fmt: skip
    assert len(json.loads(vws("image", "documents", "demo", "--json").stdout)) == 3
    assert vws("image", "documents", "demo", "sbom").stdout_bytes == b"doc-1\x1b[2J"
    written = vws("image", "documents", "demo", "attestation", "--to", str(home / "a"))
    assert written.stdout == f"{home}/a is written: 0 KiB.\n"
    assert (home / "a").read_bytes() == b"doc-3\x1b[2J", "of several the last"
    assert vws("image", "documents", "demo", "doc-2").stdout_bytes.startswith(b"doc-2")
    refused = vws("image", "documents", "demo", "provenance")
    assert (refused.exit_code, "no provenance is kept beside demo" in refused.stderr) == (1, True)
    assert "possible: sbom, attestation" in refused.stderr
    assert vws("image", "documents", "demo", "--to", str(home / "b")).exit_code == 2


def test_documents_are_removed_by_their_ids(vws: Run, client: FakeClient) -> None:
    gone = vws("image", "documents", "demo", "--remove", "doc-2", "--remove", "doc-3").stdout.splitlines()
    assert gone[0] == "The attestation doc-2, which ada added, is kept beside demo no longer."
    assert [
        each["id"] for each in json.loads(vws("image", "documents", "demo", "--remove", "doc-2", "--json").stdout)
    ] == ["doc-2"]
    assert vws("image", "documents", "demo", "sbom", "--remove", "doc-2").exit_code == 2


# ---------------------------------------------------------------- nodes


def test_nodes_are_listed_with_what_is_taken(vws: Run) -> None:
    lines = vws("node", "list").stdout.splitlines()
    assert "3/8" in lines[1]
    assert "480 MiB of 20 GiB" in lines[1]
    assert [n["name"] for n in json.loads(vws("node", "list", "--state", "silent", "--json").stdout)] == ["host-2"]
    assert "tcg: KVM is slow here" in vws("node", "show", "host-1").stdout


def test_drain_and_undrain(vws: Run, client: FakeClient) -> None:
    assert "host-1 is drained; 3 workspaces on it" in vws("node", "drain", "host-1").stdout
    assert "host-1 is ready" in vws("node", "undrain", "host-1").stdout
    assert client.asked == [("drain_node", "nod-1"), ("undrain_node", "nod-1")]


def test_a_forced_removal_must_be_meant(vws: Run, client: FakeClient) -> None:
    result = vws("node", "remove", "host-1", "--force")
    assert result.exit_code == 2
    assert "say --yes" in result.stderr
    assert client.asked == []
    assert vws("node", "remove", "host-1", "--force", "--yes").exit_code == 0
    assert vws("node", "remove", "host-1").exit_code == 0
    assert client.asked == [("remove_node", "nod-1", True), ("remove_node", "nod-1", False)]


def test_a_join_token_comes_with_the_line_to_run(vws: Run, client: FakeClient) -> None:
    text = vws("node", "token", "--for", "10m").stdout
    assert text.splitlines()[-1] == "  vws node join vws1.join.secret"
    assert client.asked == [("invite_node", 600)]


def test_join_hands_everything_on(vws: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vws.joined as joined

    calls: list[Any] = []

    def join_node(path: Path, token: str, **options: Any) -> dict[str, str]:
        options.pop("say")("joined")
        calls.append((path, token, options))
        return {"name": "host-2"}

    monkeypatch.setattr(joined, "join_node", join_node)
    result = vws("node", "join", "TOKEN", "--dir", str(home / "n"), "--name", "host-2", "--detach")
    assert result.exit_code == 0
    assert result.stdout == "joined\n"
    assert calls == [(home / "n", "TOKEN", {"name": "host-2", "isolation": "namespace", "detach": True})]


# ---------------------------------------------------------------- tokens


def test_a_tokens_secret_alone_is_on_stdout(vws: Run, client: FakeClient) -> None:
    result = vws("token", "create", "ada", "--for", "30d")
    assert result.stdout == "vws1.secret\n"
    assert "shown this once" in result.stderr
    assert vws("token", "revoke", "tok-2").exit_code == 0
    assert client.asked == [("create_token", "ada", "user", 30 * 86400), ("revoke_token", "tok-2")]
    assert "admin" in vws("token", "list").stdout


# ---------------------------------------------------------------- events


def event(seq: int, kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "seq": seq, "at": 1000.0 + seq, "actor": "ada", "kind": kind, "owner": "ada", "lease": "lse-1", "workspace": "",
        "node": "", "image": "", "data": {},
    } | changes  # fmt: skip


@pytest.fixture
def _log(client: FakeClient) -> None:
    client.log = [
        event(1, "lease.granted", data={"name": "demo", "end": 99}),
        event(
            2,
            "workspace.failed",
            actor="nod-1",
            workspace="wsp-1",
            data={"name": "demo-1", "reason": "the disk is full"},
        ),
    ]


@pytest.mark.usefixtures("_log")
def test_events_read_as_who_what_whom_why(vws: Run) -> None:
    lines = vws("events").stdout.splitlines()
    assert lines[0].split(maxsplit=2)[2].split() == ["ada", "lease.granted", "demo", "(lse-1)", "end=99"]
    assert lines[1].endswith("demo-1 (wsp-1)  the disk is full")


@pytest.mark.usefixtures("_log")
def test_events_in_json_are_an_array_or_lines_when_following(vws: Run) -> None:
    assert [e["seq"] for e in json.loads(vws("events", "--json").stdout)] == [1, 2]
    lines = vws("events", "--follow", "--json", "--after", "1").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["workspace.failed"]


@pytest.mark.usefixtures("_log")
def test_following_begins_with_the_next_event_or_with_the_first_of_one_thing(vws: Run, client: FakeClient) -> None:
    assert vws("events", "--follow").stdout == ""
    assert len(vws("events", "--follow", "--lease", "demo").stdout.splitlines()) == 2
    assert client.asked == [("follow_events", None, {}), ("follow_events", 0, {"lease": "lse-1"})]


# ---------------------------------------------------------------- the site


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, dict[str, Any]]]:
    """What the supervisor is asked for, instead of its doing it."""
    import vws.supervisor as supervisor

    made: list[tuple[str, Path, dict[str, Any]]] = []
    status = {
        "dir": "/d", "name": "s", "url": "https://127.0.0.1:1", "service": 7, "agent": None, "healthy": True,
        "user": "vws", "nodes": {"ready": 2}, "leases": {}, "workspaces": {},
    }  # fmt: skip

    def stand_in(name: str) -> Any:
        def run(path: Path, **options: Any) -> dict[str, Any]:
            say = options.pop("say", None)
            if say:
                say(f"{name} it is")
            made.append((name, path, options))
            return status

        return run

    for name in ("init_site", "start_site", "stop_site", "site_status"):
        monkeypatch.setattr(supervisor, name, stand_in(name))
    return made


Calls = list[tuple[str, Path, dict[str, Any]]]


def test_the_directory_may_be_named_before_or_after(vws: Run, home: Path, calls: Calls) -> None:
    for line in (
        ["--dir", str(home / "a"), "site", "status"],
        ["site", "status", "--dir", str(home / "a")],
        ["site", "status"],
    ):
        assert vws(*line).exit_code == 0
    assert [path for _, path, _ in calls] == [home / "a", home / "a", home / "site"]


def test_init_and_start_pass_on_what_was_said(vws: Run, home: Path, calls: Calls) -> None:
    result = vws("site", "init", "--dir", str(home / "a"), "--name", "s", "--port", "7443", "--isolation", "host")
    assert f"Next: vws --dir {home / 'a'} site start --detach" in result.stdout
    vws("site", "start", "--fake-nodes", "3", "--detach")
    assert calls[0][2] == {
        "name": "s", "host": "127.0.0.1", "port": 7443, "store": "sqlite", "user": None, "isolation": "host",
    }  # fmt: skip
    assert calls[1] == ("start_site", home / "site", {"fake_nodes": 3, "detach": True})


def test_with_json_only_the_status_is_on_stdout(vws: Run, calls: Calls) -> None:
    result = vws("site", "stop", "--now", "--json")
    assert json.loads(result.stdout)["service"] == 7
    assert "stop_site it is" in result.stderr
    assert calls[0][2] == {"now": True}


def test_the_status_tells_what_runs(vws: Run, calls: Calls) -> None:
    text = vws("site", "status").stdout
    assert "service     pid 7" in text
    assert "agent       not running" in text
    assert "nodes       2 ready" in text
    assert "leases      none" in text


def test_a_directory_without_a_site_is_a_failure_with_what_next(vws: Run, home: Path) -> None:
    result = vws("site", "status", "--dir", str(home / "nothing"))
    assert result.exit_code == 1
    assert "there is no site in" in result.stderr
    assert "vws site init" in result.stderr


# ---------------------------------------------------------------- rates


def test_rates_are_shown_as_configured_and_as_learned(vws: Run, client: FakeClient) -> None:
    header, boot, suspend = (line.split() for line in vws("site", "rates").stdout.splitlines())
    assert header == ["STEP", "HYPERVISOR", "IMAGE", "CONFIGURED", "EXPECTED", "PROMISED", "SEEN"]
    assert boot == ["boot", "tcg", "img-1", "20", "s", "5.12", "s", "24", "s", "14"]
    assert suspend == ["suspend", "-", "-", "50", "MiB/s", "50", "MiB/s", "41.7", "MiB/s", "0"]
    assert [rate["count"] for rate in json.loads(vws("site", "rates", "--json").stdout)] == [14, 0]
