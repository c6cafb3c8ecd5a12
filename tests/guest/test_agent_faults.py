"""The guest agent when the broker, the network, its own machine or the disk it writes to does not do its part."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from tests.guest.broker import SECRET, line
from tests.guest.sandbox import encoded, hook
from tests.guest.test_agent_hooks import ALL, lines

WORK = (
    line("self", "worker-1", "worker-1.slurm"),
    line("member", "member", "worker-1", "private", "10.0.0.2", "worker-1.slurm"),
    line("data", "motd", encoded(b"hello")),
    line("hook", "provider", "a", "on-joined", hook("echo a >>$VWS_ROOT/done; echo v | vws-publish key")),
    line("hook", "provider", "b", "on-joined", hook("echo b >>$VWS_ROOT/done")),
    ALL,
)


def finished(broker, sandbox) -> None:
    """All that was to be done was done, each thing once, whatever happened on the way."""
    broker.wait_for_hook("on-joined", role="b")
    assert lines(sandbox.root / "done") == ["a", "b"]
    assert "worker-1.slurm" in sandbox.read("etc/hosts")
    assert sandbox.read("etc/vws/context/data/motd") == "hello"
    assert len(set(broker.tokens)) == 1
    assert "v\n" in {call.body.decode() for call in broker.heard("PUT values/key")}


# Under busybox's shell alone: here it is the world that differs, not the program.
pytestmark = pytest.mark.parametrize("sandbox", ["busybox"], indirect=True)


@pytest.mark.parametrize("step", range(8))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_broker_that_dies_at_any_step_costs_time_and_nothing_else(broker, sandbox, step, when):
    """Killed before it did what it was asked, or after, so that only its answer is lost; then away, then back."""
    broker.say(*WORK)
    down = []

    def die(call):
        if len(broker.calls) == step + 1 and not down:
            down.append(call.what)
            return None if when == "before" else "and cut"
        return "proceed"

    broker.fail = die
    sandbox.start()
    deadline = time.monotonic() + 20
    while not down:
        assert time.monotonic() < deadline, [call.what for call in broker.calls]
        time.sleep(0.01)
    broker.close()
    time.sleep(0.4)
    broker.restart()
    finished(broker, sandbox)


@pytest.mark.parametrize("kept", [10, 200, -40, -2])
def test_a_document_that_is_cut_off_changes_nothing(broker, sandbox, kept):
    broker.say(*WORK)
    whole = broker.document(0)
    cut = [(200, whole[:kept])]
    broker.fail = lambda call: cut.pop() if cut and call.path == "document" else "proceed"
    sandbox.start()
    finished(broker, sandbox)
    assert [call.query["since"] for call in broker.heard("GET document")][:2] == ["0", "0"]


def test_what_is_no_document_is_no_document(broker, sandbox):
    nonsense = [b"<html>Bad gateway</html>\nend\n", b"vws-context\t2\t9\topen\nend\n", bytes(10_000)]
    broker.say(*WORK)
    broker.fail = lambda call: (200, nonsense.pop()) if nonsense and call.path == "document" else "proceed"
    sandbox.start()
    broker.wait_for_hook("on-joined", role="b", limit_s=60)
    assert not nonsense
    assert lines(sandbox.root / "done") == ["a", "b"]


@pytest.mark.parametrize("status", [401, 403, 503])
def test_errors_are_not_answered_by_hammering(broker, sandbox, status):
    broker.fail = lambda call: (status, b"error any words\n")
    sandbox.start()
    time.sleep(5)
    count = len(broker.calls)
    assert (1 if status == 403 else 2) <= count <= 6, [call.what for call in broker.calls]
    if status < 500 and status != 401:
        assert broker.calls[-1].at - broker.calls[0].at < 3  # what will not get better is not asked again soon


def test_a_broker_that_does_not_wait_is_not_hammered_either(broker, sandbox):
    sandbox.start()
    broker.wait_for("GET document")
    broker.fail = lambda call: (204, b"") if call.path == "document" else "proceed"
    broker.say(line("data", "news", encoded(b"x")))
    time.sleep(4)
    assert len(broker.heard("GET document")) <= 6


def test_a_broker_that_forgot_the_token_is_told_again(broker, sandbox):
    broker.say(*WORK)
    sandbox.start()
    finished(broker, sandbox)
    broker.tokens.clear()
    broker.say(line("data", "more", encoded(b"more")))
    sandbox.wait_until("etc/vws/context/data/more", "more")
    broker.wait_for("POST join", 2)
    broker.say(line("data", "later", encoded(b"later")))
    sandbox.wait_until("etc/vws/context/data/later", "later")


def test_a_broker_that_lost_some_versions_is_asked_for_all_again(broker, sandbox):
    broker.say(ALL, line("data", "old", encoded(b"old")))
    for number in range(5):
        broker.say(line("data", "count", encoded(b"%d" % number)))
    sandbox.start()
    sandbox.wait_until("etc/vws/context/data/count", "4")
    broker.wait_for("GET document", 2)
    with broker.news:
        broker.lines = [(1, ALL), (2, line("member", "member", "new", "private", "10.0.0.9", "new.x"))]
        broker.version = 2
        broker.news.notify_all()
    broker.close()
    broker.restart()
    sandbox.wait_until("etc/hosts", "new.x")
    broker.say(line("hook", "provider", "a", "on-joined", hook("true")))
    broker.wait_for_hook("on-joined", role="a")


def test_a_report_that_the_broker_refuses_is_not_repeated_for_ever(broker, sandbox):
    broker.fail = lambda call: (422, b"error invalid no\n") if call.path == "ran" else "proceed"
    broker.say(*WORK)
    sandbox.start()
    broker.wait_for("POST ran", 2)
    broker.wait_for("GET document", 2)
    time.sleep(1)
    assert len(broker.heard("POST ran")) == 2


def test_a_closed_context_is_left_at_once(broker, sandbox):
    broker.fail = lambda call: (409, b"error context-closed it has ended\n")
    process = sandbox.start()
    assert process.wait(10) == 0
    assert len(broker.calls) <= 2


def test_no_secret_is_ever_on_a_command_line(broker, sandbox):
    lines = sandbox.root / "command-lines"
    curl = sandbox.bin / "curl"
    curl.unlink(missing_ok=True)
    curl.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{lines}\nexec {shutil.which("curl")} "$@"\n')
    curl.chmod(0o755)
    broker.say(*WORK)
    sandbox.start()
    broker.wait_for("POST ran")
    token = (sandbox.state / "token").read_text().strip()
    seen = lines.read_text().splitlines()
    assert all(any(words in text for text in seen) for words in ("/tmp/calls", "/values/key"))
    assert not [text for text in seen if token in text or SECRET in text]


def test_a_curl_that_tells_statuses_only_at_its_end_makes_one_call_at_a_time(broker, sandbox):
    """As before 7.63, which did not know `%{stderr}`: it says so, and what it writes stays with it until it ends."""
    curl, real = sandbox.bin / "curl", shutil.which("curl")
    curl.unlink(missing_ok=True)
    curl.write_text(f"""#!/bin/sh
