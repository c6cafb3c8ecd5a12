"""A root file system's tar becomes an ext4 disk; what is in it is read back with debugfs, never mounted.

Tars of ill will are made here member by member: each is refused by the name of the member, and nothing is left.
"""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.disk_images import qemu_img
from tests.service.test_image_check import sparse_member
from vws.core.errors import InvalidRequest
from vws.service import root_disk
from vws.service.image_check import examine

PROGRAMS = ("qemu-img", "mke2fs", "debugfs", "e2fsck")
pytestmark = pytest.mark.skipif(
    not all(shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") for name in PROGRAMS),
    reason=f"one of {', '.join(PROGRAMS)} is not installed",
)


def member(name, data=b"", kind=tarfile.REGTYPE, **attributes):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def link(name, target, kind=tarfile.SYMTYPE):
    return member(name, kind=kind, linkname=target)


BOOTABLE = (
    member("./boot/vmlinuz-6.1.0-9-amd64", b"old kernel"),
    member("./boot/initrd.img-6.1.0-9-amd64", b"old initrd"),
    member("./boot/vmlinuz-6.1.0-10-amd64", b"new kernel"),
    member("./boot/initrd.img-6.1.0-10-amd64", b"new initrd"),
    member("./boot/vmlinuz-7.0-no-initrd", b"lonely kernel"),
)


def tar_of(path, *members, end=b""):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in (member("./", kind=tarfile.DIRTYPE, mode=0o755), *members):
            tar.addfile(info, io.BytesIO(data))
    if end:
        with tarfile.open(path) as tar:
            last = tar.getmembers()[-1]
        begin = last.offset_data + -(-last.size // 512) * 512
        path.write_bytes(path.read_bytes()[:begin] + end + bytes(tarfile.RECORDSIZE))
    return path


def look(path, **more):
    return examine(path, path.with_suffix(".parts"), **more)


def refused(path, **more) -> str:
    with pytest.raises(InvalidRequest) as error:
        look(path, **more)
    assert error.value.field == "file"
    assert error.value.possible
    assert not list(path.with_suffix(".parts").iterdir())
    return error.value.problem


class Disk:
    """A look into an ext4 disk image."""

    def __init__(self, found, folder):
        (disk,) = [path for file, path in found.files if file.role == "disk"]
        self.raw = folder / "look.raw"
        qemu_img("convert", "-f", "qcow2", "-O", "raw", disk, self.raw)

    def debugfs(self, command):
        done = subprocess.run(["debugfs", "-R", command, str(self.raw)], check=True, capture_output=True)
        return done.stdout

    def content(self, path):
        return self.debugfs(f'cat "{path}"')

    def inode(self, path):
        return self.debugfs(f'stat "{path}"').decode()


def test_a_tar_becomes_a_disk_with_the_kernel_that_is_in_it(tmp_path):
    path = tar_of(
        tmp_path / "root",
        *BOOTABLE,
        member("./usr/sbin/sshd", b"#!", mode=0o755),
        member("./etc/motd", b"hello\n" * 1000, uid=1000, gid=100, mode=0o640, mtime=1_700_000_000),
        member('./srv/a "quoted" name', b"spaces"),
        member("./var", kind=tarfile.DIRTYPE, mode=0o2775, gid=8),
        member("./tmp", kind=tarfile.DIRTYPE, mode=0o1777),
        link("./bin", "usr/bin"),
        link("./etc/mtab", "/proc/self/mounts"),
        link("./etc/motd2", "./etc/motd", tarfile.LNKTYPE),
        member("./dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    )
    found = look(path)
    roles = {file.role: (file, at) for file, at in found.files}
    assert roles["kernel"][1].read_bytes() == b"new kernel"
    assert roles["initrd"][1].read_bytes() == b"new initrd"
    assert (found.boot, found.ready, found.user) == ("direct", "ssh", "root")
    disk = Disk(found, tmp_path)
    assert found.disk_mib_min == roles["disk"][0].virtual_size_mib == disk.raw.stat().st_size >> 20
    assert disk.content("/etc/motd") == disk.content("/etc/motd2") == b"hello\n" * 1000
    assert disk.content('/srv/a ""quoted"" name') == b"spaces"
    motd = disk.inode("/etc/motd")
    assert "Mode:  0640" in motd
    assert "User:  1000   Group:   100" in motd
    assert "Links: 2" in motd
    assert "mtime: 0x6553f100" in motd
    assert "Mode:  02775" in disk.inode("/var")
    assert "Group:     8" in disk.inode("/var")
    assert "Mode:  01777" in disk.inode("/tmp")
    assert 'Fast link dest: "/proc/self/mounts"' in disk.inode("/etc/mtab")
    assert 'Fast link dest: "usr/bin"' in disk.inode("/bin")
    assert b"null" not in disk.debugfs("ls /dev")
    uuid = disk.debugfs("stats").decode().split("Filesystem UUID:")[1].split()[0]
    assert f"root=UUID={uuid} " in found.cmdline
    subprocess.run(["e2fsck", "-f", "-n", str(disk.raw)], check=True, capture_output=True)
    assert sorted(at.name for at in (tmp_path / "root.parts").iterdir()) == ["disk.qcow2", "initrd", "kernel"]


def test_the_same_tar_is_the_same_disk(tmp_path):
    first, second = tar_of(tmp_path / "first", *BOOTABLE), tar_of(tmp_path / "second", *BOOTABLE)
    assert [file for file, _ in look(first).files] == [file for file, _ in look(second).files]


@pytest.mark.parametrize("program", ["gzip", "xz", "zstd", "bzip2"])
def test_a_compressed_tar_is_a_tar(tmp_path, program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    path = tar_of(tmp_path / "root", *BOOTABLE)
    packed = tmp_path / "packed"
    packed.write_bytes(subprocess.run([program, "-c", str(path)], check=True, capture_output=True).stdout)
    assert look(packed, declared="tar").boot == "direct"


def test_capabilities_and_what_users_noted_are_kept_and_other_attributes_are_not(tmp_path):
    noted = {"SCHILY.xattr.user.note": "mine", "SCHILY.xattr.security.selinux": "no", "SCHILY.xattr.trusted.x": "no"}
    path = tar_of(tmp_path / "root", *BOOTABLE, member("./ping", b"ping", pax_headers=noted))
    inode = Disk(look(path), tmp_path).inode("/ping")
    assert 'user.note (4) = "mine"' in inode
    assert "selinux" not in inode
    assert "trusted" not in inode


def test_a_sparse_file_keeps_its_holes(tmp_path):
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "sparse").open("wb") as file:
        file.truncate(300 << 20)
        file.seek(200 << 20)
        file.write(b"there")
    for number in (0, 1):
        (tmp_path / "tree" / ("vmlinuz-1", "initrd.img-1")[number]).write_bytes(b"boot")
    packed = tmp_path / "packed"
    transform = ["--transform", "s,^vmlinuz,boot/vmlinuz,", "--transform", "s,^initrd,boot/initrd,"]
    names = ["sparse", "vmlinuz-1", "initrd.img-1"]
    subprocess.run(["tar", "-S", "-cf", packed, "-C", tmp_path / "tree", *transform, *names], check=True)
    assert packed.stat().st_size < 1 << 20
    found = look(packed)
    assert sum(file.size_bytes for file, _ in found.files) < 4 << 20
    disk = Disk(found, tmp_path)
    assert "Size: 314572800" in disk.inode("/sparse")
    assert disk.content("/sparse")[200 << 20 :][:5] == b"there"


# ---------------------------------------------------------------- refused

LONG = "x" * 300
BAD = [
    (member("../etc/passwd", b"x"), "'../etc/passwd' leads out of it"),
    (member("./usr/../../etc/passwd", b"x"), "leads out of it"),
    (link("./usr/out", "../../etc/shadow"), "link that leads out of it: '../../etc/shadow'"),
    (link("./out", ".."), "link that leads out of it"),
    (link("./hard", "/etc/shadow", tarfile.LNKTYPE), "hard link to 'etc/shadow', which is no file of this tar"),
    (link("./hard", "../etc/shadow", tarfile.LNKTYPE), "leads out of it"),
    (member("./srv/disk", kind=tarfile.BLKTYPE, devmajor=8), "'./srv/disk' is a device".replace("./", "")),
    (member("./mem", kind=tarfile.CHRTYPE, devmajor=1, devminor=1), "'mem' is a device"),
    (member("./boot/vmlinuz-6.1.0-9-amd64", b"x"), "twice"),
    (member("./boot", b"x"), "twice"),
    (member("./boot/vmlinuz-6.1.0-9-amd64/x", b"x"), "which is no folder"),
    (member("./new\nline", b"x"), "control characters"),
    (member(f"./{LONG}", b"x"), "too long a name"),
    (member("./" + "/".join(["d" * 100] * 25), b"x"), "too long a name"),
    (link("./link", "a\nwrite /etc/shadow x"), "no printable name"),
    (link("./link", "y" * 3000), "too long a name"),
    (member("./big", b"x", uid=1 << 33), "belongs to user"),
]


@pytest.mark.parametrize(("bad", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_a_tar_of_ill_will_is_refused_by_the_members_name(tmp_path, bad, said):
    assert said in refused(tar_of(tmp_path / "root", *BOOTABLE, bad))


def test_a_file_below_a_link_is_refused(tmp_path):
    below = (link("./lib", "/etc"), member("./lib/passwd", b"root::0:0"))
    assert "goes through 'lib', which is no folder" in refused(tar_of(tmp_path / "root", *BOOTABLE, *below))


def test_a_sparse_member_of_a_size_without_end_is_refused_before_it_takes_room(tmp_path):
    path = tar_of(tmp_path / "root", *BOOTABLE, end=sparse_member("./huge", (8 << 30) - 1))
    assert "more than all of an image may have" in refused(path, bytes_max=1 << 30)


def test_a_tar_that_unpacks_to_more_than_the_site_takes_is_refused(tmp_path):
    path = tar_of(tmp_path / "root", *BOOTABLE, *(member(f"./{n}", bytes(1 << 20)) for n in range(5)))
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert packed.stat().st_size < 100_000
    assert "'4' says it has 1048576 bytes" in refused(packed, bytes_max=(4 << 20) + 1000)


def test_a_compressed_header_without_end_is_refused_within_its_bounds(tmp_path):
    """Gigabytes of an extended header in a few megabytes, which a reader might gather in memory."""
    header, _ = member("./pax", kind=tarfile.XHDTYPE)
    header.size = 3 << 30
    packer = gzip.open(tmp_path / "packed", "wb", compresslevel=9)  # noqa: SIM115 - closed below
    packer.write(header.tobuf(tarfile.GNU_FORMAT))
    for _ in range(64):
        packer.write(bytes(1 << 20))
    packer.close()
    refused(tmp_path / "packed")


def test_a_tar_without_a_kernel_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InvalidRequest) as error:
        look(tar_of(tmp_path / "root", member("./etc/motd", b"x")))
    assert "no kernel to boot it with" in error.value.problem
    assert "linux-image" in error.value.possible


def test_a_damaged_tar_is_refused(tmp_path):
    path = tar_of(tmp_path / "root", *BOOTABLE, member("./data", bytes(range(256)) * 4096))
    path.write_bytes(path.read_bytes()[:-600_000])
    assert "cannot be read" in refused(path)


def test_what_is_compressed_and_no_tar_is_told_so(tmp_path):
    path = tmp_path / "packed"
    path.write_bytes(gzip.compress(b"QFI\xfb" + bytes(5000)))
    assert "what is in it is no tar" in refused(path)


def test_a_folder_called_lost_and_found_is_no_trouble(tmp_path):
    path = tar_of(tmp_path / "root", *BOOTABLE, member("./lost+found", kind=tarfile.DIRTYPE, mode=0o700))
    assert look(path).boot == "direct"


names = st.text(alphabet="ab/.\"'<>$\\ ü\n", min_size=1, max_size=12)
kinds = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names, kinds, names, st.binary(max_size=20)), max_size=6), st.binary(max_size=600))
def test_any_tar_is_a_whole_file_system_or_is_refused(tmp_path_factory, members, end):
    folder = tmp_path_factory.mktemp("any")
    made = [
        member(name, data if kind == tarfile.REGTYPE else b"", kind, linkname=target)
        for name, kind, target, data in members
    ]
    path = tar_of(folder / "root", *BOOTABLE, *made, end=end)
    try:
        found = look(path)
    except InvalidRequest:
        return
    (disk,) = [at for file, at in found.files if file.role == "disk"]
    assert disk.is_file()  # e2fsck had nothing to say of it


def test_versions_of_kernels_are_ordered_as_numbers():
    told = {"boot": {f"boot/{kind}-{v}": [0, 0] for v in ("5.9", "5.10", "5.1") for kind in ("vmlinuz", "initrd.img")}}
    assert root_disk._boots(told) == ("boot/vmlinuz-5.10", "boot/initrd.img-5.10")
