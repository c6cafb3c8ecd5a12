"""What a node is like, beside how much of everything it has: its architecture, its accelerators, and what people say.

A *label* is a word that a node has or has not (`gpu`, `ssd`); an *attribute* is a name with a value (`rack = "r12"`).
Both may come from the node's own configuration, which its agent reports (`Traits`), and from the site's administrator
(`Node.labels`, `Node.attributes`). The two are kept apart, so that neither a report nor a command undoes what the other
said: labels add up, and of two values of an attribute the administrator's counts.

Names are such that requirements (core/requirements.py) can ask for them, and never those that every node has.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from vws.core.errors import Conflict, InvalidRequest

LABEL_PATTERN: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._:/-]{0,61}[A-Za-z0-9])?"
ATTRIBUTE_PATTERN: Final = r"[a-z][a-z0-9_]{0,39}"
VALUE_LENGTH_MAX = 200
VALUE_MAX = 1 << 62
LABELS_MAX = ATTRIBUTES_MAX = ACCELERATORS_MAX = 64

NUMBER, TEXT, TRUTH, LIST = "a number", "a text", "true or false", "a list"
# What every node says of itself (`requirements.node_attributes`), and of what kind it is.
KINDS: Final = {
    "name": TEXT,
    "cpus": NUMBER,
    "memory_mib": NUMBER,
    "disk_mib": NUMBER,
    "bandwidth_mbit": NUMBER,
    "arch": TEXT,
    "hypervisor": TEXT,
    "kvm": TRUTH,
    "accelerators": LIST,
    "labels": LIST,
}
_RESERVED: Final = frozenset({*KINDS, *map(str.lower, keyword.kwlist)})


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    value: str | int


@dataclass(frozen=True, slots=True)
class Traits:
    """What a node's agent reports. arch: as `uname -m` has it; accelerators: vendors and PCI ids of its GPUs and other
    accelerators; labels, attributes: of the node's own configuration."""

    arch: str = ""
    accelerators: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()


UNSAID: Final = Traits()


def check_label(label: Any, field: str = "labels") -> str:
    """Return `label` if it is one; InvalidRequest otherwise. Accelerators are named by the same rule."""
    if not isinstance(label, str) or not re.fullmatch(LABEL_PATTERN, label):
        raise InvalidRequest(
            f"{_shown(label)} cannot be a label",
            field=field,
            asked=_shown(label),
            possible="letters, digits and inner . _ : / -, at most 63 characters, such as gpu or zone/b",
        )
    return label


def check_attribute(name: Any, value: Any, field: str = "attributes") -> Attribute:
    """The attribute, if it can be one; InvalidRequest otherwise."""
    if not isinstance(name, str) or not re.fullmatch(ATTRIBUTE_PATTERN, name) or name in _RESERVED:
        why = "is what every node has" if name in KINDS else "cannot be the name of an attribute"
        raise InvalidRequest(
            f"{_shown(name)} {why}",
            field=field,
            asked=_shown(name),
            possible="lower-case letters, digits and _, a letter first, at most 40 characters; none of "
            + ", ".join(KINDS),
        )
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not _is_value(value):
        raise InvalidRequest(
            f"{_shown(value)} cannot be the value of {name}",
            field=f"{field}.{name}",
            asked=_shown(value),
            possible=f"a whole number, or a printable text of at most {VALUE_LENGTH_MAX} characters",
        )
    return Attribute(name, value)


def _is_value(value: str | int) -> bool:
    if isinstance(value, int):
        return abs(value) <= VALUE_MAX
    # What cannot be written into a requirement could not be asked for.
    return len(value) <= VALUE_LENGTH_MAX and value.isprintable() and not set(value) & {"\\", "#"}


def checked_labels(labels: Iterable[Any], field: str = "labels") -> tuple[str, ...]:
    """The labels, sorted and each once; InvalidRequest for one that cannot be, or too many."""
    found = tuple(sorted({check_label(label, field) for label in labels}))
    _check_count(found, LABELS_MAX, field)
    return found


def checked_attributes(attributes: Mapping[Any, Any], field: str = "attributes") -> tuple[Attribute, ...]:
    """The same for attributes, sorted by name."""
    found = tuple(check_attribute(*each, field) for each in sorted(attributes.items(), key=lambda each: str(each[0])))
    _check_count(found, ATTRIBUTES_MAX, field)
    return found


def _check_count(found: tuple[Any, ...], most: int, field: str) -> None:
    if len(found) > most:
        raise InvalidRequest(f"{len(found)} {field} are too many", field=field, possible=f"at most {most}")


def checked_traits(traits: Traits, field: str = "traits") -> Traits:
    """Traits as a node may report them; InvalidRequest otherwise."""
    return replace(
        traits,
        arch=check_label(traits.arch, f"{field}.arch") if traits.arch else "",
        accelerators=checked_labels(traits.accelerators, f"{field}.accelerators"),
        labels=checked_labels(traits.labels, f"{field}.labels"),
        attributes=checked_attributes({each.name: each.value for each in traits.attributes}, f"{field}.attributes"),
    )


# ---------------------------------------------------------------- what an administrator says


@dataclass(frozen=True, slots=True)
class Relabelling:
    """What an administrator changes: labels and attributes to have, and names of either not to have any more."""

    labels: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    removed: tuple[str, ...] = ()


def relabelled(
    labels: tuple[str, ...], attributes: tuple[Attribute, ...], change: Relabelling, reported: Traits
) -> tuple[tuple[str, ...], tuple[Attribute, ...]]:
    """The administrator's labels and attributes of a node after `change`. To remove what is not there is no error.

    Raises InvalidRequest for what cannot be a label or an attribute, and Conflict for the removal of what the node's
    own configuration says.
    """
    own = {*reported.labels, *(each.name for each in reported.attributes)}
    named = {each.name for each in attributes}
    for name in change.removed:
        if name in own and name not in {*labels, *named}:
            raise Conflict(
                f"{name} is in the node's own configuration",
                field="remove",
                asked=name,
                possible=f"take {name} out of [node] in site.toml on that host, and restart its agent",
            )
    kept = {each.name: each.value for each in attributes if each.name not in change.removed}
    kept.update((each.name, each.value) for each in change.attributes)
    return (
        checked_labels((set(labels) - set(change.removed)) | set(change.labels)),
        checked_attributes(kept),
    )


def _shown(value: Any) -> str:
    return repr(value)[:60]
