"""What a site knows and its guests may require: name and time servers, whom a VO consists of, a user's keys.

Each is one file of lines in the form that its readers know: addresses for a resolver, `authorized_keys` lines, a grid
mapfile. What nobody configured is not there, and requiring it is refused at launch rather than found empty in a guest.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vws.core.context import DataSpec
from vws.core.membership import VO, User


@dataclass(frozen=True, slots=True)
class SiteInformation:
    """[site] in site.toml. dns, time: addresses or names of servers that guests can reach. domain: members of a context
    are called MEMBER.CONTEXT.DOMAIN, in which the site's authority signs their host certificates."""

    dns: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    domain: str = "vws.internal"


@dataclass(frozen=True, slots=True)
class Informed:
    """All that may be told of. ca_pem: the site's authority."""

    site: SiteInformation = SiteInformation()
    vos: Mapping[str, VO] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)

    def known(self, owner: str, keys: Sequence[str], ca_pem: bytes) -> dict[str, str]:
        """What there is for a user: text by name. keys: his own beside those in site.toml."""
        found = {
            "site:dns": "".join(f"{server}\n" for server in self.site.dns),
            "site:time": "".join(f"{server}\n" for server in self.site.time),
            "site:certificate": ca_pem.decode(),
            "vo:keys": "".join(f"{key} {user}\n" for user in self._vo_of(owner) for key in self._keys_of(user)),
            "vo:gridmap": "".join(
                f'"{self._subject_of(user)}" {user}\n' for user in self._vo_of(owner) if self._subject_of(user)
            ),
            "user:keys": "".join(
                f"{key} {owner}\n" for key in dict.fromkeys((*map(bare_key, keys), *self._keys_of(owner)))
            ),
        }
        return {name: text for name, text in found.items() if text}

    def _vo_of(self, owner: str) -> tuple[str, ...]:
        return next((vo.users for vo in self.vos.values() if owner in vo.users), ())

    def _keys_of(self, user: str) -> tuple[str, ...]:
        known = self.users.get(user)
        return tuple(map(bare_key, known.keys)) if known else ()

    def _subject_of(self, user: str) -> str:
        known = self.users.get(user)
        return known.subject if known else ""


def bare_key(key: str) -> str:
    """Without its comment, which may be anything."""
    return " ".join(key.split(None, 2)[:2])


def as_data(known: Mapping[str, str]) -> tuple[DataSpec, ...]:
    """As members get it: `site:dns` as data of the name `site-dns`."""
    return tuple(
        DataSpec(name.replace(":", "-"), base64.b64encode(text.encode()).decode()) for name, text in known.items()
    )
