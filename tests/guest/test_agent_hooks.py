"""Hooks of the guest agent: in what order, with what around them, and what their ends look like, whatever they do."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.guest.broker import line
from tests.guest.sandbox import encoded, hook

ALL = line("role", "member", "1")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_hook_runs_once_with_what_it_needs_to_know_and_its_end_is_reported(broker, sandbox):
    script = "env | grep ^VWS_ | sort; id -u; umask; pwd; cat; vws-members head; echo oops >&2; exit 3"
    broker.say(
        line("self", "worker-1", "worker-1.slurm"),
        line("member", "head", "head-1", "private", "10.0.0.1", "head-1.slurm"),
        line("member", "head", "head-1", "site", "192.0.2.9", "head-1.example.org"),
        line("hook", "provider", "worker", "on-joined", hook(script)),
    )
    at = broker.say(line("requires", "head"), line("role", "head", "1"))
    sandbox.start()
    ended = broker.wait_for_hook("on-joined", role="worker")
    assert ended.query == {"role": "worker", "side": "provider", "hook": "on-joined", "version": "1", "status": "3"}
    state = sandbox.state
    assert ended.body.decode().splitlines() == [
        f"VWS_CONTEXT={state}",
        "VWS_GONE=",
        "VWS_HOOK=on-joined",
        "VWS_NAME=worker-1",
        "VWS_ROLE=worker",
        f"VWS_ROOT={sandbox.root}",
        "VWS_SIDE=provider",
        "0",
        "0022",
        "/",
        "head-1 10.0.0.1 head-1.slurm",
        "oops",
    ]
    assert at == 2
    time.sleep(0.5)
    assert len(broker.heard("POST ran")) == 1


def test_nothing_runs_before_everything_required_is_there(broker, sandbox):
    broker.say(
        line("requires", "head"),
        line("requires", "member"),
        line("hook", "provider", "worker", "on-joined", hook("echo ran")),
        ALL,
    )
    sandbox.start()
    broker.wait_for("GET document", 2)
    time.sleep(0.3)
    assert not broker.heard("POST ran")
    broker.say(line("role", "head", "2"))
    assert broker.wait_for_hook("on-joined", role="worker").query["version"] == "2"


def test_sides_wait_for_barriers_and_values_and_not_for_each_other(broker, sandbox):
    done = sandbox.root / "done"
    broker.say(
        ALL,
        line("hook", "client", "head", "on-joined", hook("echo client >>$VWS_ROOT/done")),
        line("hook", "provider", "last", "on-joined", hook("echo last >>$VWS_ROOT/done")),
        line("hook", "provider", "worker", "on-joined", hook("echo worker >>$VWS_ROOT/done")),
        line("wait", "client", "head", "barrier", "head"),
        line("wait", "provider", "last", "value", "key"),
        line("wait", "provider", "last", "barrier", "head"),
    )
    sandbox.start()
    broker.wait_for_hook("on-joined", role="worker")
    broker.say(line("value", "key", encoded(b"k")))
    sandbox.wait_until("etc/vws/context/values/key", "k")
    time.sleep(0.3)
    assert lines(done) == ["worker"]
    broker.say(line("passed", "head"))
    broker.wait_for_hook("on-joined", role="last")
    assert lines(done) == ["worker", "client", "last"]


def test_a_barrier_that_is_pending_again_holds_up(broker, sandbox):
    broker.say(
        *(ALL, line("passed", "head")),
        *(line("wait", "client", "head", "barrier", "head"), line("wait", "client", "head", "value", "key")),
        line("hook", "client", "head", "on-joined", hook("true")),
    )
    sandbox.start()
    sandbox.wait_until("etc/vws/context/known", "passed")
    broker.say(line("pending", "head"), line("value", "key", encoded(b"k")))
    sandbox.wait_until("etc/vws/context/values/key", "k")
    time.sleep(0.3)
    assert not broker.heard("POST ran")
    broker.say(line("passed", "head"))
    broker.wait_for_hook("on-joined", role="head")


def test_a_side_with_on_changed_alone_runs_it_at_first_too(broker, sandbox):
    broker.say(ALL, line("hook", "provider", "head", "on-changed", hook("true")))
    sandbox.start()
    assert broker.wait_for_hook("on-changed", role="head").query["version"] == "1"
    broker.say(line("role", "member", "2"))
    assert broker.wait_for_hook("on-changed", role="head", count=2).query["version"] == "2"


def test_a_hook_publishes_values(broker, sandbox):
    script = "head -c 2000 /dev/zero | vws-publish munge-key && vws-publish ../x </dev/null; echo $?"
    broker.say(ALL, line("hook", "provider", "head", "on-joined", hook(script)))
    sandbox.start()
    ended = broker.wait_for_hook("on-joined", role="head")
    (published,) = broker.heard("PUT values/")
    assert (published.path, published.body) == ("values/munge-key", bytes(2000))
    assert ended.body.decode().splitlines() == ["vws-context: usage: vws-publish NAME <FILE", "1"]


def test_publishing_outlives_a_broker_that_is_away(broker, sandbox):
    refusals = iter([None, (503, b"error unavailable later\n")])
    broker.fail = lambda call: next(refusals, "proceed") if call.path.startswith("values/") else "proceed"
    broker.say(ALL, line("hook", "provider", "head", "on-joined", hook("echo key | vws-publish key")))
    sandbox.start()
    assert broker.wait_for_hook("on-joined", role="head").query["status"] == "0"
    assert [call.body for call in broker.heard("PUT values/key")] == [b"key\n"] * 3


def test_who_comes_and_goes_is_told_to_hooks(broker, sandbox):
    say = "echo $VWS_HOOK $VWS_GONE $(vws-members worker | cut -d' ' -f1) >>$VWS_ROOT/done"

    def worker(number: int) -> str:
        return line("member", "worker", f"worker-{number}", "private", f"10.0.0.{number}", f"worker-{number}.slurm")

    broker.say(
        line("requires", "worker"),
        *(line("hook", "provider", "head", name, hook(say)) for name in ("on-joined", "on-changed", "on-left")),
        *(worker(1), worker(2), line("role", "worker", "1")),
    )
    sandbox.start()
    broker.wait_for_hook("on-joined", role="head")
    broker.say(worker(3), line("role", "worker", "2"))
    broker.wait_for_hook("on-changed", role="head")
    broker.say(
        line("gone", "worker", "worker-1"),
        line("gone", "member", "worker-1"),
        line("gone", "worker", "worker-2"),
        line("gone", "worker", "who-was-never-there"),
        line("role", "worker", "3"),
    )
    changed = broker.wait_for_hook("on-changed", role="head", count=2)
    assert changed.query["version"] == "3"
    assert lines(sandbox.root / "done") == [
        "on-joined worker-1 worker-2",
        "on-changed worker-1 worker-2 worker-3",
        "on-left worker-1 worker-3",
        "on-left worker-2 worker-3",
        "on-changed worker-3",
    ]


def test_a_hook_beyond_its_time_limit_is_ended_with_all_that_it_started(broker, sandbox):
    script = "echo $$ >$VWS_ROOT/group; echo begun; (trap '' TERM; sleep 300; echo never) & sleep 300; echo never"
    broker.say(ALL, line("within", "1"), line("hook", "provider", "head", "on-joined", hook(script)))
    sandbox.start()
    ended = broker.wait_for_hook("on-joined", role="head")
    assert ended.query["status"] == "124"
    assert ended.body.decode().splitlines()[0] == "begun"
    assert "longer than 1 s" in ended.body.decode()
    assert not alive_in(int(sandbox.read("group")))
    broker.say(line("data", "more", encoded(b"x")))
    sandbox.wait_until("etc/vws/context/data/more", "x")


def test_a_hundred_megabytes_of_output_fill_neither_disk_nor_report(broker, sandbox):
    script = "head -c 100000000 /dev/zero | tr '\\000' x; echo; echo the end"
    broker.say(ALL, line("hook", "provider", "head", "on-joined", hook(script)))
    sandbox.start()
    logs, largest = sandbox.state / "logs", 0
    while not (ended := broker.heard("POST ran")):
        largest = max(largest, sum(path.stat().st_size for path in files_of(logs)))
        time.sleep(0.01)
    assert ended[0].query["status"] == "0"
    assert len(ended[0].body) == 65536
    assert ended[0].body.endswith(b"x\nthe end\n")
    assert 0 < largest < 4 << 20


def alive_in(group: int) -> list[str]:
    """The processes of a group; those that only nobody has waited for yet are not alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(stat.parent.name)
    return found