case $3 in
*/calls) ;;
*) exec {real} "$@" ;;
esac
grep -q stderr "$3" && known=no || known=yes
sed -i 's/%{{stderr}}//' "$3"
if [ $known = no ]; then echo "curl: unknown --write-out variable: 'stderr'" >&2; fi
told=$({real} "$@")
echo "$told"
""")
    curl.chmod(0o755)
    broker.say(*WORK)
    sandbox.start()
    finished(broker, sandbox)


def test_no_word_of_curl_is_lost_when_a_child_ends_while_it_is_read(broker, sandbox):
    """As a disk's preparation may, at any moment: here for each letter, and each letter comes alone."""
    curl, real = sandbox.bin / "curl", shutil.which("curl")
    curl.unlink(missing_ok=True)
    curl.write_text(f"""#!{sys.executable}
import os, signal, subprocess, sys, time
if not sys.argv[3].endswith("/calls"):
    os.execv("{real}", sys.argv)
curl = subprocess.Popen(["{real}", *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
signal.signal(signal.SIGTERM, lambda *_: curl.terminate())
while letter := curl.stdout.read(1):
    os.write(2, letter)
    time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGCHLD)
""")
    curl.chmod(0o755)
    broker.say(*WORK)
    sandbox.start()
    finished(broker, sandbox)


