"""The NoCloud disk: who a workspace is and who may enter it.

A small ISO 9660 volume named `cidata`, in the form that cloud-init reads, with
plain twins of the same facts for guests that have only a shell:

    meta-data, user-data, network-config      cloud-init's (JSON, which is YAML)
    vws/hostname  vws/authorized_keys  vws/ssh_host_ed25519_key  vws/env
    vws/command  vws/run-command              if its lease has a command
    vws/disks                                 if it has disks beside its root's, for the agent to mount or swap on
    vws/context/...                           if it is to join a context: its agent, and what that reads (delivery.py)

The command is run by `run-command` beside this module, the same for every guest. cloud-init lays it down in /run/vws
and starts it in its last stage, when the network is there and sshd answers; the demo appliance starts it from the disk.
What it says at its end on the console is what the node knows of the command (`exit_status`).

The guest's host key is made here, so that the service can tell its users whom to
expect before anybody has connected. Its private half is on this disk only. So is the
key that root of a context's member has for the others: a guest that is emulated would
be ready a quarter of a second later if it made one. Both are here in dropbear's form too.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pycdlib
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from vws.core.deployment import ContextOrder, DiskOrder, NicOrder, WorkspaceOrder
from vws.core.disks import SWAP
from vws.core.site import DOMAIN
from vws.guest import delivery
from vws.node.disks import serial

VOLUME = "cidata"
RUN_COMMAND = Path(__file__).with_name("run-command").read_text()
# In the guest, until it is switched off.
_FOLDER = "/run/vws"


# What cloud-init made of the disks, in the words of VWS's own agent. Arguments: NAME DEVICE FILESYSTEM MOUNT of each,
# "-" for none.
_LOOK_AT_DISKS = """\
say() { echo "vws-context: $*" >/dev/console; }
say "preparing disks"
while [ $# -gt 3 ]; do
    why=
    case $3 in
    -) ;;
    swap) swapon --noheadings --show=NAME | grep -q . || why="nothing is swapped on;" ;;
    *) blkid "$2" >/dev/null || why="it has no file system; is there a mkfs.$3?" ;;
    esac
    [ "$4" = - ] || grep -q "^[^ ]* $4 " /proc/mounts || why=${why:-"it is not mounted at $4;"}
    [ -z "$why" ] || say "the disk $1 could not be prepared: $why /var/log/cloud-init.log says more"
    shift 4
done
"""

# (private, public) in OpenSSH's forms; the public one without a comment.
Keys = tuple[str, str]


def new_keys() -> Keys:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def dropbear_form(private_key: str) -> bytes:
    """An Ed25519 key as dropbear keeps it: its kind, then both halves, each part with its length before it."""
    key = load_ssh_private_key(private_key.encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
    halves = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return b"".join(struct.pack("!I", len(part)) + part for part in (b"ssh-ed25519", halves))


def seed_iso(order: WorkspaceOrder, host: Keys, user: Keys | None = None) -> bytes:
    """The whole volume. user: root's keys, for a member of a context."""
    return _iso(seed_files(order, host, user))


def seed_files(order: WorkspaceOrder, host: Keys, user: Keys | None = None) -> dict[str, str | bytes]:
    """What is on it, by path."""
    meta = {"instance-id": order.id, "local-hostname": order.hostname}
    return {
        "meta-data": _json(meta),
        "user-data": "#cloud-config\n" + _json(_user_data(order, host, user)),
        "network-config": _json(_network(order.interfaces)),
        "vws/hostname": order.hostname + "\n",
        "vws/authorized_keys": "".join(f"{key}\n" for key in order.ssh_keys),
        "vws/ssh_host_ed25519_key": host[0],
        "vws/ssh_host_ed25519_key.pub": f"{host[1]}\n",
        "vws/dropbear_host_key": dropbear_form(host[0]),
        **{f"vws/{name}": text for name, text in _to_run(order).items()},
        **(delivery.seed_files(_contact(order, order.context, user)) if order.context else _alone(order)),
        **({"vws/context/user-key.dropbear": dropbear_form(user[0])} if order.context and user else {}),
    }


def _alone(order: WorkspaceOrder) -> dict[str, str]:
    """What the agent of contexts would be told, of one that is in none."""
    return {"vws/disks": delivery.disk_lines(_told(order.disks))} if order.disks else {}


def _contact(order: WorkspaceOrder, context: ContextOrder, user: Keys | None) -> delivery.Contact:
    networks = {nic.mac: nic.name for nic in order.interfaces if nic.name}
    disks = _told(order.disks)
    return delivery.Contact(context.url, context.secret, context.ca_pem, networks, disks, user_key=user)


def _told(disks: tuple[DiskOrder, ...]) -> tuple[delivery.Disk, ...]:
    return tuple(delivery.Disk(disk.name, disk.filesystem, disk.label, disk.mount, disk.shared) for disk in disks)


def _to_run(order: WorkspaceOrder) -> dict[str, str]:
    """What `run-command` reads beside itself, and itself if there is a command."""
    facts = {"env": _environment(order)}
    return facts | {"command": order.command, "run-command": RUN_COMMAND} if order.command else facts


