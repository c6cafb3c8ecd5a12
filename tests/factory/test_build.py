"""Whole builds, by the command that users type: from a tiny recipe, from the Debian appliance; refused, killed, again.

Those on the Debian appliance take the one that `make setup` keeps in build/appliance.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import client, home, vws
from tests.factory.conftest import needs_root
from tests.guest.conftest import CACHE, ROOT
from tests.guest.machine import Machine, make_key, make_seed, unpack
from vws.core.manifest import digest
from vws.core.site import Image
from vws.factory import apart, bundle, debian
from vws.factory.apart import build_apart
from vws.service.image_check import examine

__all__ = ["client", "home", "vws"]

DEBIAN = ROOT / "build/appliance/debian.vws"
TINY = "vws: recipe/1\nname: tiny\nprograms: {/usr/bin/curl: curl}\ndisk: {size: 32MiB}\n"
on_debian = pytest.mark.skipif(not DEBIAN.exists(), reason="no Debian appliance: make debian")

Build = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cache(tmp_path) -> Path:
    """One of the test's own, with what was downloaded before."""
    own = tmp_path / "cache"
    own.mkdir()
    for folder in ("debs", "archives", "unpacked"):
        (CACHE / folder).mkdir(parents=True, exist_ok=True)
        (own / folder).symlink_to(CACHE / folder)
    return own


def command(recipe: Path, cache: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "vws.cli.main", "image", "build", str(recipe), "--cache", str(cache), *more]


@pytest.fixture
def build(tmp_path, cache) -> Build:
    def build(text: str, *more: str, name: str = "recipe.yaml") -> subprocess.CompletedProcess[str]:
        recipe = tmp_path / name
        recipe.write_text(text)
        return subprocess.run(
            command(recipe, cache, *more), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )

    return build


# ---------------------------------------------------------------- well


DISKS = """\
files: [{path: /srv/words/word, text: "theirs\\n"}]
disks:
  words: {size: 16MiB, mount: /srv/words}
  scratch: {size: 10GiB, mount: /scratch, label: scratch}
  page: {size: 64MiB, filesystem: swap}
"""


def test_steps_are_told_with_their_times_and_then_what_came_of_it(build, tmp_path):
    done = build(TINY + DISKS)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].strip() == "0.0 s  packages of 1 programs"
    assert "writing the disk: " in done.stdout
    assert lines[-2].startswith("tiny.vws is built in ")
    assert lines[-1] == "Next: vws image import tiny.vws --name tiny"
    assert (tmp_path / "tiny.sbom.cdx.json").exists()
    again = build(TINY + DISKS, "--out", "again.vws", "--json")
    told = json.loads(again.stdout)
    assert told["path"] == str(tmp_path / "again.vws")
    assert (tmp_path / "again.vws").read_bytes() == (tmp_path / "tiny.vws").read_bytes()
    assert not list((tmp_path / "cache/work").glob("build-*"))
    found = examine(tmp_path / "tiny.vws", tmp_path / "parts")
    assert {disk.name: (disk.size_mib, disk.filesystem, disk.mount, disk.brought) for disk in found.beside} == {
        "page": (64, "swap", "", False),
        "scratch": (10240, "ext4", "/scratch", False),
        "words": (16, "ext4", "/srv/words", True),
    }
    assert [file.role for file, _ in found.files] == ["kernel", "initrd", "disk", "data-words"]
    image = Image("", "", "", "", 0, found.boot, tuple(file for file, _ in found.files), found.cmdline)
    assert digest(replace(image, beside=found.beside)) == told["digest"] != digest(image)


# ---------------------------------------------------------------- refused


def test_a_wrong_recipe_costs_nothing(build, tmp_path):
    done = build(TINY + "pakages: []\n")
    assert done.returncode == 1
    assert "recipe.yaml: line 5, column 1: the file has no key 'pakages'" in done.stderr
    assert not (tmp_path / "cache/work").exists()


def test_a_bundle_goes_into_a_folder_that_is_there(build, tmp_path):
    done = build(TINY, "--out", "no/such/tiny.vws")
    assert done.returncode == 1
    assert "no/such/tiny.vws cannot be written: no/such is no directory" in done.stderr
    assert "kept: nothing was made\n  next: mkdir -p no/such" in done.stderr
    assert not (tmp_path / "no").exists()


