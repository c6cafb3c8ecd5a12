"""How the guest agent and what it has to know reach a guest.

One `Contact` says all that a member is told from outside. Three ways bring it in:

- `seed_files`: files for the NoCloud disk. VWS's own appliances hold the agent and read them there; any other image
  can, with one start-up line (`START_UP_LINE`), because the agent lies beside them.
- `cloud_config`: parts of cloud-init's user-data. cloud-init runs `runcmd` in an instance's first boot only, but what
  is in its per-boot folder in every boot, also what it has just written there itself: files are all that is needed.
- `start_script`: one self-contained script, for a machine that VWS did not boot. Clouds take it as user-data, people
  can run it by hand. The agent in it is compressed and without comments, as some clouds take 16 KiB and no more.

Everything is written with base64 or by JSON, so that no text, whatever is in it, ends up in a shell.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

AGENT = Path(__file__).with_name("agent").read_text()
FOLDER = "/etc/vws/context"
PROGRAM = "/usr/local/sbin/vws-context"
PER_BOOT = "/var/lib/cloud/scripts/per-boot/vws-context"
START_UP_LINE = (
    "mkdir -p /run/seed && mount -r LABEL=cidata /run/seed && "
    "sh /run/seed/vws/context/agent start /run/seed/vws/context"
)
DIRECT = "-"
_NONE = "-"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk whose serial is `vws-NAME`. filesystem "": it is left as it is; mount "": it is not mounted."""

    name: str
    filesystem: str = ""
    label: str = ""
    mount: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Contact:
    """What one member has to know to reach its broker, and of its own hardware.

    url: https://NAME:PORT, a name that the service's certificate has. secret: the one-time secret of this member.
    ca_pem: whom alone it trusts. networks: name by MAC address, or by "*" for the interface of the default route.
    connect_to: curl's --connect-to; "": the node's own door, DIRECT: the url itself can be reached.
    user_key: root's for ssh, in OpenSSH's form: (private, public). None: the machine makes one.
    """

    url: str
    secret: str = field(repr=False)
    ca_pem: str
    networks: Mapping[str, str] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    connect_to: str = ""
    user_key: tuple[str, str] | None = field(default=None, repr=False)


def seed_files(contact: Contact) -> dict[str, str]:
    """Files for the NoCloud disk by path, the agent among them."""
    files = {f"vws/context/{name}": text for name, text in told(contact).items()}
    return files | {"vws/context/agent": AGENT}


def told(contact: Contact) -> dict[str, str]:
    """What the agent reads, by name in its folder. Raises ValueError for text that would break its lines."""
    files = {"url": f"{contact.url}\n", "secret": f"{contact.secret}\n", "ca.pem": contact.ca_pem}
    if contact.networks:
        files["networks"] = "".join(_line(mac.lower(), name) for mac, name in contact.networks.items())
    if contact.disks:
        files["disks"] = disk_lines(contact.disks)
    if contact.connect_to:
        files["connect-to"] = f"{contact.connect_to}\n"
    if contact.user_key:
        private, public = contact.user_key
        files |= {"user-key": private, "user-key.pub": f"{public}\n"}
    return files


def cloud_config(contact: Contact) -> dict[str, list[dict[str, str]]]:
    """Parts of cloud-init's user-data; its lists are to be joined with those that are there already."""
    files = [_written(f"{FOLDER}/{name}", text, "0600") for name, text in told(contact).items()]
    files.append(_written(PROGRAM, AGENT, "0755"))
    files.append(_written(PER_BOOT, f"#!/bin/sh\nexec {PROGRAM} start\n", "0755"))
    return {"write_files": files}


def start_script(contact: Contact) -> str:
    """A script that installs the agent for this boot and all later ones, and starts it; a second run does no harm."""
    files = [_unpacked(f"{FOLDER}/{name}", text) for name, text in told(contact).items()]
    files.append(_unpacked(PROGRAM, bare(AGENT)))
    return _START_SCRIPT.replace("@FILES@", "".join(files)).replace("@PROGRAM@", PROGRAM)


def bare(program: str) -> str:
    """Without its lines of comment and its indentation, but for the first line. No text in quotes begins a line so."""
    first, *lines = program.splitlines()
    kept = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    return "\n".join([first, *kept, ""])


_START_SCRIPT = """\
#!/bin/sh
# Makes this machine a member of a VWS context: run it as root, or give it to a cloud as user-data.
# It holds a one-time secret: whoever reads it first can be this member.
set -e
umask 077
unpack() { mkdir -p "$VWS_ROOT${1%/*}" && base64 -d | gzip -d >"$VWS_ROOT$1"; }
@FILES@chmod 755 "$VWS_ROOT@PROGRAM@"
exec "$VWS_ROOT@PROGRAM@" install
"""


def _unpacked(path: str, text: str) -> str:
    packed = base64.encodebytes(gzip.compress(text.encode(), mtime=0)).decode()
    return f"unpack {path} <<'END'\n{packed}END\n"


def _written(path: str, text: str, permissions: str) -> dict[str, str]:
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return {"path": path, "encoding": "gz+b64", "permissions": permissions, "content": packed}


def disk_lines(disks: Iterable[Disk]) -> str:
    """What `vws-context disks` reads. Raises ValueError for text that would break its lines."""
    return "".join(map(_disk, disks))


def _disk(disk: Disk) -> str:
    shown = (disk.filesystem or _NONE, disk.label or _NONE, disk.mount or _NONE)
    return _line(disk.name, *shown, "ro" if disk.read_only else "rw")


def _line(*fields: str) -> str:
    if any(not text or "\t" in text or not text.isprintable() for text in fields):
        raise ValueError(
            f"a line for the guest agent cannot be made of {fields}: an empty field or a control character"
        )
    return "\t".join(fields) + "\n"
