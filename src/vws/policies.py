"""A site's policy from its configuration: names become functions, tables become members and limits.

A choice is named, or is a function of the site's own, written `module:function`. Its module is imported when the
service starts, from the site's `policy` folder or from wherever Python finds modules; by the service, as the user it
runs as, and by no other process. What is wrong with it (no such module, no such function, another number of
arguments) keeps the service from starting and says which setting it is.

What goes wrong in it later must not stop a site. Each function of the site's own is called under a guard that writes to
the log what it raised, and answers instead: for admission what the limits say, for order "last", for preemption "no",
for hosts "all alike", for a price that of a node-hour. The guard of a refusal is none: admission refuses by raising a
VwsError, and that is let through.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vws.core.admission import Holdings, within_limits
from vws.core.chosen import ARGUMENTS, REGISTRY, Chosen, named
from vws.core.errors import InvalidRequest, VwsError
from vws.core.membership import VO, Limits, Membership, User, UserGroup
from vws.core.policy import HostView, Standing
from vws.core.shares import Shares
from vws.core.site import LeaseKind
from vws.core.tariff import PRICES, Metered, Price, Tariff, check_tariff, per_node_hour

log = logging.getLogger("vws.policy")

DAY_S = 86400.0


@dataclass(frozen=True)
class PolicyConfig:
    """[policy] in site.toml: a function for each choice, by name or as module:function.

    half_life_days: after which what was used counts half for fair share (0: it always counts whole).
    each_user, each_group, each_vo: limits of those who have none of their own.
    """

    admission: str = "limits"
    order: str = "first-come"
    preemption: str = "hard-suspends-soft"
    hosts: str = "spread"
    half_life_days: float = 7.0
    each_user: Limits = field(default_factory=Limits)
    each_group: Limits = field(default_factory=Limits)
    each_vo: Limits = field(default_factory=Limits)

    @property
    def choices(self) -> dict[str, str]:
        return {choice: getattr(self, choice) for choice in REGISTRY}


@dataclass(frozen=True)
class Members:
    """[vos.NAME], [groups.NAME] and [users.NAME] in site.toml."""

    vos: Mapping[str, VO]
    groups: Mapping[str, UserGroup]
    users: Mapping[str, User]


def check_policy(policy: PolicyConfig, members: Members, tariff: Tariff) -> None:
    """Raise InvalidRequest, naming the setting, for what can be known to be wrong without the site's own modules."""
    if policy.half_life_days < 0:
        asked = policy.half_life_days
        raise InvalidRequest(
            "a half-life is negative", field="policy.half_life_days", asked=asked, possible="0 or more"
        )
    _membership(policy, members)
    for choice, name in policy.choices.items():
        if not _is_own(name):
            named(choice, name, f"policy.{choice}")
    if not _is_own(tariff.price):
        _named_price(tariff.price)
    check_tariff(tariff, tuple(LeaseKind))
    zone_of(tariff)


def choose(policy: PolicyConfig, members: Members) -> Chosen:
    """The site's choices, its own functions imported."""
    functions = {choice: _function(choice, name) for choice, name in policy.choices.items()}
    return Chosen(
        admit=functions["admission"],
        order=functions["order"],
        preempt=functions["preemption"],
        host_rank=functions["hosts"],
        membership=_membership(policy, members),
        half_life_s=policy.half_life_days * DAY_S,
    )


def price_of(tariff: Tariff) -> Price:
    """The function that prices what is metered."""
    if not _is_own(tariff.price):
        return _named_price(tariff.price)
    return _guarded_price(_imported(tariff.price, "tariff.price", 2), tariff.price)


def zone_of(tariff: Tariff) -> ZoneInfo:
    try:
        return ZoneInfo(tariff.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            f"there is no time zone {tariff.time_zone!r}",
            field="tariff.time_zone",
            asked=tariff.time_zone,
            possible="an IANA name such as Europe/Zurich, or UTC",
        ) from None


def needs_modules(policy: PolicyConfig, tariff: Tariff) -> bool:
    """Whether the site has functions of its own."""
    return any(map(_is_own, (*policy.choices.values(), tariff.price)))


def _membership(policy: PolicyConfig, members: Members) -> Membership:
    return Membership(
        members.vos,
        members.groups,
        members.users,
        each_user=policy.each_user,
        each_group=policy.each_group,
        each_vo=policy.each_vo,
    )


