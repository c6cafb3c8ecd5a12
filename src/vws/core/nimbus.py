"""A cluster document of Nimbus's context broker, as a cluster file.

Both say who provides and who requires which role, so nearly all of it carries over: workspaces become groups, roles and
data keep their names as far as a name may be so, a nic becomes a network. What has no counterpart, or meant something
that only its site or image knew, is told in `notes`, which also stand at the head of the file: nothing is lost
silently.

The document may come from anywhere. A document type, with which a few lines expand to gigabytes or name files, is
refused; expat, of the standard library, then expands nothing.
"""

from __future__ import annotations

import re
import xml.parsers.expat as expat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from vws.core.cluster import NAME_LENGTH_MAX as CLUSTER_NAME_LENGTH_MAX
from vws.core.cluster import NETWORKS_MAX
from vws.core.cluster_keys import ROLES_MAX, VERSION
from vws.core.context import INFORMATION, MEMBER
from vws.core.errors import InvalidRequest
from vws.core.image_names import read_reference
from vws.core.shapes import shorten
from vws.core.terms import COUNT_MAX, GROUP_NAME_LENGTH_MAX, GROUPS_MAX, NAME_LENGTH_MAX
from vws.core.yaml_tree import Place, fault

BYTES_MAX: Final = 128 * 1024
DEPTH_MAX: Final = 20
NOTES_MAX: Final = 100
_RESERVED: Final = {f"{name.partition(':')[0]}-" for name in INFORMATION}
# What VWS knows of each part of a workspace; all else is told.
_KNOWN: Final = {
    "workspace": {"name", "image", "quantity", "nic", "ctx", "active", "deploy"},
    "ctx": {"provides", "requires"},
    "provides": {"identity", "role"},
    "requires": {"identity", "role", "data"},
}


@dataclass(frozen=True, slots=True)
class Imported:
    """text: of the cluster file. notes: what did not carry over, and what is to be filled in; sentences."""

    text: str
    notes: tuple[str, ...]