def files_of(folder: Path) -> list[Path]:
    found = list(folder.iterdir()) if folder.exists() else []
    return [path for path in found if path.exists()]


def test_output_that_is_no_text_is_reported_as_it_is(broker, sandbox):
    script = r"printf '\000\377\001\033[2J%s\n' '$(id)'; kill -9 $$"
    broker.say(ALL, line("hook", "provider", "head", "on-joined", hook(script)))
    sandbox.start()
    ended = broker.wait_for_hook("on-joined", role="head")
    assert ended.body == b"\0\xff\1\33[2J$(id)\n"
    assert ended.query["status"] == "137"


def test_a_file_that_cannot_be_run_says_so(broker, sandbox):
    broken = encoded(b"#!/no/such/interpreter\n")
    broker.say(ALL, line("hook", "provider", "head", "on-joined", broken))
    sandbox.start()
    ended = broker.wait_for_hook("on-joined", role="head")
    assert int(ended.query["status"]) in (126, 127)
    assert b"on-joined" in ended.body


def test_what_a_hook_leaves_running_is_not_waited_for_and_goes_on(broker, sandbox):
    ticking = "while sleep 0.2; do echo tick; echo tick >>$VWS_ROOT/ticks; done"
    script = f"{{ {ticking}; }} & echo $! >$VWS_ROOT/daemon; echo started"
    broker.say(ALL, line("hook", "provider", "head", "on-joined", hook(script)))
    sandbox.start()
    ended = broker.wait_for_hook("on-joined", role="head", limit_s=10)
    assert ended.query["status"] == "0"
    assert ended.body.startswith(b"started\n")
    ticks = len(lines(sandbox.root / "ticks"))
    deadline = time.monotonic() + 10
    while len(lines(sandbox.root / "ticks")) < ticks + 3:
        assert time.monotonic() < deadline, "it was ended by its output"
        time.sleep(0.1)
    assert (sandbox.state / "logs/provider-head-on-joined").stat().st_size < 1000
    os.kill(int((sandbox.root / "daemon").read_text()), signal.SIGKILL)