def test_an_unknown_package_is_named_and_the_former_bundle_kept(build, tmp_path):
    (tmp_path / "tiny.vws").write_bytes(b"former")
    done = build(TINY.replace(": curl", ": no-such-package-as-this"))
    assert done.returncode == 1
    assert "apt does not know no-such-package-as-this" in done.stderr
    assert "apt-get update" in done.stderr
    assert (tmp_path / "tiny.vws").read_bytes() == b"former"
    assert f"kept: {tmp_path / 'cache/logs/tiny.log'}, the log; tiny.vws is as it was" in done.stderr
    assert (tmp_path / "cache/logs/tiny.log").read_text().startswith("--- 0.0 s: packages of 1 programs\n")


@pytest.mark.soak
def test_a_program_that_its_package_has_not_is_named(build):
    done = build(TINY.replace(": curl}", ": 'curl:/usr/bin/other'}"))
    assert done.returncode == 1
    assert "the package curl has no file /usr/bin/other, which is to be" in done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("said", ["size: 8MiB, mount: /srv/words", "size: 1GiB, filesystem: xfs, mount: /srv/words"])
def test_a_further_disk_that_cannot_be_filled_is_told(build, said):
    done = build(TINY + DISKS.replace("size: 16MiB, mount: /srv/words", said))
    assert done.returncode == 1
    assert "the build left 1 files below /srv/words, which are to be on it" in done.stderr
    assert "ext4, at least 16MiB; or another mount" in done.stderr


@pytest.mark.soak
def test_a_disk_too_small_is_told_with_its_size(build, tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(20 << 20))
    done = build(TINY.replace("32MiB", "16MiB") + "files: [{path: /data/big, from: big}]\n")
    assert done.returncode == 1
    assert "files do not fit on a disk of 16 MiB" in done.stderr
    assert "a larger disk" in done.stderr
    assert not (tmp_path / "tiny.vws").exists()


def test_debian_packages_take_root(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "recipe.yaml").write_text("vws: recipe/1\nname: mine\ndebian: {suite: bookworm}\n")
    with pytest.raises(Exception, match="packages are installed as root, and you are not") as error:
        build_apart(tmp_path / "recipe.yaml", tmp_path / "o.vws", cache, lambda at_s, step: None)
    assert "sudo" in error.value.possible


def test_a_suite_without_sources_is_refused_before_anything_is_loaded(monkeypatch, tmp_path):
    listed = tmp_path / "main.sources"
    listed.write_text("Types: deb\nURIs: file:/nowhere\nSuites: bookworm bookworm-updates\nComponents: main\n")
    old = tmp_path / "old.list"
    old.write_text("# deb file:/x buster main\ndeb [signed-by=/a b=c] file:/x bullseye main\n")
    monkeypatch.setattr(debian, "SOURCES", (tmp_path,))
    assert debian._sources("bookworm") == [listed]
    assert debian._sources("bullseye") == [old]
    with pytest.raises(Exception, match="this machine's apt has no sources of trixie") as error:
        debian._sources("trixie")
    assert error.value.possible.startswith("bookworm, bookworm-updates, bullseye; or add")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("E: Unable to locate package slrum\n", "debian.packages: apt knows no package slrum"),
        ("E: Package 'foo' has no installation candidate\n", "debian.packages: apt knows no package foo"),
        ("E: Version '9' for 'curl' was not found\n", "debian.packages: apt knows no version 9 of curl"),
        ("The following packages have unmet dependencies:\n a1 : Depends: b2 but\n", "a1 : Depends: b2 but"),
        ("dpkg: error processing package broken (--configure):\n", "the package broken could not be installed"),
        ("E: Failed to fetch https://a.example/pool/x_1_all.deb  404\n", "x_1_all.deb could not be downloaded"),
    ],
)
def test_what_apt_and_dpkg_say_is_told_with_the_packages_name(said, told):
    error = debian._reason("Reading package lists...\n" + said, ("curl",))
    assert error is not None
    assert told in str(error)
    assert "example" not in str(error)
    assert debian._reason("all is well", ()) is None


def test_what_to_build_on_is_a_file_or_an_image_of_the_site(vws, client, home, monkeypatch):
    """The site's is fetched once, by its id."""
    (home / "mine.yaml").write_text("vws: recipe/1\nname: mine\n")
    asked = []
    monkeypatch.setattr(client, "export_image", _export(asked), raising=False)
    monkeypatch.setattr(apart, "build_apart", lambda file, out, cache, tell, *, image: _built(asked, image))
    for _ in range(2):
        done = vws("image", "build", str(home / "mine.yaml"), "--from", "demo", "--cache", str(home / "cache"))
        assert done.exit_code == 0, done.stderr
    fetched = home / "cache/images/img-1.vws"
    assert asked == [("img-1", "bundle"), fetched, fetched]
    done = vws("image", "build", str(home / "mine.yaml"), "--from", "gone.vws")
    assert "--from: there is no file gone.vws" in done.stderr


