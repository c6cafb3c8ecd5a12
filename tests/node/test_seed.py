"""The NoCloud disk, read back as a guest reads it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pycdlib
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from tests.node.builders import order
from vws.node.seed import new_host_key, seed_files, seed_iso

WORKSPACE = order(name="alpha-1", ssh_keys=("ssh-ed25519 AAAA first", 'ssh-rsa BBBB "second": {x}'))


@pytest.fixture(scope="module")
def keys() -> tuple[str, str]:
    return new_host_key()


def read(iso_bytes: bytes, path: str, **how: str) -> str:
    iso, data = pycdlib.PyCdlib(), io.BytesIO()
    iso.open_fp(io.BytesIO(iso_bytes))
    iso.get_file_from_iso_fp(data, **(how or {"rr_path": path}))
    iso.close()
    return data.getvalue().decode()


def test_volume_is_found_by_its_name_and_holds_every_file(keys) -> None:
    data = seed_iso(WORKSPACE, *keys)
    assert data[16 * 2048 + 40 :][:6] == b"cidata"
    for path, text in seed_files(WORKSPACE, *keys).items():
        assert read(data, f"/{path}") == text
        assert read(data, "", joliet_path=f"/{path}") == text


def test_cloud_init_reads_names_keys_and_network(keys) -> None:
    files = seed_files(WORKSPACE, *keys)
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


def test_login_user_is_the_images() -> None:
    root = seed_files(WORKSPACE, "", "")["user-data"].partition("\n")[2]
    assert json.loads(root)["users"] == [{"name": "root", "ssh_authorized_keys": list(WORKSPACE.ssh_keys)}]
    other = seed_files(replace(WORKSPACE, user="debian"), "", "")["user-data"].partition("\n")[2]
    assert json.loads(other)["user"] == {"name": "debian"}


def test_a_shell_reads_the_plain_twins(keys) -> None:
    files = seed_files(replace(WORKSPACE, lease="it's $(reboot)"), *keys)
    assert files["vws/hostname"] == "alpha-1\n"
    assert files["vws/authorized_keys"].splitlines() == list(WORKSPACE.ssh_keys)
    assert "VWS_LEASE='it'\"'\"'s $(reboot)'\n" in files["vws/env"]
    assert "VWS_WORKSPACE=wsp-1\n" in files["vws/env"]


def test_the_public_key_is_that_of_the_private_one(keys) -> None:
    private, public = keys
    loaded = load_ssh_private_key(private.encode(), None)
    assert loaded.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() == public
    assert new_host_key()[1] != public