def blank(sandbox, name: str, serial: str, size_mib: int = 16):
    (sandbox.root / "sys/block" / name).mkdir()
    (sandbox.root / "sys/block" / name / "serial").write_text(serial)  # as the kernel has it, without an end of line
    device = sandbox.root / "dev" / name
    with device.open("wb") as file:
        file.truncate(size_mib << 20)
    return device


MOUNT = 'mount() { echo "$@" >>"$VWS_ROOT/mounted"; }\nswapon() { echo "swapon $*" >>"$VWS_ROOT/mounted"; }\n'


def label_of(device) -> str:
    told = subprocess.run(["debugfs", "-R", "show_super_stats -h", str(device)], capture_output=True, text=True)
    return next((text.split()[-1] for text in told.stdout.splitlines() if "volume name" in text), "")


def test_blank_disks_are_made_once_and_mounted(sandbox):
    sandbox.pretend(MOUNT)
    make = sandbox.bin / "mkfs.vfat"
    make.write_text('#!/bin/sh\necho "mkfs.vfat $*" >>"$VWS_ROOT/mounted"\n')
    make.chmod(0o755)
    root = sandbox.root
    other, scratch = blank(sandbox, "vda", "root-disk"), blank(sandbox, "vdb", "vws-scratch")
    long, swap = blank(sandbox, "vdc", "vws-a-very-long-nam"), blank(sandbox, "vdd", "vws-swap")
    foreign = blank(sandbox, "vdg", "vws-foreign")
    (root / "dev/console").write_text("")
    small, shared = blank(sandbox, "vde", "vws-small-exchange"), blank(sandbox, "vdf", "vws-shared")
    table = root / "disks"
    table.write_text(
        "scratch\text4\tmy-scratch\t/scratch\trw\n"
        "a-very-long-nam\text4\t-\t-\trw\n"
        "swap\tswap\t-\t-\trw\n"
        "small-exchange\tvfat\t-\t-\trw\n"
        "shared\t-\t-\t/data\tro\n"
        "missing\text4\t-\t/missing\trw\n"
        "foreign\tbtrfs\t-\t/foreign\trw\n"
        "../x\text4\t-\t/x\trw\n"
    )
    done = sandbox.run("disks", str(table))
    assert label_of(scratch) == "my-scratch"
    assert label_of(long) == "a-very-long-nam"
    assert b"SWAPSPACE2" in swap.read_bytes()[:8192]
    assert not any(other.read_bytes())
    mounted = lines(root / "mounted")
    assert f"-t ext4 -o rw {scratch} {root}/scratch" in mounted
    assert f"swapon {swap}" in mounted
    assert (root / "scratch").is_dir()
    assert f"mkfs.vfat -n small-excha {small}" in mounted
    assert f"-t auto -o ro {shared} {root}/data" in mounted
    assert not any(shared.read_bytes())
    assert "the disk missing could not be prepared: there is none with the serial vws-missing" in done.stderr
    assert "the disk ../x could not be prepared" in done.stderr
    assert not any(foreign.read_bytes())
    console = (root / "dev/console").read_text()
    assert "vws-context: the disk foreign could not be prepared: this machine has no mkfs.btrfs" in done.stderr
    assert console == done.stderr, "what the node reads"
    before = scratch.read_bytes()
    sandbox.run("disks", str(table))
    assert scratch.read_bytes() == before


def test_a_disk_with_anything_on_it_is_left_as_it_is_and_a_half_made_one_made_again(sandbox):
    sandbox.pretend(MOUNT)
    device = blank(sandbox, "vdb", "vws-scratch")
    with device.open("r+b") as file:
        file.seek(500_000)
        file.write(b"somebody's")
    before = device.read_bytes()
    table = sandbox.root / "disks"
    table.write_text("scratch\text4\t-\t/scratch\trw\n")
    sandbox.run("disks", str(table))
    assert device.read_bytes() == before
    sandbox.state.mkdir(parents=True)
    (sandbox.state / "making-scratch").touch()
    sandbox.run("disks", str(table))
    assert label_of(device) == "scratch"
    assert not (sandbox.state / "making-scratch").exists()