def _export(asked):
    def export(id, format, target):
        asked.append((id, format))
        Path(target).write_bytes(b"bundle")

    return export


def _built(asked, image):
    asked.append(image)
    return {"took_s": 1.0, "size_bytes": 1, "sha256": "ab", "packages": 1}


# ---------------------------------------------------------------- on the Debian appliance


DERIVED = """\
vws: recipe/1
name: derived
files:
  - {path: /etc/motd, text: "derived\\n"}
users:
  ann: {uid: 2000, groups: [adm], shell: /bin/sh}
services:
  run: {hello: "sh -c 'echo hello from a service >/dev/console; exec sleep 100000'"}
commands:
  - run: chown ann /etc/motd; touch /etc/built
"""


@needs_root
@on_debian
@pytest.mark.soak
@pytest.mark.timeout(400)
def test_what_is_built_on_debian_is_the_same_each_time_and_boots(build, tmp_path):
    for name in ("one", "two"):
        done = build(DERIVED, "--from", str(DEBIAN), "--out", f"{name}.vws")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.vws").read_bytes() == (tmp_path / "two.vws").read_bytes()
    before, after = (json.loads(bundle.beside(each, bundle.SBOM).read_text())["components"] for each in
                     (DEBIAN, tmp_path / "one.vws"))  # fmt: skip
    assert [each["purl"] for each in before] == [each["purl"] for each in after]
    parts = tmp_path / "parts"
    parts.mkdir()
    unpack(tmp_path / "one.vws", parts)
    boot(parts)


def boot(parts: Path) -> None:
    public, host = make_key(parts / "user"), make_key(parts / "host")
    assert host
    seed = {"vws/hostname": "derived\n", "vws/authorized_keys": public, "vws/env": "A=b\n"}
    make_seed(parts / "seed.iso", seed | {"vws/ssh_host_ed25519_key": (parts / "host").read_text()})
    with Machine(parts, memory_mib=192, disk_mib=1200) as machine:
        machine.wait_for("hello from a service", limit_s=120)
        machine.wait_for("VWS: up in", limit_s=120)
        machine.wait_for_ssh(60)
        assert machine.output("hostname; stat -c %U /etc/motd; id -nG ann").split() == ["derived", "ann", "ann", "adm"]
        assert machine.output("stat -c %a /usr/bin/su").strip() == "4755"


@needs_root
@on_debian
@pytest.mark.timeout(300)
def test_a_command_that_fails_is_told_with_its_last_words_and_nothing_stays(build, tmp_path):
    failing = 'vws: recipe/1\nname: mine\ncommands:\n  - run: "echo almost >&2; exit 3"\n'
    (tmp_path / "mine.vws").write_bytes(b"former")
    done = build(failing, "--from", str(DEBIAN))
    assert done.returncode == 1
    assert "commands[0] (echo almost >&2; exit 3): it ended with status 3: almost" in done.stderr
    log = tmp_path / "cache/logs/mine.log"
    assert f"kept: {log}, the log; mine.vws is as it was" in done.stderr
    assert "almost" in log.read_text()
    assert (tmp_path / "mine.vws").read_bytes() == b"former"
    assert not list((tmp_path / "cache/work").glob("build-*"))
    unknown = "vws: recipe/1\nname: mine\ndebian: {packages: [no-such-package-as-this]}\n"
    done = build(unknown, "--from", str(DEBIAN))
    assert "debian.packages: apt knows no package no-such-package-as-this" in done.stderr


@needs_root
@on_debian
@pytest.mark.timeout(300)
def test_a_killed_build_leaves_no_process_and_no_mount_and_the_next_removes_its_folder(build, cache, tmp_path):
    marker = f"86397.{os.getpid()}"
    recipe = tmp_path / "long.yaml"
    recipe.write_text(f'vws: recipe/1\nname: long\ncommands:\n  - run: "sleep {marker}"\n')
    process = subprocess.Popen(
        command(recipe, cache, "--from", str(DEBIAN)), stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout
    for line in process.stdout:
        if "command 1: sleep" in line:
            break
    wait_for(lambda: running(marker))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not running(marker) and not running(str(cache / "work")))
    assert str(cache) not in Path("/proc/self/mounts").read_text()  # others mount what is theirs meanwhile
    assert list((cache / "work").glob("build-*"))
    assert not (tmp_path / "long.vws").exists()
    assert build(TINY).returncode == 0
    assert not list((cache / "work").glob("build-*"))


