"""What the guest agent says to a broker, and what it makes of what it hears, under dash and busybox's ash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.guest.broker import SECRET, line, make_certificate
from tests.guest.sandbox import AGENT, MAC, encoded, hook

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"
MEMBERS = (
    line("self", "worker-1", "worker-1.slurm"),
    line("requires", "head"),
    line("member", "head", "head-1", "private", "10.0.0.1", "head-1.slurm"),
    line("member", "head", "head-1", "site", "192.0.2.9", "head-1.example.org"),
    line("member", "member", "head-1", "private", "10.0.0.1", "head-1.slurm"),
    line("member", "member", "head-1", "site", "192.0.2.9", "head-1.example.org"),
    line("member", "member", "worker-1", "private", "10.0.0.2", "worker-1.slurm"),
    line("host-key", "head-1", f"{KEY}head a comment"),
    line("host-key", "worker-1", f"{KEY}worker"),
    line("host-key", "worker-1", "ssh-rsa AAAAworker"),
    line("user-key", "head-1", f"{KEY}user"),
    line("role", "head", "1"),
)


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("no shellcheck")
    found = subprocess.run(
        [shellcheck, "--shell=sh", "--severity=warning", str(AGENT)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


def test_it_joins_with_a_token_of_its_own_and_says_who_it_is(broker, sandbox):
    sandbox.start()
    (reported,) = broker.wait_for("PUT identity")
    (joined,) = broker.heard("POST join")
    token = (sandbox.state / "token").read_text().strip()
    assert joined.authorization == f"Secret {SECRET}"
    assert joined.body.decode() == f"token_sha256={hashlib.sha256(token.encode()).hexdigest()}"
    assert reported.authorization == f"Bearer {token}"
    *lines, user_key = reported.body.decode().splitlines()
    assert lines == [f"nic\tprivate\t10.0.0.2\t{MAC}", "name\tworker-1", "host-key\tssh-ed25519 AAAAhost"]
    own = sandbox.read("root/.ssh/id_ed25519.pub").split()
    assert user_key.split("\t") == ["user-key", " ".join(own[:2])]


def test_only_root_may_read_what_it_keeps(broker, sandbox):
    broker.say(line("value", "munge-key", encoded(b"secret")), line("data", "motd", encoded(b"hello")))
    sandbox.start()
    sandbox.wait_until("etc/vws/context/data/motd", "hello")
    assert sandbox.state.stat().st_mode & 0o777 == 0o700
    broker.wait_for("GET document", 2)  # so that nothing moves any more
    paths = [path for path in sandbox.state.rglob("*") if not path.is_symlink()]
    assert len(paths) > 10
    assert not [path for path in paths if path.stat().st_mode & 0o077]


def test_two_networks_are_reported_in_the_order_of_the_disk_once_both_have_addresses(broker, sandbox):
    nic = sandbox.root / "sys/class/net/eth1"
    nic.mkdir()
    (nic / "address").write_text("52:54:00:00:00:02\n")
    (sandbox.seed / "networks").write_text(f"52:54:00:00:00:02\tsite\n{MAC}\tprivate\n")
    sandbox.start()
    broker.wait_for("POST join")
    time.sleep(0.5)
    assert not broker.heard("PUT identity")
    sandbox.addresses(eth0="10.0.0.2", eth1="192.0.2.8")
    (reported,) = broker.wait_for("PUT identity")
    assert reported.body.decode().splitlines()[:2] == [
        "nic\tsite\t192.0.2.8\t52:54:00:00:00:02",
        f"nic\tprivate\t10.0.0.2\t{MAC}",
    ]


def test_a_machine_of_another_cloud_reports_the_interface_of_its_default_route(broker, sandbox):
    (sandbox.seed / "networks").write_text("*\tpublic\n")
    sandbox.start()
    (reported,) = broker.wait_for("PUT identity")
    assert reported.body.decode().splitlines()[0] == f"nic\tpublic\t10.0.0.2\t{MAC}"


def test_dropbear_keys_are_reported(broker, sandbox):
    if shutil.which("dropbearkey") is None:
        pytest.skip("no dropbearkey: make setup")
    (sandbox.root / "etc/ssh/ssh_host_ed25519_key.pub").unlink()
    (sandbox.root / "etc/dropbear").mkdir()
    key = sandbox.root / "etc/dropbear/host_key"
    made = subprocess.run(["dropbearkey", "-t", "ed25519", "-f", str(key)], capture_output=True, text=True, check=True)
    public = " ".join(next(text for text in made.stdout.splitlines() if text.startswith("ssh-")).split()[:2])
    sandbox.pretend('command() { [ "$2" != ssh-keygen ] && type "$2"; }')
    sandbox.start()
    (reported,) = broker.wait_for("PUT identity")
    assert f"host-key\t{public}" in reported.body.decode().splitlines()
    own = subprocess.run(
        ["dropbearkey", "-y", "-f", str(sandbox.root / "root/.ssh/id_dropbear")],
        capture_output=True,
        text=True,
        check=True,
    )
    (user_key,) = (text for text in reported.body.decode().splitlines() if text.startswith("user-key"))
    assert user_key.removeprefix("user-key\t") in own.stdout


def test_who_the_others_are_is_written_between_what_is_there(broker, sandbox):
    (sandbox.root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 worker-1\n")
    (sandbox.root / "root/.ssh/authorized_keys").write_text("ssh-rsa AAAA the user")
    broker.say(*MEMBERS)
    sandbox.start()
    hosts = sandbox.wait_until("etc/hosts", "head-1")
    assert hosts.splitlines() == [
        "# vws context: begin",
        "10.0.0.1 head-1.slurm head-1",
        "192.0.2.9 head-1.example.org",
        "10.0.0.2 worker-1.slurm worker-1",
        "# vws context: end",
        "127.0.0.1 localhost",
        "127.0.1.1 worker-1",
    ]
    known = sandbox.wait_until("root/.ssh/known_hosts", "worker-1")
    assert "worker-1 ssh-rsa AAAAworker" in known.splitlines()
    assert f"worker-1 {KEY}worker" in known.splitlines()
    assert known == sandbox.read("etc/ssh/ssh_known_hosts")
    assert f"10.0.0.1 {KEY}head" in known.splitlines()
    assert f"head-1.example.org {KEY}head" in known.splitlines()
    authorized = sandbox.wait_until("root/.ssh/authorized_keys", f"{KEY}user").splitlines()
    assert authorized[0] == "ssh-rsa AAAA the user"
    assert authorized[1:] == ["# vws context: begin", f"{KEY}user", "# vws context: end"]
    assert (sandbox.root / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o644
    assert sandbox.read("etc/vws/context/roles/head/members").splitlines() == [
        "head-1\tprivate\t10.0.0.1\thead-1.slurm",
        "head-1\tsite\t192.0.2.9\thead-1.example.org",
    ]


def test_changes_replace_what_was_known_of_a_member_and_no_more(broker, sandbox):
    broker.say(*MEMBERS)
    sandbox.start()
    sandbox.wait_until("etc/hosts", "head-1")
    with (sandbox.root / "etc/hosts").open("a") as hosts:
        hosts.write("192.0.2.1 another\n")
    broker.say(
        line("member", "head", "head-1", "private", "10.0.0.7", "head-1.slurm"),
        line("member", "member", "head-1", "private", "10.0.0.7", "head-1.slurm"),
        line("member", "member", "worker-2", "private", "10.0.0.3", "worker-2.slurm"),
        line("user-key", "worker-2", f"{KEY}two"),
    )
    text = sandbox.wait_until("etc/hosts", "10.0.0.7")
    assert "10.0.0.1" not in text
    assert "192.0.2.9" not in text
    assert text.endswith("192.0.2.1 another\n")
    sandbox.wait_until("root/.ssh/authorized_keys", f"{KEY}two")
    broker.say(line("gone", "member", "worker-2"))
    deadline = time.monotonic() + 10
    while "worker-2" in sandbox.read("etc/hosts") or f"{KEY}two" in sandbox.read("root/.ssh/authorized_keys"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert f"{KEY}user" in sandbox.read("root/.ssh/authorized_keys")


def test_data_values_and_files_reach_their_places_whole(broker, sandbox):
    every_byte = bytes(range(256)) * 400
    broker.say(
        line("data", "every-byte", encoded(every_byte)),
        line("data", "empty", ""),
        line("value", "munge-key", encoded(b"\0key\n")),
        line("file", "provider", "head", "0644", "/etc/slurm/slurm.conf", encoded(b"ClusterName=x\n")),
        line("file", "client", "head", "755", "/opt/a b/$(touch x)/it's", encoded(b"#!/bin/sh\n")),
    )
    sandbox.start()
    sandbox.wait_until("etc/vws/context/known", "vws-context")
    assert (sandbox.state / "data/every-byte").read_bytes() == every_byte
    assert (sandbox.state / "data/empty").read_bytes() == b""
    assert (sandbox.state / "values/munge-key").read_bytes() == b"\0key\n"
    conf = sandbox.root / "etc/slurm/slurm.conf"
    assert (conf.read_text(), conf.stat().st_mode & 0o7777) == ("ClusterName=x\n", 0o644)
    assert conf.parent.stat().st_mode & 0o777 == 0o755
    odd = sandbox.root / "opt/a b/$(touch x)/it's"
    assert odd.stat().st_mode & 0o777 == 0o755


def test_nothing_foreign_breaks_out(broker, sandbox, tmp_path):
    evil = "$(touch ${VWS_ROOT}/owned)`touch $VWS_ROOT/owned`;touch $VWS_ROOT/owned;'\""
    broker.say(
        line("self", evil, evil),
        line("member", evil, "w", "n", "10.0.0.9", "w"),
        line("member", "../../../up", "w", "n", "10.0.0.9", "w"),
        line("member", "ok", evil, "n", "10.0.0.9", "w"),
        line("member", "ok", "w", "n", f"10.0.0.9 {evil}", "w"),
        line("member", "ok", "w", "n", "10.0.0.9", f"w {evil}"),
        line("host-key", "w", f"@cert-authority {KEY}"),
        line("user-key", "w", f'command="{evil}" {KEY}'),
        line("role", "../ok", "1"),
        line("role", "ok", evil),
        line("data", "../data", encoded(b"x")),
        line("data", ".hidden", encoded(b"x")),
        line("value", "-rf", encoded(b"x")),
        line("file", "provider", "ok", "0644", "/etc/../owned", encoded(b"x")),
        line("file", "provider", "ok", "0644", "owned", encoded(b"x")),
        line("file", "provider", "ok", f"0644 {evil}", "/owned", encoded(b"x")),
        line("file", "provider", "ok", "0600", "/etc/vws/context/token", encoded(b"x")),
        line("file", "provider", "ok", "0600", "/etc//vws/context/token", encoded(b"x")),
        line("file", "provider", "ok", "0600", "/etc/./vws/context/token", encoded(b"x")),
        line("hook", "../provider", "ok", "on-joined", hook("touch $VWS_ROOT/owned")),
        line("hook", "provider", "../ok", "on-joined", hook("touch $VWS_ROOT/owned")),
        line("hook", "provider", "ok", "../on-joined", hook("touch $VWS_ROOT/owned")),
        line("wait", "provider", "ok", "barrier", evil),
        line("within", evil),
        line("surprise", evil),
        line("member", "ok", "good", "n", "10.0.0.8", "good.ok"),
    )
    sandbox.start()
    assert "good.ok" in sandbox.wait_until("etc/hosts", "good.ok")
    broker.say(line("data", "later", encoded(b"later")))
    sandbox.wait_until("etc/vws/context/data/later", "later")
    assert not list(tmp_path.rglob("owned"))
    assert not list(tmp_path.rglob("up"))
    assert sorted(path.name for path in (sandbox.state / "data").iterdir()) == ["later"]
    assert not (sandbox.state / "values").exists()
    assert len((sandbox.state / "token").read_text()) == 65
    assert "10.0.0.9" not in sandbox.read("etc/hosts")
    assert "cert-authority" not in sandbox.read("etc/vws/context/known")
    assert "command" not in sandbox.read("etc/vws/context/known")
    assert "25 " in sandbox.said.read_text() or "lines of a document left out" in sandbox.said.read_text()


def test_a_changed_address_is_reported(broker, sandbox):
    sandbox.start()
    broker.wait_for("PUT identity")
    broker.wait_for("GET document")
    sandbox.addresses(eth0="10.0.0.99")
    broker.fail = lambda call: (204, b"") if call.what == "GET document" else "proceed"
    broker.say(line("data", "news", encoded(b"x")))
    reported = broker.wait_for("PUT identity", 2)[1]
    assert "10.0.0.99" in reported.body.decode()


def test_who_is_asked_reports_again(broker, sandbox):
    sandbox.start()
    broker.wait_for("GET document")
    broker.say("report")
    first, second = broker.wait_for("PUT identity", 2)
    assert first.body == second.body


def test_a_boot_with_another_address_reports_it_and_without_does_not_repeat_itself(broker, sandbox):
    sandbox.start()
    broker.wait_for("GET document")
    sandbox.reboot()
    broker.wait_for("GET document", 2)
    assert len(broker.heard("PUT identity")) == len(broker.heard("POST join")) == 1
    sandbox.addresses(eth0="10.0.0.99")
    sandbox.reboot()
    assert "10.0.0.99" in broker.wait_for("PUT identity", 2)[1].body.decode()


def test_an_image_of_a_member_becomes_another_member(broker, sandbox):
    broker.say(line("data", "old", encoded(b"old")), line("hook", "provider", "a", "on-joined", hook("true")))
    sandbox.start()
    broker.wait_for_hook("on-joined", role="a")
    sandbox.power_off()
    (sandbox.seed / "secret").write_text("another\n")
    broker.fail = lambda call: (200, b"member\tworker-2\tctx-1\n") if call.path == "join" else "proceed"
    sandbox.start()
    sandbox.wait_until("etc/vws/context/member", "worker-2")
    first, second, *_ = broker.wait_for("POST join", 2)
    assert (first.authorization, second.authorization) == (f"Secret {SECRET}", "Secret another")
    assert first.body != second.body
    assert not (sandbox.state / "data").exists()
    assert not (sandbox.state / "ran").exists() or not sandbox.read("etc/vws/context/ran")


def test_it_stops_when_the_context_is_closed(broker, sandbox):
    process = sandbox.start()
    broker.wait_for("GET document")
    broker.say(line("data", "last", encoded(b"words")), state="closed")
    assert process.wait(10) == 0
    assert sandbox.read("etc/vws/context/data/last") == "words"


def test_it_talks_to_nobody_else_than_the_site(broker, sandbox, tmp_path):
    (tmp_path / "other").mkdir()
    make_certificate(tmp_path / "other")
    shutil.copy(tmp_path / "other/cert.pem", sandbox.seed / "ca.pem")
    sandbox.start()
    deadline = time.monotonic() + 20
    while "certificate" not in sandbox.said.read_text():
        assert time.monotonic() < deadline, sandbox.said.read_text()
        time.sleep(0.05)
    assert not broker.calls


def test_a_second_agent_leaves_the_machine_to_the_first(broker, sandbox):
    sandbox.start()
    broker.wait_for("GET document")
    second = sandbox.run("run", str(sandbox.seed))
    assert second.returncode == 0
    assert "another one runs already" in second.stderr


def test_a_machine_that_was_told_nothing_says_what_is_missing(sandbox):
    (sandbox.seed / "secret").unlink()
    done = sandbox.run("run", str(sandbox.seed))
    assert done.returncode == 1
    assert f"there is no {sandbox.seed}/secret" in done.stderr


def test_a_certificate_is_asked_for_and_its_key_stays(broker, sandbox):
    requests = []

    def sign(call):
        if call.path != "certificate":
            return "proceed"
        requests.append(call.body)
        pem = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
        return 200, (pem.format("bWluZQ==") + pem.format("b3Vycw==")).encode()

    broker.fail = sign
    broker.say(line("self", "worker-1", "worker-1.slurm"), line("data", "site-certificate", encoded(b"the authority")))
    sandbox.start()
    sandbox.wait_until("etc/vws/context/certificate/cert.pem", "bWluZQ==")
    assert "b3Vycw==" in sandbox.read("etc/vws/context/certificate/ca.pem")
    read = ["openssl", "req", "-noout", "-verify", "-subject", "-text"]
    shown = subprocess.run(read, input=requests[0], capture_output=True, check=True).stdout.decode()
    assert "DNS:worker-1.slurm, DNS:worker-1" in shown
    assert "PRIVATE" in sandbox.read("etc/vws/context/certificate/key.pem")
    assert b"PRIVATE" not in requests[0]


def test_a_certificate_is_renewed_in_time_and_its_key_stays(broker, sandbox):
    """In lives of seconds. A service that does not answer keeps nobody from hearing what is new."""
    requests, lives = [], iter([1, 1, 3600])
    pem = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"

    def sign(call):
        if call.path != "certificate":
            return "proceed"
        requests.append(call.body)
        if len(requests) == 2:
            return 503, b"error unavailable the authority is asleep\n"
        serial = encoded(f"the {len(requests)}.".encode())
        return 200, (f"# renew in {next(lives)} s\n" + pem.format(serial) + pem.format("b3Vycw==")).encode()

    def look(what):
        """What is known changes, at which it looks."""
        time.sleep(1.1)
        broker.say(line("data", what, encoded(b"news")))
        sandbox.wait_until(f"etc/vws/context/data/{what}", "news")

    broker.fail = sign
    broker.say(line("self", "worker-1", "worker-1.slurm"), line("data", "site-certificate", encoded(b"the authority")))
    sandbox.start()
    cert = "etc/vws/context/certificate/cert.pem"
    sandbox.wait_until(cert, encoded(b"the 1."))
    assert "renew" not in sandbox.read(cert)
    key = sandbox.read("etc/vws/context/certificate/key.pem")
    look("first")
    deadline = time.monotonic() + 60
    while len(requests) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    look("second")
    assert encoded(b"the 1.") in sandbox.read(cert), "the old one, while there is no new one"
    (sandbox.root / "etc/vws/context/certificate/renew").write_text("0\n")
    look("third")
    sandbox.wait_until(cert, encoded(b"the 3."))
    look("fourth")
    sandbox.wait_until(cert, encoded(b"the 4."))
    look("fifth")
    look("sixth")
    assert len(requests) == 4, "this one is good for an hour"
    assert sandbox.read("etc/vws/context/certificate/key.pem") == key


def test_a_machine_that_was_given_a_key_for_root_makes_none(broker, sandbox):
    (sandbox.seed / "user-key").write_text("the private half\n")
    (sandbox.seed / "user-key.pub").write_text("ssh-ed25519 AAAAgiven\n")
    sandbox.start()
    (identity,) = broker.wait_for("PUT identity")
    assert "user-key\tssh-ed25519 AAAAgiven" in identity.body.decode().splitlines()
    assert sandbox.read("root/.ssh/id_ed25519") == "the private half\n"
    assert (sandbox.root / "root/.ssh/id_ed25519").stat().st_mode & 0o077 == 0


def test_a_key_that_root_has_already_stays(broker, sandbox):
    (sandbox.root / "root/.ssh/id_ed25519").write_text("my own\n")
    (sandbox.root / "root/.ssh/id_ed25519.pub").write_text("ssh-ed25519 AAAAmine me@here\n")
    (sandbox.seed / "user-key").write_text("the private half\n")
    (sandbox.seed / "user-key.pub").write_text("ssh-ed25519 AAAAgiven\n")
    sandbox.start()
    (identity,) = broker.wait_for("PUT identity")
    assert "user-key\tssh-ed25519 AAAAmine" in identity.body.decode().splitlines()
    assert sandbox.read("root/.ssh/id_ed25519") == "my own\n"