def exit_status(console: bytes, id: str) -> int | None:
    """That of the workspace's command, by the last word of it in the end of a console's log; None: it has not ended."""
    said = re.findall(rb"VWS: the command of %s ended with status (\d{1,3})\b" % re.escape(id.encode()), console)
    return int(said[-1]) if said else None


def _user_data(order: WorkspaceOrder, host: Keys, user: Keys | None) -> dict[str, object]:
    data: dict[str, object] = {
        "hostname": order.hostname,
        "fqdn": f"{order.hostname}.{(order.context and order.context.domain) or DOMAIN}",
        "ssh_authorized_keys": list(order.ssh_keys),
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host[0], "ed25519_public": host[1]},
        "ssh_pwauth": False,
        "disable_root": False,
    }
    if order.user == "root":
        data["users"] = [{"name": "root", "ssh_authorized_keys": list(order.ssh_keys)}]
    else:
        data["user"] = {"name": order.user}
    files = delivery.cloud_config(_contact(order, order.context, user))["write_files"] if order.context else []
    to_run: list[object] = []
    if order.disks and not order.context:  # its agent would look at them
        to_run.append(["sh", "-c", _LOOK_AT_DISKS, "sh", *(word for disk in order.disks for word in _seen(disk))])
    if order.command:
        files += [_written(name, text) for name, text in _to_run(order).items()]
        # In the background: who waits for cloud-init does not wait for this.
        to_run.append(f"sh {_FOLDER}/run-command </dev/null >/dev/null 2>&1 &")
    if to_run:
        data["runcmd"] = to_run
    if files:
        data["write_files"] = files
    return data | _disks(order.disks)


def _disks(disks: tuple[DiskOrder, ...]) -> dict[str, object]:
    """`auto`: what is on a disk already is left alone. The disk is not partitioned, so there is no disk_setup. One to
    swap on was made by the node."""
    made = [
        {"device": _device(disk), "partition": "auto", "filesystem": disk.filesystem}
        | ({"label": disk.label} if disk.label else {})
        for disk in disks
        if disk.filesystem not in ("", SWAP) and not disk.image
    ]
    mounts = [_mount(disk) for disk in disks if disk.mount or disk.filesystem == SWAP]
    return ({"fs_setup": made} if made else {}) | ({"mounts": mounts} if mounts else {})


def _seen(disk: DiskOrder) -> tuple[str, str, str, str]:
    filesystem = "" if disk.shared else disk.filesystem
    return disk.name, _device(disk), filesystem or "-", disk.mount or "-"


def _device(disk: DiskOrder) -> str:
    return f"/dev/disk/by-id/virtio-{serial(disk)}"


def _mount(disk: DiskOrder) -> list[str]:
    """Its line of fstab."""
    if disk.filesystem == SWAP:
        return [_device(disk), "none", "swap", "sw,nofail", "0", "0"]
    options = ("ro,nofail", "0", "0") if disk.shared else ("defaults,nofail", "0", "2")
    return [_device(disk), disk.mount, disk.filesystem or "auto", *options]


def _written(name: str, text: str) -> dict[str, str]:
    encoded = base64.b64encode(text.encode()).decode()
    return {"path": f"{_FOLDER}/{name}", "encoding": "b64", "permissions": "0600", "content": encoded}


def _network(nics: tuple[NicOrder, ...]) -> dict[str, object]:
    """Named too: not everything that reads this finds the interface by its MAC address alone. Of several ways out, that
    of the first interface is taken."""
    interfaces: dict[str, dict[str, object]] = {}
    for number, nic in enumerate(nics):
        name = f"eth{number}"
        interfaces[name] = {"match": {"macaddress": nic.mac}, "set-name": name, "dhcp4": True}
        if len(nics) > 1:
            interfaces[name]["dhcp4-overrides"] = {"route-metric": 100 * (1 + number)}
    return {"version": 2, "ethernets": interfaces}


def _environment(order: WorkspaceOrder) -> str:
    facts = {
        "VWS_WORKSPACE": order.id,
        "VWS_NAME": order.name,
        "VWS_LEASE": order.lease,
        "VWS_IMAGE": order.image,
        "VWS_ADDRESS": order.interfaces[0].address,
        "VWS_USER": order.user,
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in facts.items())


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"


def _iso(files: Mapping[str, str | bytes]) -> bytes:
    """With Rock Ridge and Joliet names: ISO 9660's own are numbers."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident=VOLUME, joliet=3, rock_ridge="1.09")
    for folder in sorted({str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}):
        iso.add_directory(f"/{folder.upper()}", rr_name=folder.rpartition("/")[2], joliet_path=f"/{folder}")
    for number, (path, content) in enumerate(files.items()):
        folder, _, name = path.rpartition("/")
        data = content.encode() if isinstance(content, str) else content
        plain = f"{f'/{folder}'.upper().rstrip('/')}/F{number}.;1"
        iso.add_fp(io.BytesIO(data), len(data), plain, rr_name=name, joliet_path=f"/{path}")
    written = io.BytesIO()
    iso.write_fp(written)
    iso.close()
    return written.getvalue()
