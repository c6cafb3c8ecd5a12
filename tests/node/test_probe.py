"""The probe's judgement by numbers, its process by stand-ins, and the real device where there is one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vws.node import probe
from vws.node.probe import KvmProbe, probe_kvm

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe knows x86_64 only")


def answering(monkeypatch, tmp_path: Path, program: str) -> Path:
    """Let `program` (Python) answer in the probe's place; a device that opens."""
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(program)
    monkeypatch.setattr(probe, "__file__", str(stand_in))
    device = tmp_path / "kvm"
    device.touch(0o600)
    return device


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return set(map(int, listed.split()))


@pytest.mark.parametrize(("answer", "works"), [("0.31", True), ("20.0", True), ("20.1", False), ("190.4", False)])
def test_the_loop_decides(monkeypatch, tmp_path, answer, works):
    found = probe_kvm(device=str(answering(monkeypatch, tmp_path, f"print({answer})")))
    assert (found.works, found.loop_ms) == (works, float(answer))


def test_an_emulated_loop_is_said_in_words(monkeypatch, tmp_path):
    found = probe_kvm(device=str(answering(monkeypatch, tmp_path, "print(190.4)")))
    assert found.reason == "a loop of 100,000 rounds took 190 ms: guest code is emulated, not run"


def test_a_stuck_loop_is_ended(monkeypatch, tmp_path):
    device = answering(monkeypatch, tmp_path, "import time; time.sleep(60)")
    before, started = children(), time.monotonic()
    found = probe_kvm(limit_s=0.3, device=str(device))
    assert time.monotonic() - started < 5
    assert found == KvmProbe(False, "a loop of 100,000 rounds did not end within 0.3 s")
    assert children() == before


def test_a_refusal_is_passed_on(monkeypatch, tmp_path):
    device = answering(monkeypatch, tmp_path, "print('KVM refused: [Errno 16] Device or resource busy')")
    assert probe_kvm(device=str(device)) == KvmProbe(False, "KVM refused: [Errno 16] Device or resource busy")


def test_a_crash_of_the_probe_is_no_answer(monkeypatch, tmp_path):
    found = probe_kvm(device=str(answering(monkeypatch, tmp_path, "raise RuntimeError('odd')")))
    assert found == KvmProbe(False, "the probe failed: RuntimeError: odd")
    device = answering(monkeypatch, tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert probe_kvm(device=str(device)).reason == "the probe failed: it died without a word"


def test_no_device(tmp_path):
    found = probe_kvm(device=str(tmp_path / "none"))
    assert not found.works
    assert found.reason.startswith(f"there is no {tmp_path}/none")


def test_no_permission(monkeypatch, tmp_path):
    device = tmp_path / "kvm"
    device.touch(0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open anything
    assert probe_kvm(device=str(device)).reason.startswith(f"no permission to open {device}")


def test_another_architecture(monkeypatch):
    monkeypatch.setattr(probe.platform, "machine", lambda: "aarch64")
    assert probe_kvm().reason == "the probe for KVM knows x86_64 only, this is aarch64"


def test_something_that_is_not_kvm():
    found = probe_kvm(device="/dev/null")
    assert not found.works
    assert found.reason.startswith("KVM refused:")


def test_the_real_device_is_judged_and_nothing_stays():
    if not os.path.exists(probe.DEVICE) or not stat.S_ISCHR(os.stat(probe.DEVICE).st_mode):
        pytest.skip("there is no /dev/kvm here")
    if not os.access(probe.DEVICE, os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm is not ours to open")
    before, started = children(), time.monotonic()
    found = probe_kvm()
    assert time.monotonic() - started < 4
    # Either the loop ran, and its time decides, or the kernel said why not.
    if found.loop_ms is None:
        assert found.reason.startswith(("KVM refused:", "a loop of 100,000 rounds did not end"))
    else:
        assert found.loop_ms > 0.001  # 100,000 rounds take at least some microseconds of any CPU
        assert found.works == (found.loop_ms <= probe.LOOP_MS_MAX)
    assert children() == before


def test_the_import_is_light():
    program = "import sys; before = set(sys.modules); import vws.node.probe; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"libvirt", "asyncio", "multiprocessing", "pydantic", "ssl"} & set(loaded)
