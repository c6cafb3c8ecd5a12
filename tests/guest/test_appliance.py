"""The bundle, not booted: the same bytes anywhere, what it says of itself, what the builder says when it fails."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from tests.guest.conftest import CACHE, ROOT
from vws.factory import documents
from vws.guest import debs, rootfs

DEMO = "appliances/demo.yaml"


@pytest.fixture(scope="module")
def members(bundle) -> dict[str, bytes]:
    with tarfile.open(bundle, "r:") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


@pytest.mark.timeout(240)
def test_the_same_packages_give_the_same_bytes(bundle, tmp_path):
    """Another folder, umask, time zone, language and set of unpacked files, at another time."""
    cache = tmp_path / "elsewhere" / "cache"
    (cache / "debs").mkdir(parents=True)
    for deb in (CACHE / "debs").iterdir():
        os.link(deb, cache / "debs" / deb.name)
    out = tmp_path / "other.vws"
    subprocess.run(
        [sys.executable, "-m", "vws.cli.main", "image", "build", ROOT / DEMO, "--out", str(out), "--cache", str(cache)],
        cwd=tmp_path,
        umask=0o077,
        env={**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"},
        check=True,
    )
    assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(bundle.read_bytes()).digest()


def test_members_in_order_with_nothing_of_the_build_machine(bundle):
    with tarfile.open(bundle, "r:") as tar:
        found = tar.getmembers()
    assert [member.name for member in found] == [
        *("appliance.json", "kernel", "initrd", "disk.qcow2", "sbom.cdx.json", "provenance.json")
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in found} == {
        (0, 0, 0, "", "", 0o644)
    }


def test_the_manifest_describes_the_rest(members):
    manifest = json.loads(members["appliance.json"])
    assert manifest["format"] == "vws-appliance/1"
    assert (manifest["name"], manifest["boot"], manifest["ready"], manifest["user"]) == (
        *("demo", "direct", "ssh", "root"),
    )
    for name, described in manifest["files"].items():
        assert described["sha256"] == hashlib.sha256(members[name]).hexdigest()
        assert described["size"] == len(members[name])
    packages = {each.name: each for each in documents.packages_in(members["sbom.cdx.json"])}
    assert {"busybox-static", "dropbear-bin", "curl", "libc6"} <= packages.keys()
    assert any(name.startswith("linux-image-6") for name in packages)
    assert all(each.sha256 and each.version for each in packages.values())


def test_it_is_small(members):
    """The kernel is Debian's own, compressed by Debian; what is added to it stays below 15 MB. Unpacking the initrd
    costs boot time."""
    assert len(members["initrd"]) < 3_800_000
    assert len(members["initrd"]) + len(members["disk.qcow2"]) < 15_000_000


def test_the_disk_is_a_plain_qcow2_of_the_size_it_says(members, tmp_path):
    (tmp_path / "disk.qcow2").write_bytes(members["disk.qcow2"])
    told = json.loads(debs.run(["qemu-img", "info", "--output=json", str(tmp_path / "disk.qcow2")]))
    assert "backing-filename" not in told
    manifest = json.loads(members["appliance.json"])
    assert told["virtual-size"] == manifest["files"]["disk.qcow2"]["virtual_size_mib"] << 20


def test_scripts_parse(bundle):
    """By the very shell that will run them."""
    busybox = next((CACHE / "unpacked").glob("busybox-static_*")) / "bin" / "busybox"
    scripts = [path for path in (rootfs.SCRIPTS / "files").rglob("*") if path.is_file()]
    names = [path for path in scripts if path.read_bytes().startswith(b"#!")]
    for script in [rootfs.SCRIPTS / "init", rootfs.SCRIPTS / "agent", rootfs.SCRIPTS / "files/etc/profile", *names]:
        debs.run([str(busybox), "sh", "-n", str(script)])


def test_modules_come_after_what_they_depend_on(bundle):
    tree = next((CACHE / "unpacked").glob("linux-image-*"))
    kernel = debs.Unpacked(debs.Deb("linux-image", "1", "amd64", "", ()), tree)
    order = [path.name for path in rootfs.module_order(kernel, rootfs.EARLY_MODULES)]
    assert order.index("virtio_ring.ko") < order.index("virtio_pci.ko")
    assert order.index("virtio.ko") < order.index("virtio_net.ko")
    assert order.index("cdrom.ko") < order.index("isofs.ko")
    assert len(order) == len(set(order))


def test_the_disk_has_the_modules_of_nfs_and_the_initramfs_has_not(bundle):
    tree = next((CACHE / "unpacked").glob("linux-image-*"))
    kernel = debs.Unpacked(debs.Deb("linux-image", "1", "amd64", "", ()), tree)
    (release,) = (path.name for path in tree.glob("lib/modules/*"))
    listed = rootfs._disk_modules(kernel, ("nfsd", "nfsv4"))
    dep = listed[f"usr/lib/modules/{release}/modules.dep"].data.decode()
    needs = dict(line.split(": ") if ": " in line else (line.rstrip(": "), "") for line in dep.splitlines())
    assert {"nfsd.ko", "nfsv4.ko", "nfs.ko", "sunrpc.ko"} <= needs.keys()
    assert set(needs["nfsd.ko"].split()) == {"sunrpc.ko", "grace.ko", "lockd.ko", "nfs_acl.ko", "auth_rpcgss.ko"}
    for words in needs.values():  # modprobe loads them from the last to the first
        loaded: set[str] = set()
        for name in reversed(words.split()):
            assert set(needs[name].split()) <= loaded
            loaded.add(name)
    assert {f"usr/lib/modules/{release}/{name}" for name in needs} <= listed.keys()
    assert " nfsd\n" in listed[f"usr/lib/modules/{release}/modules.alias"].data.decode()
    assert not {path.split("/")[-1] for path in rootfs._modules(kernel)} & needs.keys()


def test_a_package_that_is_not_what_was_promised_is_refused(tmp_path, monkeypatch):
    (tmp_path / "debs").mkdir()
    deb = debs.Deb("thing", "1:2.0", "amd64", "0" * 64, ())
    monkeypatch.setattr(debs, "run", lambda *_, **__: (tmp_path / "debs" / deb.file_name).write_bytes(b"evil") and "")
    with pytest.raises(debs.BuildError, match="not what apt's lists promised"):
        debs.unpack([deb], tmp_path)
    assert deb.file_name == "thing_1%3a2.0_amd64.deb"
    assert not (tmp_path / "debs" / deb.file_name).exists()


def test_a_missing_program_says_how_to_get_it():
    with pytest.raises(debs.BuildError, match=r"no-such-program is not installed. Next: make setup"):
        debs.run(["no-such-program"])


def test_stanzas_of_apt_are_read():
    text = (
        "Package: curl\nVersion: 7.88\nArchitecture: amd64\nPre-Depends: dpkg (>= 1.15)\n"
        "Depends: libc6 (>= 2.34), libcurl4 (= 7.88), debconf (>= 0.5) | debconf-2.0, zlib1g\nSHA256: ab\n"
        "Description: command line tool\n with: colons\n\n"
    )
    (deb,) = debs._stanzas(text)
    assert deb.depends == ("dpkg", "libc6", "libcurl4", "debconf", "zlib1g")


def test_an_unknown_module_or_library_is_named(tmp_path):
    kernel = debs.Unpacked(debs.Deb("linux-image-x", "1", "amd64", "", ()), tmp_path)
    with pytest.raises(debs.BuildError, match="linux-image-x has no module virtio_pci"):
        rootfs.module_order(kernel, ["virtio_pci"])


def test_stream_is_ustar(bundle):
    with bundle.open("rb") as stream:
        assert io.BytesIO(stream.read(512)).getvalue()[257:263] == b"ustar\0"
