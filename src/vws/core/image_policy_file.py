"""The site's image policy as its administrator writes it: TOML, read strictly.

A policy that is half understood is worse than none: a mistyped key would demand less than its author meant. So unknown
keys, rules that cannot be reached and values of the wrong kind are errors, each with its line and with what is allowed.
TOML's reader gives no lines for values; where a key stands is looked up in the text, for people only.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vws.core.bill import SEVERITIES, Forbidden, read_forbidden
from vws.core.errors import InvalidRequest
from vws.core.image_policy import ANY, ISOLATED, REFUSED, Rule
from vws.core.quantities import parse_duration
from vws.core.terms import check_name
from vws.core.trust import Value, checked_assertions

POLICY_BYTES_MAX = 1 << 20
RULES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Tracker:
    """file: Debian's security tracker as JSON, relative to the policy's own folder. release: such as bookworm."""

    file: str
    release: str


@dataclass(frozen=True, slots=True)
class PolicyFile:
    rules: tuple[Rule, ...]
    tracker: Tracker | None = None

    @property
    def signers(self) -> tuple[str, ...]:
        """All that any rule names."""
        return tuple(dict.fromkeys(name for rule in self.rules for name in rule.signers))


def read_policy(text: str, name: str = "image-policy.toml", *, vos: Collection[str] | None = None) -> PolicyFile:
    """The policy in `text`. vos: those of the site, None if they are not known. Raises InvalidRequest, naming the file,
    the line, the key, and what is allowed."""
    if len(text) > POLICY_BYTES_MAX:
        raise InvalidRequest(f"{name} is longer than {POLICY_BYTES_MAX} characters", field=name)
    try:
        said = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{name} is not TOML: {error}", field=name, possible="TOML; docs/admin-guide.md") from None
    return _Reader(text, name, vos).policy(said)


# ---------------------------------------------------------------- where things stand

_HEADER = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_.-]+)\s*\]{1,2}\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)(?:\.[A-Za-z0-9_.-]+)?\s*=")


def _places(text: str) -> list[tuple[str, int, dict[str, int]]]:
    """(table, line, line of each key) in the order of the text; the keys before any table come first."""
    found: list[tuple[str, int, dict[str, int]]] = [("", 1, {})]
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.fullmatch(line):
            found.append((header[1], number, {}))
        elif key := _KEY.match(line):
            found[-1][2].setdefault(key[1], number)
    return found


# ---------------------------------------------------------------- reading


class _Reader:
    def __init__(self, text: str, name: str, vos: Collection[str] | None) -> None:
        self._places = _places(text)
        self._name = name
        self._vos = vos
        self._where, self._line, self._keys = "", 1, self._places[0][2]

    def policy(self, said: Mapping[str, Any]) -> PolicyFile:
        self._known(said, ("rule", "tracker"))
        rules = said.get("rule", [])
        if not isinstance(rules, list) or not rules or len(rules) > RULES_MAX:
            raise self._wrong(
                "rule", None, "there is no rule", "[[rule]] tables, the first one that is for the user decides"
            )
        read: list[Rule] = []
        for number, each in enumerate(rules, start=1):
            self._enter("rule", number)
            if not isinstance(each, dict):
                raise self._wrong("rule", each, "a rule is no table", "[[rule]]")
            read.append(self._rule(each, read))
        tracker = self._tracker(said["tracker"]) if "tracker" in said else None
        if tracker is None:
            self._must_need_no_tracker(read)
        return PolicyFile(tuple(read), tracker)

    def _must_need_no_tracker(self, rules: list[Rule]) -> None:
        for number, rule in enumerate(rules, start=1):
            if rule.severities:
                self._enter("rule", number)
                why = "vulnerabilities are not known without a tracker's file"
                raise self._wrong("vulnerabilities", rule.severities, why, '[tracker] with file = "tracker.json"')

    def _enter(self, table: str, number: int) -> None:
        """What is read from here on stands in the `number`th table of that name."""
        here = [place for place in self._places if place[0] == table]
        _, self._line, self._keys = here[number - 1] if number <= len(here) else self._places[0]
        self._where = f"rule {number}" if table == "rule" else f"[{table}]"

    def _rule(self, said: Mapping[str, Any], before: list[Rule]) -> Rule:
        self._known(said, KEYS)
        rule = Rule(f"{self._name}:{self._line}, {self._where}", self._parties(said))
        for key, (field, read) in _FIELDS.items():
            if key in said:
                rule = replace(rule, **{field: self._read(key, said[key], read)})
        self._must_make_sense(rule, said)
        for other in before:
            if "all" in other.parties or set(rule.parties) <= set(other.parties):
                why = f"it is never reached: {other.where}, decides before"
                raise self._wrong("for", list(rule.parties), why, "rules for few before rules for many")
        return rule

    def _parties(self, said: Mapping[str, Any]) -> tuple[str, ...]:
        possible = 'such as ["vo:cms", "user:ann"], or "all"'
        asked = said.get("for")
        parties = (asked,) if isinstance(asked, str) else tuple(asked) if isinstance(asked, list) else ()
        if not parties:
            raise self._wrong("for", asked, "it is not said for whom it is", possible)
        for each in parties:
            kind, _, name = each.partition(":") if isinstance(each, str) else ("", "", "")
            if each != "all" and (kind not in ("vo", "user") or not name):
                raise self._wrong("for", each, f"{each!r} is nobody", possible)
            if kind == "vo" and self._vos is not None and name not in self._vos:
                there = ", ".join(sorted(self._vos)) or "none"
                raise self._wrong("for", each, f"there is no VO {name}", f"a VO of site.toml: {there}")
        return parties

    def _must_make_sense(self, rule: Rule, said: Mapping[str, Any]) -> None:
        for key in ("assert", "updates-within", "unsigned"):
            if key in said and not rule.signers:
                why = f"{key} means nothing without signers: nobody's word would count"
                raise self._wrong(
                    key, said[key], why, 'signers = ["NAME"]; the network of unsigned images is `network`'
                )

    def _tracker(self, said: Any) -> Tracker:
        self._enter("tracker", 1)
        if not isinstance(said, dict):
            raise self._wrong("tracker", said, "tracker is no table", "[tracker]")
        self._known(said, ("file", "release"))
        found = {key: said.get(key) for key in ("file", "release")}
        for key, value in found.items():
            if not isinstance(value, str) or not value.strip() or "\0" in value:
                possible = 'such as file = "tracker.json", release = "bookworm"'
                raise self._wrong(key, value, f"{key} is not said", possible)
        return Tracker(str(found["file"]), str(found["release"]))

    def _read(self, key: str, value: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return read(value)
        except InvalidRequest as error:
            raise self._wrong(key, value, error.problem, error.possible or "") from None
        except ValueError as error:
            raise self._wrong(key, value, str(error), "") from None

    def _known(self, said: Mapping[str, Any], names: Collection[str]) -> None:
        for key in said:
            if key not in names:
                near = difflib.get_close_matches(key, names, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise self._wrong(key, None, f"{key[:60]!r} is no key{hint}", f"one of {', '.join(names)}")

    def _wrong(self, key: str, asked: Any, problem: str, possible: str) -> InvalidRequest:
        line = self._keys.get(key, self._line)
        place = f"{self._name}:{line}" + (f", {self._where}" if self._where else "")
        return InvalidRequest(f"{place}: {problem}", field=key, asked=str(asked)[:60] if asked is not None else None,
                              possible=possible or None)  # fmt: skip


# ---------------------------------------------------------------- values


def _texts(value: Any) -> tuple[str, ...]:
    """One text, or a list of them."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) and each for each in listed):
        raise ValueError(f"{str(value)[:60]!r} is no text and no list of texts")
    return tuple(listed)


