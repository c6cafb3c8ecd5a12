"""CPU groups of both cgroup versions, on a folder that looks like one; the real one is tested on real machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vws.node.cpushare import CpuGroups
from vws.ports import HypervisorError


@pytest.fixture
def first(tmp_path: Path) -> CpuGroups:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.shares").write_text("1024")
    return CpuGroups("tag", tmp_path)


@pytest.fixture
def second(tmp_path: Path, monkeypatch) -> CpuGroups:
    """A kernel makes the files of a new group; here a mkdir does."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    mkdir = Path.mkdir

    def with_files(path: Path, *arguments, **named) -> None:
        mkdir(path, *arguments, **named)
        (path / "cgroup.subtree_control").touch()

    monkeypatch.setattr(Path, "mkdir", with_files)
    return CpuGroups("tag", tmp_path)


def test_version_one_counts_1024_for_a_cpu(first: CpuGroups, tmp_path: Path) -> None:
    first.give("wsp-1", 4711, 3)
    group = tmp_path / "cpu/vws-tag/wsp-1"
    assert (group / "cpu.shares").read_text() == "3072"
    assert (group / "cgroup.procs").read_text() == "4711"
    assert first.ids() == {"wsp-1"}
    first.give("wsp-1", 4711, 1000)
    assert (group / "cpu.shares").read_text() == "262144"


def test_version_two_counts_100_and_hands_the_controller_down(second: CpuGroups, tmp_path: Path) -> None:
    second.give("wsp-1", 4711, 2)
    assert (tmp_path / "vws-tag/wsp-1/cpu.weight").read_text() == "200"
    assert (tmp_path / "vws-tag/wsp-1/cgroup.procs").read_text() == "4711"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert (tmp_path / "vws-tag/cgroup.subtree_control").read_text() == "+cpu"


def test_without_a_controller_it_says_so(tmp_path: Path) -> None:
    none = CpuGroups("tag", tmp_path)
    assert not none.usable
    with pytest.raises(HypervisorError, match="no cgroup controller"):
        none.give("wsp-1", 4711, 1)
    assert none.ids() == set()
    none.remove("wsp-1")
    none.close()


def test_a_group_leaves_with_its_workspace(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.shares").write_text("1024")
    groups = CpuGroups("tag", tmp_path)
    for id in ("wsp-1", "wsp-2"):
        (tmp_path / f"cpu/vws-tag/{id}").mkdir(parents=True)
    groups.remove("wsp-1")
    groups.remove("wsp-1")
    assert groups.ids() == {"wsp-2"}
    groups.close()
    assert not (tmp_path / "cpu/vws-tag").exists()
