"""The three ways in which the agent reaches a guest."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import time

import pytest

from tests.guest.broker import NAME, SECRET, Broker
from vws.guest import delivery
from vws.guest.delivery import DIRECT, Contact, Disk


def contact(broker: Broker) -> Contact:
    pem = (broker.certificate / "cert.pem").read_text()
    return Contact(
        f"https://{NAME}:8443", SECRET, pem, networks={"*": "public"}, connect_to=f"::127.0.0.1:{broker.port}"
    )


def test_the_seed_has_what_the_agent_reads_and_the_agent():
    disks = (Disk("scratch", "ext4", "scratch", "/scratch"), Disk("raw"), Disk("shared", mount="/data", read_only=True))
    files = delivery.seed_files(
        Contact("https://site:8443", "s", "PEM\n", {"52:54:00:AA:00:01": "private"}, disks, connect_to=DIRECT)
    )
    assert files.pop("vws/context/agent").startswith("#!/bin/sh\n")
    assert files == {
        "vws/context/url": "https://site:8443\n",
        "vws/context/secret": "s\n",
        "vws/context/ca.pem": "PEM\n",
        "vws/context/networks": "52:54:00:aa:00:01\tprivate\n",
        "vws/context/disks": "scratch\text4\tscratch\t/scratch\trw\nraw\t-\t-\t-\trw\nshared\t-\t-\t/data\tro\n",
        "vws/context/connect-to": "-\n",
    }


def test_what_would_break_a_line_is_refused():
    for name in ("a\tb", "a\nb", ""):
        with pytest.raises(ValueError, match="a line for the guest agent"):
            delivery.told(Contact("https://site", "s", "PEM", {"52:54:00:00:00:01": name}))


def test_the_secret_is_in_no_repr(broker):
    assert SECRET not in repr(contact(broker))


def test_cloud_init_is_given_files_alone_and_all_of_them_whole(broker):
    config = json.loads(json.dumps(delivery.cloud_config(contact(broker))))
    assert list(config) == ["write_files"]
    written = {
        entry["path"]: (gzip.decompress(base64.b64decode(entry["content"])).decode(), entry["permissions"])
        for entry in config["write_files"]
        if entry["encoding"] == "gz+b64"
    }
    assert len(written) == len(config["write_files"])
    assert written["/etc/vws/context/secret"] == (f"{SECRET}\n", "0600")
    assert written["/usr/local/sbin/vws-context"] == (delivery.AGENT, "0755")
    script, mode = written["/var/lib/cloud/scripts/per-boot/vws-context"]
    assert (script, mode) == ("#!/bin/sh\nexec /usr/local/sbin/vws-context start\n", "0755")


def test_a_start_script_is_small_enough_for_user_data(broker):
    assert len(delivery.start_script(contact(broker))) < 16 * 1024


def test_nothing_but_comments_is_left_out():
    _, *lines = delivery.AGENT.splitlines()
    left_out = {line.strip() for line in lines} - set(delivery.bare(delivery.AGENT).splitlines())
    assert all(line == "" or line[0] == "#" for line in left_out)
    assert delivery.bare(delivery.AGENT).startswith("#!/bin/sh\n")


def test_a_start_script_makes_a_machine_a_member_for_now_and_later_boots(broker, sandbox):
    script = sandbox.root.parent / "start"
    script.write_text(delivery.start_script(contact(broker)))
    # In sh itself, so that what stands in for this machine's programs is there; the agent is then started as a program.
    environment = sandbox.environment
    subprocess.run([str(sandbox.bin / "sh"), str(script)], env=environment, check=True, timeout=20)
    try:
        (joined,) = broker.wait_for("POST join")
        assert joined.authorization == f"Secret {SECRET}"
        program = sandbox.root / "usr/local/sbin/vws-context"
        assert program.read_text() == delivery.bare(delivery.AGENT)
        assert f"{program} start" in sandbox.read("etc/rc.local").splitlines()
        assert (sandbox.root / "etc/rc.local").stat().st_mode & 0o111
        assert (sandbox.state / "secret").stat().st_mode & 0o777 == 0o600
    finally:
        broker.say(state="closed")
        end_of(sandbox)


def end_of(sandbox) -> None:
    """Until the agent has ended by itself, as it does when the context is closed."""
    deadline = time.monotonic() + 20
    log = sandbox.state / "logs/agent"
    while "is closed" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("var/lib/cloud/scripts/per-boot", "var/lib/cloud/scripts/per-boot/vws-context"),
        ("run/systemd/system", "etc/systemd/system/multi-user.target.wants/vws-context.service"),
    ],
)
def test_later_boots_are_the_business_of_what_there_is(broker, sandbox, folder, found):
    (sandbox.root / folder).mkdir(parents=True)
    path = sandbox.root.parent / "start"
    path.write_text(delivery.start_script(contact(broker)))
    broker.say(state="closed")
    subprocess.run([str(sandbox.bin / "sh"), str(path)], env=sandbox.environment, check=True, timeout=20)
    assert f"{sandbox.root}/usr/local/sbin/vws-context" in sandbox.read(found)
    end_of(sandbox)
    assert broker.heard("POST join")
    assert not (sandbox.root / "etc/rc.local").exists()