def _signers(value: Any) -> tuple[str, ...]:
    for name in _texts(value):
        check_name(name, "signers")
    return _texts(value)


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed or not isinstance(value, str):
            raise ValueError(f"{str(value)[:60]!r} is none of {', '.join(allowed)}")
        return value

    return read


def _asserted(value: Any) -> dict[str, tuple[Value, ...]]:
    # A wanted list names all values that may be asserted.
    return {name: each if isinstance(each, tuple) else (each,) for name, each in checked_assertions(value).items()}


def _duration(value: Any) -> int:
    said = str(value)[:60]
    if not isinstance(value, str) or said.strip().isdecimal():
        raise ValueError(f'{said!r} has no unit; write "{said if said.isdecimal() else 30}d" for days, "12h" for hours')
    return parse_duration(value)


def _forbidden(value: Any) -> tuple[Forbidden, ...]:
    return tuple(read_forbidden(each) for each in _texts(value))


def _severities(value: Any) -> tuple[str, ...]:
    for each in _texts(value):
        _one_of(*SEVERITIES)(each)
    return _texts(value)


# key -> (field of Rule, how its value is read)
_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "signers": ("signers", _signers),
    "unsigned": ("unsigned", _one_of(REFUSED, ISOLATED, ANY)),
    "network": ("network", _one_of(ANY, ISOLATED)),
    "assert": ("asserted", _asserted),
    "updates-within": ("updates_within_s", _duration),
    "age-within": ("age_within_s", _duration),
    "forbidden": ("forbidden", _forbidden),
    "vulnerabilities": ("severities", _severities),
}
KEYS = ("for", *_FIELDS)