def test_what_failed_is_tried_again_after_a_boot_or_a_change(broker, sandbox):
    joined = "echo joined >>$VWS_ROOT/done; test -e $VWS_ROOT/good"
    changed = "echo changed >>$VWS_ROOT/done; exit 1"
    broker.say(
        ALL,
        line("hook", "provider", "head", "on-joined", hook(joined)),
        line("hook", "provider", "head", "on-changed", hook(changed)),
    )
    sandbox.start()
    assert broker.wait_for_hook("on-joined", role="head").query["status"] == "1"
    broker.say(line("role", "member", "2"))
    sandbox.wait_until("etc/vws/context/known", "role\tmember\t2")
    time.sleep(0.3)
    assert lines(sandbox.root / "done") == ["joined"]
    (sandbox.root / "good").touch()
    sandbox.reboot()
    assert broker.wait_for_hook("on-joined", role="head", count=2).query["status"] == "0"
    broker.say(line("role", "member", "3"))
    broker.wait_for_hook("on-changed", role="head")
    broker.say(line("role", "member", "4"))
    broker.wait_for_hook("on-changed", role="head", count=2)
    time.sleep(0.3)
    assert lines(sandbox.root / "done") == ["joined", "joined", "changed", "changed"]


def test_a_boot_in_the_middle_goes_on_where_it_was(broker, sandbox):
    first = "echo first >>$VWS_ROOT/done"
    second = "echo second >>$VWS_ROOT/done; test -e $VWS_ROOT/again || sleep 300"
    broker.say(
        ALL,
        line("hook", "provider", "a", "on-joined", hook(first)),
        line("hook", "provider", "b", "on-joined", hook(second)),
        line("hook", "provider", "c", "on-joined", hook("echo third >>$VWS_ROOT/done")),
    )
    sandbox.start()
    sandbox.wait_until("done", "second")
    (sandbox.root / "again").touch()
    sandbox.reboot()
    broker.wait_for_hook("on-joined", role="c")
    assert lines(sandbox.root / "done") == ["first", "second", "second", "third"]
    assert [call.query["role"] for call in broker.heard("POST ran")] == ["a", "b", "c"]


def test_an_agent_that_was_killed_does_not_run_a_hook_twice_at_once(broker, sandbox):
    script = "echo begun >>$VWS_ROOT/done; test -e $VWS_ROOT/again && exit; sleep 2; echo old one >>$VWS_ROOT/done"
    broker.say(ALL, line("hook", "provider", "a", "on-joined", hook(script)))
    process = sandbox.start()
    sandbox.wait_until("done", "begun")
    (sandbox.root / "again").touch()
    process.kill()
    process.wait()
    sandbox.start()
    broker.wait_for_hook("on-joined", role="a")
    time.sleep(2.2)
    assert lines(sandbox.root / "done") == ["begun", "begun"]


def test_a_shutdown_is_not_taken_for_the_end_of_a_hook(broker, sandbox):
    broker.say(ALL, line("hook", "provider", "a", "on-joined", hook("echo begun >>$VWS_ROOT/done; sleep 300")))
    process = sandbox.start()
    sandbox.wait_until("done", "begun")
    process.terminate()
    assert process.wait(10) == 143
    assert not (sandbox.state / "pending").exists() or not list((sandbox.state / "pending").iterdir())
    sandbox.reboot()
    deadline = time.monotonic() + 10
    while len(lines(sandbox.root / "done")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not broker.heard("POST ran")
