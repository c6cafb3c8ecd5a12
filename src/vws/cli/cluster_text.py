"""What `vws cluster launch --dry-run` shows: who there would be, on which networks, who waits for whom, and the terms.

The order of roles is that of their barriers: what waits for nothing is in the first step, a role is one step after the
last one that it waits for. So who reads it sees how long the longest chain is, and what runs beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from vws.cli import output
from vws.cli.disks import disk_text
from vws.cli.failures import by_reason, one_line
from vws.cli.offers import Options, offer_facts
from vws.cli.sizes import show_duration
from vws.cli.times import show_time
from vws.core.cluster import NetworkRequest
from vws.core.cluster_spec import ClusterFile, ClusterGroup
from vws.core.context import MEMBER, Introduce, RoleSpec, SideSpec, Ssh
from vws.core.site import OnFailure

Json = Mapping[str, Any]

NAMES_MAX = 4
ON_FAILURE = {
    OnFailure.REPLACE: "another is made in its place",
    OnFailure.FAIL: "the cluster has failed",
    OnFailure.CONTINUE: "the others go on without it",
}


def dry_run_text(
    file: ClusterFile, answer: Json, *, duration_s: int | None = None, options: Options | None = None
) -> str:
    """answer: of the dry run (core/dry_run.py), with `price` (amount, unit) if the site tells it.

    duration_s: for how long, if the launch says otherwise than the file. options: what takes an offer.
    """
    parts = [
        "\n".join(_head(file, duration_s)),
        _groups(file),
        "\n".join(_networks(file)),
        "\n".join(_order(file)),
        "\n".join(_terms(answer, options)),
        "\n".join(f"Note: {one_line(note)}." for note in file.notes),
    ]
    return "\n\n".join(part for part in parts if part)


# ---------------------------------------------------------------- members


def _head(file: ClusterFile, duration_s: int | None) -> Iterator[str]:
    lasts_s = duration_s if duration_s is not None else file.lease.duration_s
    lasts = f" for {show_duration(lasts_s)}" if lasts_s is not None else ""
    manner = [
        *(["when it fits"] if file.lease.best_effort else []),
        *(["may be suspended for others"] if file.lease.preemptible else []),
        *(["urgent"] if file.lease.urgent else []),
    ]
    count = sum(group.request.count for group in file.groups)
    yield ", ".join([f"cluster {file.name}: {output.plural(count, 'member')}{lasts}", *manner])
    for each in file.parameters:
        said = "" if each.given else " (default)"
        told = f"  # {one_line(each.help)}" if each.help else ""
        yield f"  {each.name} = {one_line(each.value)}{said}{told}"


def _groups(file: ClusterFile) -> str:
    headers = ["MEMBERS", "IMAGE", "EACH", "NETWORKS", "PROVIDES", "REQUIRES", "IF ONE FAILS"]
    rows = [
        [
            members_of(group),
            group.request.image,
            _each(group),
            _networks_of(group),
            ", ".join(group.roles.provides),
            ", ".join(group.roles.requires),
            ON_FAILURE[group.roles.on_failure],
        ]
        for group in file.groups
    ]
    return output.table(headers, rows)


def _networks_of(group: ClusterGroup) -> str:
    named = f" with the address {group.request.address}" if group.request.address else ""
    return (", ".join(group.request.networks) or "the node's") + named


def members_of(group: ClusterGroup) -> str:
    names = [member.name for member in group.expected(group.request.first)]
    return ", ".join(names) if len(names) <= NAMES_MAX else f"{names[0]} to {names[-1]}"


def _each(group: ClusterGroup) -> str:
    request = group.request
    disks = [disk_text(asdict(disk)) for disk in request.disks]
    return ", ".join([output.size(request.cpus, request.memory_mib, request.root_mib), *disks])


def _networks(file: ClusterFile) -> Iterator[str]:
    if file.networks:
        yield "Networks:"
    for network in file.networks:
        groups = [group for group in file.groups if network.name in group.request.networks]
        count = sum(group.request.count for group in groups)
        yield f"  {network.name}: {_kind_of(network)}, {output.plural(count, 'member')}"


def _kind_of(network: NetworkRequest) -> str:
    if network.pool:
        return f"public addresses of the site's pool {network.pool}"
    if network.public:
        return "public addresses of the site"
    return f"{network.cidr}, {'with a way out' if network.outgoing else 'no way out'}"


# ---------------------------------------------------------------- roles


def _order(file: ClusterFile) -> Iterator[str]:
    spec = file.context
    all_of_them = spec.introduce is Introduce.ALL
    known = "everybody" if all_of_them else "those whose roles they require"
    keys = ", and may log in to them" if spec.ssh is Ssh.MUTUAL else ""
    yield f"All members report within {show_duration(spec.within_s)}, then hear of {known}{keys}."
    for step, roles in enumerate(steps_of(file), start=1):
        for role in roles:
            yield f"  {step}. {role.name}: {_side(file, role, role.provider, by=_providers(file, role.name))}"
            clients = _clients(file, role.name)
            if clients and role.client != SideSpec():
                yield f"     then as its clients: {_side(file, role, role.client, by=clients)}"
    if file.context.roles:
        yield "The cluster is ready when every hook of every member has ended well."


def steps_of(file: ClusterFile) -> list[list[RoleSpec]]:
    """The roles with anything to do, those that may run together in one step."""
    publishers = _publishers(file)
    roles = {role.name: role for role in file.context.roles if _providers(file, role.name)}
    step: dict[str, int] = {}

    def found(name: str) -> int:
        # There is no cycle in what has been read (core/waits.py).
        if name not in step:
            awaited = [*roles[name].provider.after, *(publishers[value] for value in roles[name].provider.uses)]
            step[name] = 1 + max((found(each) for each in awaited if each in roles and each != name), default=0)
        return step[name]

    for name in roles:
        found(name)
    return [[roles[n] for n in roles if step[n] == number] for number in range(1, max(step.values(), default=0) + 1)]


def _publishers(file: ClusterFile) -> dict[str, str]:
    return {value.name: role.name for role in file.context.roles for value in role.publishes}


def _providers(file: ClusterFile, role: str) -> list[ClusterGroup]:
    return [group for group in file.groups if role in group.roles.provides or role == MEMBER]


def _clients(file: ClusterFile, role: str) -> list[ClusterGroup]:
    everybody = role == MEMBER and file.context.introduce is Introduce.ALL
    return [group for group in file.groups if everybody or role in group.roles.requires]


def _side(file: ClusterFile, role: RoleSpec, side: SideSpec, *, by: list[ClusterGroup]) -> str:
    publishers = _publishers(file)
    provider = side is role.provider
    waits = [f"after {name}" for name in side.after]
    waits += [f"with {name} of {publishers[name]}" for name in side.uses]
    does = [str(hook.hook) for hook in side.hooks]
    if side.files:
        does.insert(0, output.plural(len(side.files), "file"))
    if provider and role.publishes:
        names = [f"{value.name} (secret)" if value.secret else value.name for value in role.publishes]
        does.append(f"publishes {', '.join(names)}")
    who = ", ".join(map(members_of, by))
    return "; ".join([who, *([", ".join(waits)] if waits else []), ", ".join(does) or "nothing to do"])


# ---------------------------------------------------------------- terms


def _terms(answer: Json, options: Options | None) -> Iterator[str]:
    reason = one_line(answer["reason"])
    yield f"It fits: {reason}." if answer["fits"] else f"It does not fit: {reason}."
    if answer.get("start") is not None:
        yield f"  start: {show_time(answer['start'])}"
    for names, why in by_reason("node", answer.get("nodes") or ()):
        yield f"  {one_line(names)}: {one_line(why)}"
    for what, offer in offer_facts(answer.get("offers") or (), options):
        yield f"  {what}: {one_line(offer)}"
    price = answer.get("price")
    if price:
        yield f"Price: {price['amount']:.2f} {one_line(price['unit'])}{'' if price['amount'] == 1 else 's'}"
