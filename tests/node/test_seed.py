"""The NoCloud disk, read back as a guest reads it."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from dataclasses import replace

import pycdlib
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from tests.node.builders import order
from vws.core.deployment import ContextOrder, DiskOrder, NicOrder
from vws.guest import delivery
from vws.node.disk_troubles import disk_troubles
from vws.node.seed import RUN_COMMAND, dropbear_form, exit_status, new_keys, seed_files, seed_iso

WORKSPACE = order(name="alpha-1", ssh_keys=("ssh-ed25519 AAAA first", 'ssh-rsa BBBB "second": {x}'))


@pytest.fixture(scope="module")
def keys() -> tuple[str, str]:
    return new_keys()


def read(iso_bytes: bytes, path: str, **how: str) -> bytes:
    iso, data = pycdlib.PyCdlib(), io.BytesIO()
    iso.open_fp(io.BytesIO(iso_bytes))
    iso.get_file_from_iso_fp(data, **(how or {"rr_path": path}))
    iso.close()
    return data.getvalue()


def test_volume_is_found_by_its_name_and_holds_every_file(keys) -> None:
    data = seed_iso(WORKSPACE, keys)
    assert data[16 * 2048 + 40 :][:6] == b"cidata"
    for path, content in seed_files(WORKSPACE, keys).items():
        kept = content.encode() if isinstance(content, str) else content
        assert read(data, f"/{path}") == kept
        assert read(data, "", joliet_path=f"/{path}") == kept


def test_cloud_init_reads_names_keys_and_network(keys) -> None:
    files = seed_files(WORKSPACE, keys)
    assert yaml.safe_load(files["meta-data"]) == {"instance-id": "wsp-1", "local-hostname": "alpha-1"}
    assert files["user-data"].startswith("#cloud-config\n")
    user = yaml.safe_load(files["user-data"])
    assert user["hostname"] == "alpha-1"
    assert user["ssh_authorized_keys"] == list(WORKSPACE.ssh_keys)
    assert user["ssh_keys"] == {"ed25519_private": keys[0], "ed25519_public": keys[1]}
    assert (user["disable_root"], user["ssh_pwauth"]) == (False, False)
    network = yaml.safe_load(files["network-config"])
    assert network["ethernets"]["eth0"] == {
        "match": {"macaddress": WORKSPACE.mac},
        "set-name": "eth0",
        "dhcp4": True,
    }


def test_login_user_is_the_images(keys) -> None:
    root = seed_files(WORKSPACE, keys)["user-data"].partition("\n")[2]
    assert json.loads(root)["users"] == [{"name": "root", "ssh_authorized_keys": list(WORKSPACE.ssh_keys)}]
    other = seed_files(replace(WORKSPACE, user="debian"), keys)["user-data"].partition("\n")[2]
    assert json.loads(other)["user"] == {"name": "debian"}


def test_a_shell_reads_the_plain_twins(keys) -> None:
    files = seed_files(replace(WORKSPACE, lease="it's $(reboot)"), keys)
    assert files["vws/hostname"] == "alpha-1\n"
    assert files["vws/authorized_keys"].splitlines() == list(WORKSPACE.ssh_keys)
    assert "VWS_LEASE='it'\"'\"'s $(reboot)'\n" in files["vws/env"]
    assert "VWS_WORKSPACE=wsp-1\n" in files["vws/env"]


def test_the_public_key_is_that_of_the_private_one(keys) -> None:
    private, public = keys
    loaded = load_ssh_private_key(private.encode(), None)
    assert loaded.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() == public
    assert new_keys()[1] != public


def test_dropbear_finds_keys_in_its_own_form(keys, tmp_path) -> None:
    if shutil.which("dropbearkey") is None:
        pytest.skip("no dropbear")
    file = tmp_path / "key"
    file.write_bytes(dropbear_form(keys[0]))
    shown = subprocess.run(["dropbearkey", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    assert keys[1] in shown
    assert seed_files(WORKSPACE, keys)["vws/dropbear_host_key"] == dropbear_form(keys[0])
    assert seed_files(WORKSPACE, keys)["vws/ssh_host_ed25519_key.pub"] == f"{keys[1]}\n"


def test_a_member_has_roots_key_for_the_others_on_its_disk(keys) -> None:
    user = new_keys()
    files = seed_files(MEMBER, keys, user)
    given = {name: files[f"vws/context/{name}"] for name in ("user-key", "user-key.pub", "user-key.dropbear")}
    assert given == {"user-key": user[0], "user-key.pub": f"{user[1]}\n", "user-key.dropbear": dropbear_form(user[0])}
    written = yaml.safe_load(files["user-data"])["write_files"]
    (private,) = (each for each in written if each["path"] == f"{delivery.FOLDER}/user-key")
    assert private["permissions"] == "0600"
    assert not any("user-key" in path for path in seed_files(WORKSPACE, keys, user)), (
        "who is in no context has no others"
    )


# ---------------------------------------------------------------- a command

SCRIPT = "#!/usr/bin/env python3\nprint('é \U0001f600 ${HOME} %s')\n"


def test_without_a_command_nothing_is_run(keys) -> None:
    files = seed_files(WORKSPACE, keys)
    assert not {"vws/command", "vws/run-command"} & files.keys()
    assert not {"runcmd", "write_files"} & yaml.safe_load(files["user-data"]).keys()


def test_cloud_init_lays_the_command_down_and_runs_it(keys) -> None:
    ordered = replace(WORKSPACE, command=SCRIPT, user="debian")
    user = yaml.safe_load(seed_files(ordered, keys)["user-data"])
    written = {f["path"]: base64.b64decode(f["content"]).decode() for f in user["write_files"]}
    assert all((f["encoding"], f["permissions"]) == ("b64", "0600") for f in user["write_files"])
    assert written.keys() == {"/run/vws/env", "/run/vws/command", "/run/vws/run-command"}
    assert (written["/run/vws/command"], written["/run/vws/run-command"]) == (SCRIPT, RUN_COMMAND)
    assert "VWS_USER=debian\n" in written["/run/vws/env"]
    assert len(user["runcmd"]) == 1
    assert user["runcmd"][0].startswith("sh /run/vws/run-command ")


def test_a_shell_finds_the_command_on_the_disk(keys) -> None:
    data = seed_iso(replace(WORKSPACE, command=SCRIPT), keys)
    assert read(data, "/vws/command").decode() == SCRIPT
    assert read(data, "/vws/run-command").decode() == RUN_COMMAND


def test_run_command_is_a_shell_script() -> None:
    subprocess.run(["sh", "-n"], input=RUN_COMMAND, text=True, check=True)


@pytest.mark.parametrize(
    ("console", "status"),
    [
        (b"", None),
        (b"\r\nVWS: the command of wsp-1 ended with status 3\r\n[  9.1] reboot: Power down", 3),
        (b"VWS: the command of wsp-1 ended wi[  9.1] acpi\r\nVWS: the command of wsp-1 ended with status 0\r\n", 0),
        (b"VWS: the command of wsp-11 ended with status 3\r\n", None),
        (b"VWS: the command of wsp-1 ended with status $status", None),
        (b"VWS: the command of wsp-1 ended with status 0\nVWS: the command of wsp-1 ended with status 137\n", 137),
    ],
)
def test_the_console_tells_how_it_ended(console, status) -> None:
    assert exit_status(console, "wsp-1") == status


# ---------------------------------------------------------------- networks, disks, context

NICS = (NicOrder("net-1", "02:77:00:00:00:01", "10.20.0.2", "private"), NicOrder("", "02:77:00:00:00:02", "10.64.0.2"))
DISKS = (
    DiskOrder("scratch", 1024, "ext4", "fast", "/scratch"),
    DiskOrder("page", 64, "swap"),
    DiskOrder("raw", 64),
    DiskOrder("kept", 64, "xfs"),
    DiskOrder("reference", 0, mount="/data", image="img-2"),
    DiskOrder("own", 64, mount="/own", image="img-2", private=True),
)
CONTEXT = ContextOrder("https://vws.example:8443", "c2VjcmV0", "-----BEGIN CERTIFICATE-----\n", "slurm.example")
CONTEXT_FILES = ("url", "secret", "ca.pem", "networks", "disks", "agent")
MEMBER = replace(WORKSPACE, nics=NICS, disks=DISKS, context=CONTEXT, member="worker-1")


def test_cloud_init_sets_up_every_interface_and_prefers_the_first_way_out(keys) -> None:
    ethernets = yaml.safe_load(seed_files(MEMBER, keys)["network-config"])["ethernets"]
    assert {name: each["match"]["macaddress"] for name, each in ethernets.items()} == {
        "eth0": "02:77:00:00:00:01",
        "eth1": "02:77:00:00:00:02",
    }
    assert all(each["dhcp4"] and each["set-name"] == name for name, each in ethernets.items())
    assert [each["dhcp4-overrides"]["route-metric"] for each in ethernets.values()] == [100, 200]
    assert "VWS_ADDRESS=10.20.0.2\n" in seed_files(MEMBER, keys)["vws/env"]


def test_cloud_init_makes_file_systems_only_where_there_is_nothing_and_mounts_them(keys) -> None:
    user = yaml.safe_load(seed_files(MEMBER, keys)["user-data"])
    by_id = "/dev/disk/by-id/virtio-vws-"
    assert user["fs_setup"] == [
        {"device": f"{by_id}scratch", "partition": "auto", "filesystem": "ext4", "label": "fast"},
        {"device": f"{by_id}kept", "partition": "auto", "filesystem": "xfs"},
    ]
    assert user["mounts"] == [
        [f"{by_id}scratch", "/scratch", "ext4", "defaults,nofail", "0", "2"],
        [f"{by_id}page", "none", "swap", "sw,nofail", "0", "0"],
        [f"{by_id}reference", "/data", "auto", "ro,nofail", "0", "0"],
        [f"{by_id}own", "/own", "auto", "defaults,nofail", "0", "2"],
    ]
    assert not {"fs_setup", "mounts"} & yaml.safe_load(seed_files(WORKSPACE, keys)["user-data"]).keys()


def test_cloud_init_brings_the_agent_beside_the_command(keys) -> None:
    both = yaml.safe_load(seed_files(replace(MEMBER, command=SCRIPT), keys)["user-data"])["write_files"]
    paths = [file["path"] for file in both]
    assert {delivery.PROGRAM, delivery.PER_BOOT, f"{delivery.FOLDER}/secret", "/run/vws/command"} <= set(paths)
    assert len(set(paths)) == len(paths)


def test_a_member_is_told_of_its_context(keys) -> None:
    data = seed_iso(MEMBER, keys)
    told = {name: read(data, f"/vws/context/{name}").decode() for name in CONTEXT_FILES}
    assert told == {
        "url": "https://vws.example:8443\n",
        "secret": "c2VjcmV0\n",
        "ca.pem": CONTEXT.ca_pem,
        "networks": "02:77:00:00:00:01\tprivate\n",
        "agent": delivery.AGENT,
        "disks": "scratch\text4\tfast\t/scratch\trw\npage\tswap\t-\t-\trw\nraw\t-\t-\t-\trw\nkept\txfs\t-\t-\trw\n"
        "reference\t-\t-\t/data\tro\nown\t-\t-\t/own\trw\n",
    }
    user = yaml.safe_load(seed_files(MEMBER, keys)["user-data"])
    assert (user["hostname"], user["fqdn"]) == ("worker-1", "worker-1.slurm.example"), "as its cluster calls it"
    assert seed_files(MEMBER, keys)["vws/hostname"] == "worker-1\n"
    assert not any(path.startswith("vws/context") for path in seed_files(WORKSPACE, keys))
    assert CONTEXT.secret not in repr(MEMBER)


def test_who_is_in_no_context_is_told_of_its_disks_all_the_same(keys) -> None:
    files = seed_files(replace(MEMBER, context=None), keys)
    assert files["vws/disks"] == seed_files(MEMBER, keys)["vws/context/disks"]
    assert "vws/disks" not in seed_files(MEMBER, keys), "its agent sees to them"
    assert "vws/disks" not in seed_files(WORKSPACE, keys)


def test_what_cloud_init_could_not_make_of_disks_is_looked_at_and_told(keys, tmp_path) -> None:
    """Run as it would be in the guest, with programs that say what is there."""
    files = seed_files(replace(WORKSPACE, disks=DISKS), keys)
    (run,) = yaml.safe_load(files["user-data"])["runcmd"]
    (tmp_path / "blkid").write_text("#!/bin/sh\ncase $1 in *kept) exit 2 ;; esac\n")
    (tmp_path / "swapon").write_text("#!/bin/sh\n")
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    run[2] = run[2].replace("/dev/console", str(tmp_path / "console")).replace(" >/", " >>/")
    subprocess.run(run, env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, check=True)
    told = {each.disk: each.reason for each in disk_troubles((tmp_path / "console").read_bytes())}
    assert told == {
        "scratch": "it is not mounted at /scratch; /var/log/cloud-init.log says more",
        "page": "nothing is swapped on; /var/log/cloud-init.log says more",
        "reference": "it is not mounted at /data; /var/log/cloud-init.log says more",
        "own": "it is not mounted at /own; /var/log/cloud-init.log says more",
        "kept": "it has no file system; is there a mkfs.xfs? /var/log/cloud-init.log says more",
    }
    assert "runcmd" not in yaml.safe_load(seed_files(MEMBER, keys)["user-data"]), "its agent tells it"
