"""Each check against a machine that lacks what it looks for; the command's output and exit status."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from vws.cli import doctor as module
from vws.cli.doctor import Finding, doctor, findings
from vws.node import probe

GOOD = Finding("disk", "ok", "80 MiB free")
BAD = Finding("qemu-img", "fail", "missing; it makes disks", "apt-get install qemu-utils")
ODD = Finding("kvm", "warn", "does not work", "nothing, if slow is fine")


def only(found) -> Finding:
    (finding,) = found
    return finding


def test_every_check_finds_something_here_and_everything_bad_has_a_fix():
    found = findings()
    assert {finding.name for finding in found} >= {
        *("python", "root", "qemu-img", "libvirtd", "libvirt-python", "kvm", "tun", "cgroup cpu", "namespaces"),
        *("memory", "disk", "service user", "clock", "demo appliance"),
    }
    for finding in found:
        assert finding.ok in ("ok", "warn", "fail")
        assert finding.found
        assert (finding.fix is None) == (finding.ok == "ok"), finding
    assert not [finding for finding in found if "could not be looked at" in finding.found]


def test_an_old_python():
    finding = only(module.check_python((3, 9, 2)))
    assert (finding.ok, finding.found) == ("fail", "3.9.2; 3.11 or later is needed")


def test_a_missing_program_names_its_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "nft" else f"/bin/{name}")
    bad = only(finding for finding in module.check_programs() if finding.ok != "ok")
    assert bad == Finding("nft", "fail", "missing; it connects them to the outside", "apt-get install nftables")


def test_programs_outside_a_users_path_are_found(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(module, "SYSTEM_FOLDERS", os.path.dirname(shutil.which("sh") or "/bin/sh"))
    monkeypatch.setattr(module, "PROGRAMS", {"sh": ("dash", "runs scripts")})
    assert only(module.check_programs()).ok == "ok"


def test_a_user_without_root_or_sudo(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/sudo")
    assert only(module.check_root()).ok == "warn"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    finding = only(module.check_root())
    assert finding.ok == "fail"
    assert "--fake-nodes" in (finding.fix or "")


def test_libvirt_that_cannot_be_imported(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "libvirt":
            raise ImportError("libvirt.so.0: cannot open shared object file")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    finding = only(module.check_libvirt_python())
    assert (finding.ok, finding.fix) == ("fail", "make setup")
    assert "libvirt.so.0" in finding.found


@pytest.mark.parametrize("works", [True, False])
def test_kvm_is_a_warning_at_most(monkeypatch, works):
    monkeypatch.setattr(probe, "probe_kvm", lambda: probe.KvmProbe(works, "a loop took 190 ms", 190.0))
    finding = only(module.check_kvm())
    assert finding.ok == ("ok" if works else "warn")
    assert "a loop took 190 ms" in finding.found
    assert works or "emulated (TCG)" in finding.found


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(FileNotFoundError(), "fail"), (PermissionError(), "warn"), (OSError(19, "No such device"), "fail")],
)
def test_a_tun_device_that_does_not_open(monkeypatch, error, verdict):
    def refuse(*_):
        raise error

    monkeypatch.setattr(os, "open", refuse)
    assert only(module.check_tun()).ok == verdict


def test_cgroups_of_either_version_and_none(tmp_path):
    assert only(module.check_cgroup(tmp_path)).ok == "warn"
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "cpu,cpuacct" / "cpu.shares").touch()
    assert "version 1" in only(module.check_cgroup(tmp_path)).found
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory\n")
    assert "version 2" in only(module.check_cgroup(tmp_path)).found
    (tmp_path / "cgroup.controllers").write_text("cpuset memory\n")
    shutil.rmtree(tmp_path / "cpu,cpuacct")
    assert only(module.check_cgroup(tmp_path)).ok == "warn"


def test_namespaces_that_are_refused(monkeypatch):
    refused = SimpleNamespace(returncode=1, stderr="unshare: unshare failed: Operation not permitted\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    finding = only(module.check_namespaces())
    assert (finding.ok, finding.found) == ("fail", "unshare: unshare failed: Operation not permitted")
    assert "CAP_SYS_ADMIN" in (finding.fix or "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert only(module.check_namespaces()).ok == "warn"


@pytest.mark.parametrize(("free_mib", "verdict"), [(100, "fail"), (700, "warn"), (4000, "ok")])
def test_memory(tmp_path, free_mib, verdict):
    (tmp_path / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {free_mib * 1024} kB\n")
    finding = only(module.check_memory(tmp_path / "meminfo"))
    assert finding.ok == verdict
    assert f"{free_mib:,} MiB" in finding.found


@pytest.mark.parametrize(("free_mib", "verdict"), [(100, "fail"), (700, "warn"), (9000, "ok")])
def test_disk(monkeypatch, tmp_path, free_mib, verdict):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mib << 20))
    finding = only(module.check_disk(tmp_path))
    assert finding.ok == verdict
    assert str(tmp_path) in finding.found


def test_a_missing_service_user_and_one_that_is_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    finding = only(module.check_service_user("no-such-user"))
    assert (finding.ok, finding.fix) == ("fail", "make setup")
    assert only(module.check_service_user("root")).ok == "fail"
    assert only(module.check_service_user("nobody")).ok == "ok"


def test_a_clock_before_the_installation_and_one_that_nobody_keeps(monkeypatch):
    finding = only(module.check_clock(now=0.0))
    assert finding.ok == "fail"
    assert finding.found.startswith("1970-01-01 00:00:00 UTC")
    monkeypatch.setattr(module, "_clock_is_synchronised", lambda: False)
    assert only(module.check_clock(now=time.time())).ok == "warn"
    monkeypatch.setattr(module, "_clock_is_synchronised", lambda: True)
    assert only(module.check_clock(now=time.time())).ok == "ok"


def test_a_missing_appliance(tmp_path):
    assert only(module.check_appliance(tmp_path)).fix == "make appliance"
    bundle = tmp_path / "build/appliance/demo.vws"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(bytes(2 << 20))
    assert only(module.check_appliance(tmp_path)).found == f"{bundle} (2 MiB)"


def test_a_check_that_stumbles_is_a_finding(monkeypatch):
    def check_moon():
        raise RuntimeError("no telescope")
        yield

    monkeypatch.setattr(module, "CHECKS", (check_moon,))
    finding = only(findings())
    assert (finding.name, finding.ok, finding.found) == ("moon", "warn", "could not be looked at: no telescope")


def told(monkeypatch, found: list[Finding], *arguments: str):
    monkeypatch.setattr(module, "findings", lambda: found)
    return CliRunner().invoke(doctor, arguments)


def test_the_table_has_a_fix_beside_each_finding_and_exits_1_on_failure(monkeypatch):
    result = told(monkeypatch, [GOOD, BAD, ODD])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "ok    disk      80 MiB free",
        "fail  qemu-img  missing; it makes disks",
        "                fix: apt-get install qemu-utils",
        "warn  kvm       does not work",
        "                fix: nothing, if slow is fine",
        "",
        "1 to mend before a real node can run here (`make setup` mends most), 1 to know of.",
    ]


def test_warnings_alone_exit_0(monkeypatch):
    result = told(monkeypatch, [GOOD, ODD])
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "A real node can run here. 1 to know of."
    assert told(monkeypatch, [GOOD]).output.splitlines()[-1] == "A real node can run here."


def test_json(monkeypatch):
    result = told(monkeypatch, [GOOD, BAD], "--json")
    assert result.exit_code == 1
    assert json.loads(result.output) == [
        {"name": "disk", "ok": "ok", "found": "80 MiB free", "fix": None},
        {
            "name": "qemu-img",
            "ok": "fail",
            "found": "missing; it makes disks",
            "fix": "apt-get install qemu-utils",
        },
    ]


def test_the_command_is_plugged_in():
    from vws.cli.main import cli

    result = CliRunner().invoke(cli, ["doctor", "--help"])
    assert result.exit_code == 0
    assert "what to install" in result.output


def test_the_source_is_where_the_appliance_is_looked_for():
    assert (Path(module.__file__).parents[3] / "pyproject.toml").is_file()


def test_a_bucket_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vws.cli.doctor import check_image_store

    config = tmp_path / "site.toml"
    config.write_text("")
    assert list(check_image_store(tmp_path)) == []
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    config.write_text('[images]\nbucket = "images"\nendpoint = "http://127.0.0.1:9"\nregion = "us-east-1"\n')
    (finding,) = check_image_store(tmp_path)
    assert finding.ok == "fail"
    assert "the bucket images could not be reached" in finding.found


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("quota_mib = -1", "images.quota_mib"),
        ("keep_untagged_days = -1.0", "images.keep_untagged_days"),
        ('gc_every = "daily"', "images.gc_every"),
        ('lists_every = "5s"', "images.lists_every"),
        ('prefix = "a"', "images.bucket"),
        ('bucket = "A"', "images.bucket"),
        ('bucket = "images"\nendpoint = "https://me:secret@host"', "images.endpoint"),
    ],
)
def test_settings_of_images_that_cannot_be_are_named(tmp_path: Path, text: str, field: str) -> None:
    from vws.config import read
    from vws.core.errors import InvalidRequest

    (tmp_path / "site.toml").write_text(f"[images]\n{text}\n")
    with pytest.raises(InvalidRequest) as refused:
        read(tmp_path / "site.toml")
    assert refused.value.field == field
    assert "secret" not in refused.value.problem


def test_what_the_site_does_by_itself_is_set_in_words(tmp_path: Path) -> None:
    from vws.config import read

    (tmp_path / "site.toml").write_text('[images]\ngc_every = "off"\nlists_every = "1h30m"\n')
    rules = read(tmp_path / "site.toml").images.rules
    assert (rules.collect_every_s, rules.lists_every_s) == (None, 5400)
    (tmp_path / "site.toml").write_text("")
    assert read(tmp_path / "site.toml").images.rules.collect_every_s == 86400