def _named_price(name: str) -> Price:
    if name not in PRICES:
        raise InvalidRequest(
            f"tariff.price is {name!r}, which is no price function",
            field="tariff.price",
            asked=name,
            possible=f"one of {', '.join(PRICES)}; or a function of your own, as module:function",
        )
    return PRICES[name]


# ---------------------------------------------------------------- functions of the site's own


def _is_own(name: str) -> bool:
    return ":" in name


def _function(choice: str, name: str) -> Callable[..., Any]:
    where = f"policy.{choice}"
    if not _is_own(name):
        return named(choice, name, where)
    return _GUARDS[choice](_imported(name, where, ARGUMENTS[choice]), name)


def _imported(name: str, where: str, arguments: int) -> Callable[..., Any]:
    """The function that `module:function` names, taking so many arguments."""
    module_name, _, function_name = name.partition(":")
    possible = "a module in the policy folder of the site that its user may read, or one installed for its Python"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a site's own module does while it is imported
        raise InvalidRequest(
            f"{where} is {name!r}, and the module {module_name} cannot be imported: {type(error).__name__}: {error}",
            field=where,
            asked=name,
            possible=possible,
        ) from error
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        found = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise InvalidRequest(
            f"{where} is {name!r}, and the module {module_name} has no function {function_name!r}",
            field=where,
            asked=name,
            possible=f"one of {', '.join(found)}" if found else f"a function in {module.__file__}",
        )
    _check_arguments(function, name, where, arguments)
    own: Callable[..., Any] = function
    return own


def _check_arguments(function: Callable[..., Any], name: str, where: str, arguments: int) -> None:
    try:
        signature = inspect.signature(function)
        signature.bind(*range(arguments))
    except TypeError:
        raise InvalidRequest(
            f"{where} is {name!r}, which takes {signature}; it is called with {arguments}",
            field=where,
            asked=name,
            possible=f"a function of {arguments} arguments (docs/policy.md says which)",
        ) from None
    except ValueError:
        return  # a builtin, which does not say what it takes


class _Complaint:
    """What a site's own function did wrong, to the log: the 1st time, the 2nd, the 4th, the 8th, ..."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def __call__(self, error: Exception, instead: str) -> None:
        self._count += 1
        if self._count & (self._count - 1) == 0:
            log.error(
                "%s failed, for the %d. time; %s instead: %s: %s",
                self._name, self._count, instead, type(error).__name__, error, exc_info=error,
            )  # fmt: skip


def _guarded_admission(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    complain = _Complaint(name)

    def admit(asked: Standing, holdings: Holdings, limits: Limits, now: float) -> None:
        try:
            function(asked, holdings, limits, now)
        except VwsError:
            raise
        except Exception as error:
            complain(error, "the limits decide")
            within_limits(asked, holdings, limits, now)

    return admit


def _guarded_order(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    complain = _Complaint(name)

    def order(standing: Standing, shares: Shares, now: float) -> float:
        try:
            return _number(function(standing, shares, now))
        except Exception as error:
            complain(error, "the lease comes last")
            return math.inf

    return order


def _guarded_preemption(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    complain = _Complaint(name)

    def may_suspend(hard: Standing, victim: Standing) -> bool:
        try:
            return bool(function(hard, victim))
        except Exception as error:
            complain(error, "nothing is suspended")
            return False

    return may_suspend


def _guarded_hosts(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    complain = _Complaint(name)

    def host_rank(host: HostView) -> float:
        try:
            return _number(function(host))
        except Exception as error:
            complain(error, "the node is as good as any")
            return 0.0

    return host_rank


def _guarded_price(function: Callable[..., Any], name: str) -> Price:
    complain = _Complaint(name)

    def price(tariff: Tariff, metered: Metered) -> float:
        try:
            return _number(function(tariff, metered))
        except Exception as error:
            complain(error, "the price is that of node-hours")
            return per_node_hour(tariff, metered)

    return price


_GUARDS: Mapping[str, Callable[[Callable[..., Any], str], Callable[..., Any]]] = {
    "admission": _guarded_admission,
    "order": _guarded_order,
    "preemption": _guarded_preemption,
    "hosts": _guarded_hosts,
}


def _number(value: Any) -> float:
    number = float(value)
    if math.isnan(number):
        raise ValueError("it is not a number (NaN)")
    return number
