"""What is in an image, by its bill of materials, and what is known against it.

A bill is CycloneDX JSON. Of its components only names and versions are read: for a Debian package also the source that
it was built from, because Debian's security tracker speaks of sources. The package URL tells it
(`?upstream=openssl@3.0.11-1`, left out where it is the same).

Versions are compared as Debian does, where `~` is before nothing at all and an epoch before everything; whoever
compares them as text takes 3.0.9 for newer than 3.0.11.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import parse_qs

from vws.core.errors import InvalidRequest

if TYPE_CHECKING:
    from debian.debian_support import NativeVersion

COMPONENTS_MAX = 100_000
WORD_LENGTH_MAX = 300
SEVERITIES = ("high", "medium", "low", "unimportant", "not yet assigned", "end-of-life")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    "=": operator.eq,
    ">": operator.gt,
}
_NAME = r"[A-Za-z0-9][A-Za-z0-9.+_-]*"
_FORBIDDEN = re.compile(rf"({_NAME})(?:\s*(<=|>=|<|=|>)\s*(\S+))?")
_VERSION = re.compile(r"[A-Za-z0-9.+:~_-]{1,200}")


@dataclass(frozen=True, slots=True)
class Package:
    """source, source_version: what it was built from; the same as its own unless said."""

    name: str
    version: str
    source: str
    source_version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Bill:
    """sha256: of the document, by which an attestation names it (`packages`)."""

    sha256: str
    packages: tuple[Package, ...]


def read_bill(content: bytes, sha256: str) -> Bill:
    """Raises InvalidRequest for what is no bill of materials in CycloneDX's JSON."""
    possible = "CycloneDX in JSON, with a list `components`"
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the bill of materials is not JSON: {error}", field="bill", possible=possible) from None
    components = said.get("components") if isinstance(said, dict) and said.get("bomFormat") == "CycloneDX" else None
    if not isinstance(components, list) or len(components) > COMPONENTS_MAX:
        raise InvalidRequest("this is no bill of materials", field="bill", possible=possible)
    return Bill(sha256, tuple(_packages(components)))


def _packages(components: Iterable[Any]) -> Iterator[Package]:
    for each in components:
        said = each if isinstance(each, dict) else {}
        name, version = said.get("name"), said.get("version")
        if _is_word(name) and _is_word(version):
            source, source_version = _source(said.get("purl"))
            yield Package(name, version, source or name, source_version or version)


def _is_word(said: Any) -> TypeGuard[str]:
    """What may be repeated in a sentence."""
    return isinstance(said, str) and 0 < len(said) <= WORD_LENGTH_MAX and said.isprintable()


def _source(purl: Any) -> tuple[str, str]:
    if not isinstance(purl, str) or not purl.startswith("pkg:deb/"):
        return "", ""
    upstream = parse_qs(purl.partition("?")[2].partition("#")[0]).get("upstream", [""])[0]
    name, _, version = upstream.partition("@")
    return (name, version) if _is_word(upstream) else ("", "")


def version(text: str) -> NativeVersion:
    """Ordered as Debian's packages are. Raises InvalidRequest for what cannot be a version."""
    from debian.debian_support import NativeVersion  # takes as long to load as all of the core

    try:
        if _VERSION.fullmatch(text):
            return NativeVersion(text)
    except ValueError:
        pass
    raise InvalidRequest(f"{text[:60]!r} is no version", field="version", possible="such as 3.0.11-1~deb12u2")


# ---------------------------------------------------------------- what a policy forbids


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A package by name (its own or its source's), all versions of it if `compare` is ""."""

    name: str
    compare: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.compare} {self.version}".rstrip()

    def meets(self, package: Package) -> bool:
        """A version that cannot be compared is not known to be harmless."""
        for name, held in ((package.name, package.version), (package.source, package.source_version)):
            if name == self.name and (not self.compare or self._compares(held)):
                return True
        return False

    def _compares(self, held: str) -> bool:
        try:
            return _COMPARE[self.compare](version(held), version(self.version))
        except InvalidRequest:
            return True


def read_forbidden(text: str, where: str = "forbidden") -> Forbidden:
    """`openssl`, or `openssl < 3.0.11-1~deb12u2`. Raises InvalidRequest."""
    match = _FORBIDDEN.fullmatch(text.strip())
    possible = "a package, or one with a version such as openssl < 3.0.11-1~deb12u2 (<, <=, =, >=, >)"
    if match is None:
        raise InvalidRequest(f"{text[:60]!r} names no package", field=where, asked=text[:60], possible=possible)
    if match[3]:
        try:
            version(match[3])
        except InvalidRequest as error:
            raise InvalidRequest(error.problem, field=where, asked=text[:60], possible=possible) from None
    return Forbidden(match[1], match[2] or "", match[3] or "")


# ---------------------------------------------------------------- what the tracker knows


@dataclass(frozen=True, slots=True)
class Flaw:
    """A vulnerability of a source package in one release. fixed: the version that has it no more; "": none has."""

    id: str
    severity: str
    fixed: str = ""


# By source package.
Flaws = Mapping[str, tuple[Flaw, ...]]


def flaws_of(entry: Any, release: str) -> tuple[Flaw, ...]:
    """What the tracker says of one source package, for one release. What is not understood is left out."""
    return tuple(sorted(_flaws(entry, release), key=lambda flaw: flaw.id)) if isinstance(entry, dict) else ()


def _flaws(entry: Mapping[str, Any], release: str) -> Iterator[Flaw]:
    for id, said in entry.items():
        releases = said.get("releases") if isinstance(said, dict) else None
        here = releases.get(release) if isinstance(releases, dict) else None
        if not isinstance(here, dict):
            continue
        severity, fixed = str(here.get("urgency", "")).rstrip("*"), str(here.get("fixed_version", ""))
        # Version 0 is the tracker's way to say that the release never had it.
        if here.get("status") == "open" or (here.get("status") == "resolved" and fixed not in ("", "0")):
            yield Flaw(str(id), severity, fixed if here.get("status") == "resolved" else "")


def flaws_in(bill: Bill, known: Flaws, severities: Iterable[str]) -> list[tuple[Package, Flaw]]:
    """The vulnerabilities of these severities that the packages of an image have; one for each source and flaw."""
    wanted = frozenset(severities)
    found: dict[tuple[str, str], tuple[Package, Flaw]] = {}
    for package in bill.packages:
        for flaw in known.get(package.source, ()):
            if flaw.severity in wanted and (not flaw.fixed or _is_before(package.source_version, flaw.fixed)):
                found.setdefault((package.source, flaw.id), (package, flaw))
    return list(found.values())


def _is_before(held: str, fixed: str) -> bool:
    try:
        return bool(version(held) < version(fixed))
    except InvalidRequest:
        return True