@dataclass(slots=True)
class Element:
    name: str
    attributes: dict[str, str]
    place: Place
    parts: list[str] = field(default_factory=list)
    inner: list[Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def all(self, *names: str) -> Iterator[Element]:
        """What is found by going through these names: all("ctx", "provides", "role")."""
        for each in self.inner:
            if each.name == names[0]:
                yield from each.all(*names[1:]) if len(names) > 1 else (each,)

    def said(self, name: str) -> str:
        """The text of the first element so called, without the space around it."""
        return next((each.text.strip() for each in self.all(name)), "")


def import_nimbus(document: str | bytes, name: str) -> Imported:
    """The cluster file for a Nimbus cluster document. name: of the cluster.

    Raises InvalidRequest, with line and column, for what is no such document.
    """
    root = _read(document.encode() if isinstance(document, str) else document)
    return _Import(root, name).imported()


# ---------------------------------------------------------------- XML


def _read(document: bytes) -> Element:
    start = Place(1, 1)
    if len(document) > BYTES_MAX:
        fault(start, f"the document has {len(document)} bytes", possible=f"at most {BYTES_MAX} bytes")
    builder = _Builder()
    try:
        builder.parser.Parse(document, True)
    except expat.ExpatError as error:
        place = Place(error.lineno, error.offset + 1)
        fault(place, f"this is not XML: {expat.ErrorString(error.code)}", possible="a cluster document of Nimbus")
    except (LookupError, ValueError) as error:
        fault(start, f"the document cannot be read: {shorten(str(error))}", possible="XML in UTF-8")
    return builder.top.inner[0]


class _Builder:
    """Elements, as expat meets them. Namespaces are left out: Nimbus had several for the same words."""

    def __init__(self) -> None:
        self.top = Element("", {}, Place(1, 1))
        self.open = [self.top]
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = lambda name: self.open.pop()
        self.parser.CharacterDataHandler = lambda text: self.open[-1].parts.append(text)
        self.parser.StartDoctypeDeclHandler = self.doctype

    @property
    def place(self) -> Place:
        return Place(self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.open) > DEPTH_MAX:
            fault(self.place, "this is nested too deep", possible=f"at most {DEPTH_MAX} levels")
        local = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        element = Element(name.rpartition(" ")[2], local, self.place)
        self.open[-1].inner.append(element)
        self.open.append(element)

    def doctype(self, *_: Any) -> None:
        fault(self.place, "a document type is not read; leave out the line with <!DOCTYPE")


# ---------------------------------------------------------------- names


class _Names:
    """Names of another world as such that VWS has: each gets one of its own, the same for the same."""

    def __init__(self, length_max: int = NAME_LENGTH_MAX, taken: Iterable[str] = ()) -> None:
        self.length_max = length_max
        self.found: dict[str, str] = {}
        self.taken = set(taken)

    def of(self, name: str, default: str) -> str:
        if name not in self.found:
            self.found[name] = self.new(name, default)
        return self.found[name]

    def new(self, name: str, default: str) -> str:
        """A name that nobody else has."""
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or default
        made, number = plain[: self.length_max].strip("-"), 1
        while made in self.taken:
            number += 1
            made = f"{plain[: self.length_max - len(f'-{number}')].strip('-')}-{number}"
        self.taken.add(made)
        return made


# ---------------------------------------------------------------- the import


class _Import:
    def __init__(self, root: Element, name: str) -> None:
        self.root = root
        self.name = name
        self.notes: dict[str, None] = {}
        self.groups: dict[Place, str] = {}
        self.group_names, self.networks = _Names(GROUP_NAME_LENGTH_MAX), _Names(GROUP_NAME_LENGTH_MAX)
        self.roles = _Names(taken=[MEMBER])
        self.data: dict[str, str] = {}

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_MAX:
            self.notes[text] = None

    def imported(self) -> Imported:
        workspaces = self.workspaces()
        self.note_unknown(workspaces)
        provided = {self.role(role) for each in workspaces for role in each.all("ctx", "provides", "role")}
        groups = {self.group_name(each): self.group(each, provided) for each in workspaces}
        described: dict[str, Any] = {"vws": VERSION, "name": _Names(CLUSTER_NAME_LENGTH_MAX).new(self.name, "cluster")}
        members = sum(group["count"] for group in groups.values())
        if members > COUNT_MAX or len(provided) > ROLES_MAX:
            problem = f"the cluster has {members} members and {len(provided)} roles"
            fault(self.root.place, problem, possible=f"at most {COUNT_MAX} members and {ROLES_MAX} roles")
        described["networks"] = dict(self.described_networks(members))
        described["roles"] = {role: {"provider": {"hooks": {}}} for role in sorted(provided)}
        described |= {"groups": groups, "data": {name: {"text": _Text(text)} for name, text in self.data.items()}}
        described["context"] = self.context(workspaces)
        self.note_to_fill_in(provided)
        said = {key: value for key, value in described.items() if value}
        return Imported(_head(self.notes) + _yaml(said), tuple(self.notes))

    def workspaces(self) -> list[Element]:
        cluster = self.root
        if cluster.name == "nimbusctx":
            self.note("the contact of the broker and its secret were left out: VWS makes its own for each member")
            cluster = next(cluster.all("cluster"), cluster)
        workspaces = list(cluster.all("workspace"))
        if cluster.name != "cluster" or not workspaces:
            problem = f"<{shorten(cluster.name)}> is no cluster with workspaces"
            fault(cluster.place, problem, possible="<cluster> with <workspace> in it")
        if len(workspaces) > GROUPS_MAX:
            fault(workspaces[GROUPS_MAX].place, "there are too many workspaces", possible=f"at most {GROUPS_MAX}")
        return workspaces

    # ------------------------------------------------------------ groups

    def group_name(self, workspace: Element) -> str:
        # By place, not by name: two may have the same.
        if workspace.place not in self.groups:
            said = workspace.said("name")
            name = self.group_names.new(said, "group")
            self.groups[workspace.place] = name
            if said != name:
                self.note(f"the workspace {shorten(said)!r} is the group {name} now")
        return self.groups[workspace.place]

    def group(self, workspace: Element, provided: set[str]) -> dict[str, Any]:
        name = self.group_name(workspace)
        self.take_data(workspace, name)
        group: dict[str, Any] = {"image": self.image(workspace, name), "count": self.count(workspace)}
        group["networks"] = self.nics(workspace, name)
        provides = workspace.all("ctx", "provides", "role")
        group["provides"] = list(dict.fromkeys(self.role(role) for role in provides))
        group["requires"] = list(dict.fromkeys(self.required(workspace, name, provided)))
        if workspace.said("active") == "false":
            self.note(f"{name} was not active, so nobody waited for it; it is a full member now")
        # Without networks of its own it stays so, whatever others have.
        return {key: value for key, value in group.items() if value or key == "networks"}

    def image(self, workspace: Element, group: str) -> str:
        said = workspace.said("image")
        image = re.sub(r"[^!-~]|\$", "-", said)[:100]
        if not image:
            self.note(f"{group} names no image: write one of those that vws image list shows")
            return "IMAGE"
        if image != said:
            self.note(f"the image {shorten(said)} is written {image}")
        try:
            read_reference(image)
        except InvalidRequest:
            self.note(f"the image {shorten(image)} cannot be called so here; write what it was imported as")
        return image

    def count(self, workspace: Element) -> int:
        for quantity in workspace.all("quantity"):
            text = quantity.text.strip()
            if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= COUNT_MAX:
                problem = f"the quantity is {shorten(text)!r}"
                fault(quantity.place, problem, possible=f"a whole number from 1 to {COUNT_MAX}")
            return int(text)
        return 1

    def nics(self, workspace: Element, group: str) -> list[str]:
        networks = []
        for nic in workspace.all("nic"):
            network = self.networks.of(nic.text.strip() or "network", "network")
            if network in networks:
                self.note(f"{group} has one nic on {network}; its others there were left out")
            else:
                networks.append(network)
        if len(self.networks.found) > NETWORKS_MAX:
            fault(workspace.place, "there are too many networks", possible=f"at most {NETWORKS_MAX}")
        return networks

    # ------------------------------------------------------------ roles

    def role(self, element: Element) -> str:
        """Nimbus has the name in an attribute where it is required, and as text where it is provided."""
        said = element.attributes.get("name", "").strip() or element.text.strip()
        role = self.roles.of(said, "role")
        if role != said:
            self.note(f"the role {shorten(said)!r} is called {role} now, for its hooks too")
        if "interface" in element.attributes:
            nic = shorten(element.attributes["interface"])
            self.note(f"that {role} is on the interface {nic} was left out: others hear of all addresses of a member")
        return role

    def required(self, workspace: Element, group: str, provided: set[str]) -> Iterator[str]:
        for element in workspace.all("ctx", "requires", "role"):
            role = self.role(element)
            if role in provided:
                yield role
            else:
                self.note(f"{group} requires {role}, which no workspace provides: it was left out")

    def context(self, workspaces: list[Element]) -> dict[str, Any]:
        """Who asks for identities hears of all; host keys are in every identity, and users' in those of `mutual`."""
        all_of_them = any(True for each in workspaces for _ in each.all("ctx", "requires", "identity"))
        roles = [role for each in workspaces for role in each.all("ctx", "requires", "role")]
        keys = all_of_them or any(role.attributes.get("pubkey") == "true" for role in roles)
        if all_of_them and not all(list(each.all("ctx", "requires", "identity")) for each in workspaces):
            self.note("some workspaces require all identities; all members hear of all now")
        return {"introduce": "all" if all_of_them else "required", "ssh": "mutual" if keys else "none"}

    # ------------------------------------------------------------ data and networks

    def take_data(self, workspace: Element, group: str) -> None:
        names = _Names(taken=self.data)
        for element in workspace.all("ctx", "requires", "data"):
            said = element.attributes.get("name", "").strip()
            plain = re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")[:NAME_LENGTH_MAX].strip("-")
            text = element.text.replace("${", "$${")
            if self.data.get(plain) == text:
                continue
            safe = f"x-{plain}" if any(plain.startswith(kind) for kind in _RESERVED) else plain
            name = names.new(safe, "data")
            self.data[name] = text
            if name != said:
                self.note(f"the data {shorten(said)!r} of {group} is called {name} now")
            self.note(f"all members get the data {name}, not only {group}")

    def described_networks(self, members: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, (said, name) in enumerate(self.networks.found.items()):
            if said == "public":
                yield name, {"public": True}
                continue
            size = "24" if members < 250 else "16"
            yield name, {"range": f"10.{20 + number}.0.0/{size}", "outgoing": True}
            self.note(f"{name} was a network of the site; it is one of the cluster's own now, with a way out")

    # ------------------------------------------------------------ what is told

    def note_unknown(self, workspaces: list[Element]) -> None:
        for workspace in workspaces:
            for element in _within(workspace):
                known = _KNOWN.get(element.name, set())
                for inner in element.inner:
                    if element.name in _KNOWN and inner.name not in known:
                        self.note(f"line {inner.place.line}: <{shorten(inner.name)}> was left out")
            for element in workspace.all("deploy"):
                self.note(f"line {element.place.line}: <deploy> was left out: set memory, cpus and disk of the group")
            for element in workspace.all("ctx", "provides", "identity"):
                if any(inner.text.strip() for inner in element.inner):
                    line = element.place.line
                    self.note(f"line {line}: what <identity> says was left out: members say it themselves")

    def note_to_fill_in(self, provided: set[str]) -> None:
        if provided:
            self.note(
                f"what members do as {', '.join(sorted(provided)[:10])} was in their image; "
                "name scripts under hooks (on-joined, on-changed, on-left)"
            )
        self.note("memory, cpus and disk are the defaults (512MiB, 1, 1GiB), and lease: {for: ...} is to be said")


def _within(element: Element) -> Iterator[Element]:
    yield element
    for inner in element.inner:
        yield from _within(inner)


# ---------------------------------------------------------------- YAML


_NUMBER_LIKE = re.compile(r"[-+]?\.?\d")


class _Text(str):
    """A text that stands in quotes, or as lines of its own."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: _Text) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|" if "\n" in text else '"')


def _quoted_number(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """The library leaves 08 as it is, which is a text to it and a number to us."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _NUMBER_LIKE.match(text) else None)


_Dumper.add_representer(_Text, _represent)
_Dumper.add_representer(str, _quoted_number)


def _head(notes: Iterable[str]) -> str:
    return "# Made from a cluster document of Nimbus.\n" + "".join(f"# - {_one_line(note)}\n" for note in notes)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _yaml(described: dict[str, Any]) -> str:
    return str(yaml.dump(described, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))
