"""Whether a context can ever be ready: its names, its sizes, and what waits for what.

All of it is known from the specification and the members' roles, so what could only hang is refused before anything is
booted. What waits is a provider's side of a role (a client's side keeps nobody waiting): for the barriers of the roles
in `after`, and for the providers of the values in `uses`. A cycle among these has no first step.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

from vws.core.context import INFORMATION, MEMBER, ContextSpec, Expected, FileSpec, Introduce, RoleSpec, Side, SideSpec
from vws.core.errors import InvalidRequest
from vws.core.terms import check_name, check_number

MEMBERS_MAX = 10_000
ROLES_MAX = 100
# Every member fetches all of it; what is larger belongs into an image or on a shared disk.
CONTENT_BYTES_MAX = 1 << 20
CONTENTS_BYTES_MAX = 4 << 20
PATH_LENGTH_MAX = 255
WITHIN_S_MAX = 24 * 3600
# Under these names members find what the site provides (`site:dns` becomes data/site-dns).
_RESERVED = tuple(f"{kind}-" for kind in dict.fromkeys(name.partition(":")[0] for name in INFORMATION))
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")


def check_context(spec: ContextSpec, members: Sequence[Expected], known: Collection[str] = INFORMATION) -> None:
    """Raise InvalidRequest, naming the field, for a specification whose members could never all be ready.

    known: of INFORMATION what there is at this site for this user.
    """
    check_spec(spec)
    if not 1 <= len(members) <= MEMBERS_MAX:
        raise InvalidRequest(
            f"the context has {len(members)} members",
            field="members",
            asked=len(members),
            possible=f"1 to {MEMBERS_MAX} members",
        )
    names = [member.name for member in members]
    _check_once(names, "members", "member")
    for member in members:
        check_member(spec, member, known)
    check_waits(spec, members)


def check_member(spec: ContextSpec, member: Expected, known: Collection[str] = INFORMATION) -> None:
    where = f"members.{check_name(member.name, 'members.name')}"
    for role in member.provides:
        check_name(role, f"{where}.provides")
    for role in member.requires:
        if ":" not in role:
            check_name(role, f"{where}.requires")
        elif role not in known:
            raise InvalidRequest(
                f"{member.name} requires {role}, which this site does not know",
                field=f"{where}.requires",
                asked=role,
                possible=f"one of {', '.join(known)}, or the administrator's word on it in site.toml",
            )
    for network in member.networks:
        check_name(network, f"{where}.networks")


# ---------------------------------------------------------------- names and sizes


def check_spec(spec: ContextSpec) -> None:
    check_name(spec.name)
    check_number(spec.within_s, "context.within", 1, WITHIN_S_MAX, "s")
    if spec.domain and (len(spec.domain) > 150 or not _DOMAIN.fullmatch(spec.domain)):
        raise InvalidRequest(
            f"{spec.domain[:60]!r} cannot be a domain", field="domain", possible="labels of a host name, by dots"
        )
    check_number(len(spec.roles), "roles", 0, ROLES_MAX)
    _check_once([role.name for role in spec.roles], "roles", "role")
    for role in spec.roles:
        _check_role(role)
    _check_data(spec)
    check_number(_content_bytes(spec), "context", 0, CONTENTS_BYTES_MAX, "bytes of files, scripts and data in all")


def _check_role(role: RoleSpec) -> None:
    where = f"roles.{check_name(role.name, 'roles')}"
    for side in Side:
        _check_side(role.side(side), f"{where}.{side}")
    for value in role.publishes:
        check_name(value.name, f"{where}.provider.publishes")
    _check_once([value.name for value in role.publishes], f"{where}.provider.publishes", "value")


def _check_side(side: SideSpec, where: str) -> None:
    for i, file in enumerate(side.files):
        _check_file(file, f"{where}.files[{i}]")
    for hook in side.hooks:
        check_content(hook.content_base64, f"{where}.hooks.{hook.hook}")
    _check_once([str(hook.hook) for hook in side.hooks], f"{where}.hooks", "hook")
    for name in (*side.after, *side.uses):
        check_name(name, f"{where}.{'after' if name in side.after else 'uses'}")


def _check_file(file: FileSpec, where: str) -> None:
    path = file.path
    # A document is lines of fields between tabs, and an agent writes where it is told.
    steps = path.split("/")[1:]
    clean = path.isprintable() and path.startswith("/") and not {"", ".", ".."} & set(steps)
    if not clean or len(path) > PATH_LENGTH_MAX:
        raise InvalidRequest(
            f"{path[:60]!r} cannot be a file's path",
            field=f"{where}.path",
            asked=path[:60],
            possible="an absolute path without `..`, such as /etc/slurm/slurm.conf",
        )
    if not re.fullmatch(r"[0-7]{3,4}", file.mode):
        raise InvalidRequest(
            f"{file.mode[:20]!r} is no mode", field=f"{where}.mode", asked=file.mode[:20], possible='such as "0644"'
        )
    check_content(file.content_base64, where)


def _check_data(spec: ContextSpec) -> None:
    _check_once([item.name for item in spec.data], "data", "item")
    for item in spec.data:
        check_name(item.name, f"data.{item.name[:40]}")
        if item.name.startswith(_RESERVED):
            raise InvalidRequest(
                f"{item.name} is a name of what the site provides",
                field=f"data.{item.name}",
                asked=item.name,
                possible=f"a name that does not begin with {' or '.join(_RESERVED)}",
            )
        check_content(item.content_base64, f"data.{item.name}")


def check_content(content_base64: str, where: str, bytes_max: int = CONTENT_BYTES_MAX) -> str:
    """Return it if it is base64 of at most `bytes_max` bytes; raise InvalidRequest otherwise."""
    size_bytes = _size_bytes(content_base64)
    if size_bytes > bytes_max:
        raise InvalidRequest(
            f"{where} has {size_bytes} bytes",
            field=where,
            asked=size_bytes,
            possible=f"at most {bytes_max} bytes; what is larger belongs into an image or on a shared disk",
        )
    try:
        base64.b64decode(content_base64, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where} is not base64", field=where, possible="base64 (RFC 4648) in one line") from None
    return content_base64


def _content_bytes(spec: ContextSpec) -> int:
    sides = [role.side(side) for role in spec.roles for side in Side]
    contents = [file.content_base64 for side in sides for file in side.files]
    contents += [hook.content_base64 for side in sides for hook in side.hooks]
    return sum(map(_size_bytes, (*contents, *(item.content_base64 for item in spec.data))))


def _size_bytes(content_base64: str) -> int:
    return len(content_base64) // 4 * 3 - content_base64[-2:].count("=")


def _check_once(names: Sequence[str], where: str, what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InvalidRequest(
            f"there are two {what}s called {twice[0][:60]}", field=where, asked=twice[0][:60], possible="each once"
        )


# ---------------------------------------------------------------- the graph


def check_waits(spec: ContextSpec, members: Iterable[Expected]) -> None:
    """Raise InvalidRequest for roles that nobody provides, values that nobody publishes, and cycles."""
    members = list(members)
    provided = {MEMBER, *(role for member in members for role in member.provides)}
    asked = {role: member.name for member in reversed(members) for role in member.requires if ":" not in role}
    for name, who in asked.items():
        if name not in provided:
            raise _nobody(f"{who} requires {name}, which no member provides", name, provided)
    publishers = _publishers(spec, provided)
    required = {*asked, *([MEMBER] if spec.introduce is Introduce.ALL else [])}
    for role in spec.roles:
        for side, taken in ((Side.PROVIDER, provided), (Side.CLIENT, required)):
            if role.name in taken:
                _check_met(role, side, provided, publishers)
    _check_cycles({role.name: _awaits(role, publishers) for role in spec.roles if role.name in provided})


def _publishers(spec: ContextSpec, provided: Collection[str]) -> dict[str, str]:
    """The role that publishes each value."""
    found: dict[str, str] = {}
    for role in spec.roles:
        for value in role.publishes:
            if value.name in found:
                raise InvalidRequest(
                    f"the roles {found[value.name]} and {role.name} both publish {value.name}",
                    field=f"roles.{role.name}.provider.publishes",
                    asked=value.name,
                    possible="a name of its own for each value",
                )
            if role.name in provided:
                found[value.name] = role.name
    return found


def _check_met(role: RoleSpec, side: Side, provided: Collection[str], publishers: Mapping[str, str]) -> None:
    spec = role.side(side)
    for name in spec.after:
        if name not in provided:
            text = f"the {side} side of {role.name} waits for {name}, which no member provides"
            raise _nobody(text, name, provided, f"roles.{role.name}.{side}.after")
    for name in spec.uses:
        if name not in publishers:
            text = f"the {side} side of {role.name} uses {name}, which nobody publishes"
            raise _nobody(text, name, publishers, f"roles.{role.name}.{side}.uses")


def _nobody(problem: str, name: str, known: Collection[str], field: str = "requires") -> InvalidRequest:
    near = difflib.get_close_matches(name, known, 1)
    possible = f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(known)[:20])}" if known else "none"
    return InvalidRequest(problem, field=field, asked=name, possible=possible)


def _awaits(role: RoleSpec, publishers: Mapping[str, str]) -> dict[str, str]:
    """The roles that a role's providers wait for, each with the word by which they do."""
    values = {publishers[name]: f"uses {name} of" for name in role.provider.uses if name in publishers}
    return values | dict.fromkeys(role.provider.after, "is after")


def _check_cycles(awaits: Mapping[str, Mapping[str, str]]) -> None:
    done: set[str] = set()
    for start in awaits:
        cycle = _cycle_from(start, awaits, done)
        if cycle:
            steps = [f"{role} {awaits[role][after]} {after}" for role, after in pairwise(cycle)]
            raise InvalidRequest(
                f"roles wait for each other: {', '.join(steps)}",
                field=f"roles.{cycle[0]}",
                asked=" -> ".join(cycle),
                possible="a role that can begin; identities are exchanged before any hook runs and need no waiting",
            )


def _cycle_from(start: str, awaits: Mapping[str, Mapping[str, str]], done: set[str]) -> list[str]:
    """A cycle met on the way from `start`, its first role again at its end; [] if there is none."""
    path, ahead = [start], [iter(awaits[start])]
    while path:
        following = next(ahead[-1], None)
        if following is None:
            done.add(path.pop())
            ahead.pop()
        elif following in path:
            return [*path[path.index(following) :], following]
        elif following in awaits and following not in done:
            path.append(following)
            ahead.append(iter(awaits[following]))
    return []
