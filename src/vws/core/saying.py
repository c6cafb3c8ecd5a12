"""What a member may say of itself: checked before anything is kept or told to others.

What one member says ends up in files of the others' roots (/etc/hosts, authorized_keys, known_hosts), and in lines of
fields between tabs. So nothing passes that is not exactly what it should be: addresses, names, keys without options
and without comments, and short plain text.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from vws.core.context import Expected, Hook, Identity, Nic, Ran
from vws.core.errors import InvalidRequest
from vws.core.terms import check_name, check_number, check_ssh_key

NICS_MAX = 16
KEYS_MAX = 8
VALUE_BYTES_MAX = 64 * 1024
VALUES_MAX = 64
LOG_BYTES_MAX = 64 * 1024
MESSAGE_LENGTH_MAX = 200
HOST_NAME_LENGTH_MAX = 253
# Of machines that were given no name.
_NAMELESS = ("localhost", "localhost.localdomain")
_LABELS = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


def check_identity(identity: Identity, expected: Expected) -> Identity:
    """The identity as it is kept: the main network first, names in lower case, keys bare. InvalidRequest otherwise."""
    check_number(len(identity.nics), "nic", 1, NICS_MAX)
    nics = [_check_nic(nic, expected) for nic in identity.nics]
    order = {name: i for i, name in enumerate(expected.networks)}
    nics.sort(key=lambda nic: order.get(nic.network, 0))
    return Identity(
        tuple(nics),
        _check_host_name(identity.name),
        _check_keys(identity.host_keys, "host-key"),
        _check_keys(identity.user_keys, "user-key"),
    )


def _check_nic(nic: Nic, expected: Expected) -> Nic:
    check_name(nic.network, "nic")
    if expected.networks and nic.network not in expected.networks:
        raise InvalidRequest(
            f"{expected.name} is not on the network {nic.network}",
            field="nic",
            asked=nic.network,
            possible=", ".join(expected.networks),
        )
    try:
        address = str(ipaddress.ip_address(nic.address))
    except ValueError:
        raise InvalidRequest(
            f"{nic.address[:60]!r} is no address", field="nic", asked=nic.address[:60], possible="an IP address"
        ) from None
    mac = nic.mac.lower()
    if mac and not _MAC.fullmatch(mac):
        raise InvalidRequest(
            f"{mac[:40]!r} is no MAC address", field="nic", asked=mac[:40], possible="such as 02:77:0a:40:01:02"
        )
    return replace(nic, address=address, mac=mac)


def _check_host_name(name: str) -> str:
    name = name.lower().rstrip(".")
    if not name or name in _NAMELESS:
        return ""
    if len(name) > HOST_NAME_LENGTH_MAX or not _LABELS.fullmatch(name):
        raise InvalidRequest(
            f"{name[:60]!r} cannot be a host name", field="name", asked=name[:60], possible="labels by dots (RFC 1123)"
        )
    return name


def _check_keys(keys: tuple[str, ...], where: str) -> tuple[str, ...]:
    check_number(len(keys), where, 0, KEYS_MAX, "keys")
    return tuple(dict.fromkeys(" ".join(check_ssh_key(key, where).split(None, 2)[:2]) for key in keys))


def check_ran(ran: Ran, version: int) -> None:
    check_number(ran.version, "version", 0, version)
    check_number(ran.status, "status", 0, 255)
    if len(ran.message) > MESSAGE_LENGTH_MAX or (ran.message and not ran.message.isprintable()):
        raise InvalidRequest(
            "the message is not one short line", field="message", possible=f"{MESSAGE_LENGTH_MAX} printable characters"
        )


def check_hook(text: str) -> Hook:
    try:
        return Hook(text)
    except ValueError:
        raise InvalidRequest(
            f"{text[:40]!r} is no hook", field="hook", asked=text[:40], possible=", ".join(Hook)
        ) from None