def running(marker: str) -> bool:
    told = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    mine = str(os.getpid())
    return any(marker in line and line.split()[0] != mine and " ps " not in line for line in told.splitlines())


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---------------------------------------------------------------- from the packages on


@needs_root
@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["debian", "cloud"])
def test_the_same_packages_give_the_same_system(name, tmp_path):
    built = [
        build_apart(ROOT / f"appliances/{name}.yaml", tmp_path / f"{number}.vws", CACHE, lambda at_s, step: None)
        for number in range(2)
    ]
    assert built[0]["sha256"] == built[1]["sha256"]


@needs_root
@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_the_cloud_image_boots_by_its_loader_and_cloud_init_lets_us_in(tmp_path):
    build_apart(ROOT / "appliances/cloud.yaml", tmp_path / "cloud.vws", CACHE, lambda at_s, step: None)
    unpack(tmp_path / "cloud.vws", tmp_path)
    assert not (tmp_path / "kernel").exists()
    user = {"users": [{"name": "root", "ssh_authorized_keys": [make_key(tmp_path / "user")]}], "disable_root": False}
    public = make_key(tmp_path / "host")
    user["ssh_keys"] = {"ed25519_private": (tmp_path / "host").read_text(), "ed25519_public": public}
    seed = {"meta-data": '{"instance-id": "i-1", "local-hostname": "clouded"}'}
    make_seed(tmp_path / "seed.iso", seed | {"user-data": "#cloud-config\n" + json.dumps(user)})
    channel = ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0"]
    channel += ["-chardev", f"socket,id=ga,path={tmp_path / 'ga'},server=on,wait=off"]
    with Machine(tmp_path, memory_mib=384, disk_mib=3000, more=channel) as machine:
        # QEMU takes calls for the guest's sshd before there is one.
        machine.wait_for(" finished at ", limit_s=500)  # cloud-init's last word
        assert machine.output("hostname; systemctl --failed --no-legend --plain").split() == ["clouded"]
        assert int(machine.output("df -m --output=size / | tail -n 1")) > 2500  # grown to the lease's disk
        assert asked_of_agent(tmp_path / "ga", "guest-fsfreeze-freeze") >= 1, "what a save does"
        assert asked_of_agent(tmp_path / "ga", "guest-fsfreeze-thaw") >= 1


def asked_of_agent(path: Path, command: str) -> int:
    """What QEMU's guest agent answers: how many file systems it was done to."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(60)
        channel.connect(str(path))
        channel.sendall(json.dumps({"execute": command}).encode() + b"\n")
        answer = json.loads(channel.makefile("rb").readline())
    assert "return" in answer, answer
    return int(answer["return"])


@needs_root
@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_package_that_no_source_has_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "vws: recipe/1\nname: mine\ndebian: {suite: bookworm, packages: [no-such-package-as-this]}\n"
    )
    with pytest.raises(Exception, match=r"mine.yaml: debian.packages: apt knows no package no-such-package-as-this"):
        build_apart(tmp_path / "mine.yaml", tmp_path / "o.vws", tmp_path / "cache", lambda at_s, step: None)


# ---------------------------------------------------------------- a full disk

ON_A_SMALL_DISK = """
import pathlib, subprocess, sys
place, *command = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=True)
(pathlib.Path(place) / "tiny.vws").write_bytes(b"former")
done = subprocess.run(command, capture_output=True, text=True)
print(done.returncode, done.stderr, sorted(path.name for path in pathlib.Path(place).iterdir()))
assert (pathlib.Path(place) / "tiny.vws").read_bytes() == b"former"
"""


@needs_root
def test_a_full_disk_is_told_with_its_place_and_the_former_bundle_kept(cache, tmp_path):
    """In a mount namespace of its own, so that nothing stays."""
    place, recipe = tmp_path / "small", tmp_path / "recipe.yaml"
    place.mkdir()
    recipe.write_text(TINY)
    asked = command(recipe, cache, "--out", str(place / "tiny.vws"))
    within = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", ON_A_SMALL_DISK, str(place)]
    done = subprocess.run([*within, *asked], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 Error: there is no room left on the disk of " + str(place)), done.stdout
    assert "possible: room there, or other disks: --out FILE, --cache FOLDER" in done.stdout
    assert f"{place / 'tiny.vws'} is as it was" in done.stdout
    assert done.stdout.rstrip().endswith("['tiny.vws']"), "no part of it is left"
    assert not list((cache / "work").glob("build-*"))
    assert list(place.iterdir()) == []
