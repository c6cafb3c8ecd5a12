"""What a lease may require of its nodes: `cpus >= 2 and "gpu" in labels`.

The syntax is the part of Python's that compares things, so that nobody has to learn another. Python's own parser reads
it, and of the tree that it gives only the kinds named here are taken over into core/expressions.py; everything else
(calls, attribute access, subscripts, powers, f-strings, lambdas …) is refused with its position. Nothing is ever
evaluated by Python: the text comes from users, and there is no safe `eval`.

What can be known to be wrong is refused when it is asked for, not when it never matches: the names that every node has
are of a known kind, so `cpus == "2"`, `labels == "gpu"` or a requirement that names nothing of a node are slips of the
pen. A name that is not among them may be an attribute that an administrator gave to a node, today or tomorrow: it is
accepted, UNDEFINED where it is not defined, and `hints` says what was probably meant.
"""

from __future__ import annotations

import ast
import difflib
import functools
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from vws.core.errors import InvalidRequest
from vws.core.expressions import (
    COMPARISONS,
    AllOf,
    AnyOf,
    Arithmetic,
    Attributes,
    Comparison,
    Constant,
    Name,
    Not,
    Part,
    holds,
    names_in,
    reasons,
)
from vws.core.site import Node
from vws.core.traits import KINDS, LIST, NUMBER, TEXT, TRUTH

LENGTH_MAX = 1000
DEPTH_MAX = 30
NUMBER_MAX = 1 << 62

# As every other language writes them.
_TRUTHS: Final = {"true": True, "false": False}
_ANYTHING: Final = (
    "comparisons (== != < <= > >= in), and, or, not, + - *, numbers, quoted texts, lists of these, and names: "
    + ", ".join(KINDS)
    + ", or an attribute that nodes were given"
)
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_COMPARED: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}
# What users of other languages, and of more of Python, are told.
_REFUSED: Final[dict[type[ast.AST], str]] = {
    ast.Attribute: "names have no parts",
    ast.Call: "nothing can be called",
    ast.Subscript: "nothing has numbered parts",
    ast.JoinedStr: "texts with {} in them are not filled in",
    ast.BitAnd: "& is not known: use and",
    ast.BitOr: "| is not known: use or",
    ast.Invert: "~ is not known: use not",
    ast.Is: "is is not known: use ==",
    ast.IsNot: "is not is not known: use !=",
    ast.IfExp: "there is no if: use and, or",
    ast.Set: "a list is written (1, 2) or [1, 2]",
    ast.Lambda: "there are no functions",
}


_INSTEAD: Final = {"=": "==", "&": "and", "|": "or", "!": "not"}
_QUOTED: Final = re.compile(r"""\"[^"]*"|'[^']*'""")
_UNIT: Final = re.compile(r"(?<!\w)(?>[0-9][0-9.]*(?:[eE][-+]?[0-9]+)?)[^\W0-9]\w*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on a node. `names`: the attributes that it names. Equal if it was written alike."""

    text: str
    expression: Part
    names: frozenset[str]

    def matches(self, attributes: Attributes) -> bool:
        """Whether it is true of a node with these attributes; what is UNDEFINED there does not. Raises nothing."""
        return holds(self.expression, attributes)

    def why_not(self, attributes: Attributes) -> str:
        """Why it does not match, in words about "it", the node ("it has no label gpu"); "" if it does."""
        return "; ".join(dict.fromkeys(reasons(self.expression, attributes)))


def node_attributes(node: Node) -> dict[str, Any]:
    """What requirements can ask of `node`. What it has not reported (a node that is joining) is left out."""
    said = {
        "arch": node.traits.arch,
        "hypervisor": node.hypervisor,
        "bandwidth_mbit": node.capacity.bandwidth_mbit,
    }
    return node.every_attribute | {
        **{name: value for name, value in said.items() if value},
        "name": node.name,
        "cpus": node.capacity.cpus,
        "memory_mib": node.capacity.memory_mib,
        "disk_mib": node.capacity.disk_mib,
        "kvm": node.hypervisor == "kvm",
        "accelerators": node.traits.accelerators,
        "labels": node.every_label,
    }


def hints(requirement: Requirement, nodes: Iterable[Attributes]) -> tuple[str, ...]:
    """For each name of the requirement that none of `nodes` defines, a sentence with what was probably meant."""
    unknown = requirement.names - KINDS.keys()
    if not unknown:
        return ()
    named: set[str] = set(KINDS)
    members: dict[str, str] = {}
    for attributes in nodes:
        named.update(attributes)
        for each in ("labels", "accelerators"):
            members.update(dict.fromkeys(attributes.get(each, ()), each))
    return tuple(_hint(name, named, members) for name in sorted(unknown - named))


def _hint(name: str, named: set[str], members: dict[str, str]) -> str:
    if name in members:
        return f'no node has an attribute {name}; did you mean "{name}" in {members[name]}?'
    near = difflib.get_close_matches(name, sorted(named), n=1)
    return f"no node has an attribute {name}" + (f"; did you mean {near[0]}?" if near else "")


# ---------------------------------------------------------------- reading


@functools.lru_cache(maxsize=4096)
def parse(text: str, field: str = "requirement") -> Requirement:
    """The requirement that `text` says. Raises InvalidRequest, naming `field` and the character that is in the way."""
    return _Reader(text, field).read()


class _Reader:
    """One text, on its way to a Requirement."""

    def __init__(self, text: str, field: str) -> None:
        self._text = text
        self._field = field
        self._shift = len(text) - len(text.lstrip())

    def read(self) -> Requirement:
        self._check_characters()
        try:
            tree = ast.parse(self._text.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._not_understood(error) from None
        except (ValueError, RecursionError, MemoryError):
            raise self._refusal("this is nested too deeply") from None
        expression = self._truth(tree, 1)
        names = frozenset(names_in(expression))
        if not names:
            raise self._refusal("this asks nothing of a node", possible="a comparison with a name: " + ", ".join(KINDS))
        return Requirement(self._text.strip(), expression, names)

    def _not_understood(self, error: SyntaxError) -> InvalidRequest:
        # Python's own words ("Perhaps you forgot a comma?") suppose that Python was meant.
        line = self._text.strip()
        start = (error.offset or len(line) + 1) - 1
        sign = line[start : start + 1]
        why = f"this is not understood: use {_INSTEAD[sign]}" if sign in _INSTEAD else "this is not understood"
        return self._refusal(why if sign else "it ends too early", start, (error.end_offset or 0) - 1)

    def _check_characters(self) -> None:
        if len(self._text) > LENGTH_MAX:
            raise self._refusal(
                f"this has {len(self._text)} characters", LENGTH_MAX, possible=f"at most {LENGTH_MAX} characters"
            )
        for place, character in enumerate(self._text):
            # A backslash begins an escape and a # a comment, of which a reader sees no more than Python would tell.
            if not character.isprintable() or character in "\\#":
                raise self._refusal(f"the character {character!a} cannot be used", place - self._shift)
        unit = _UNIT.search(_QUOTED.sub(lambda quoted: " " * len(quoted[0]), self._text))
        if unit:
            raise self._refusal(
                "a number has no unit",
                unit.start() - self._shift,
                unit.end() - self._shift,
                possible="numbers in MiB (memory_mib, disk_mib) or Mbit/s (bandwidth_mbit), such as 2048",
            )

    # ------------------------------------------------------------ refusing

    def _refusal(self, why: str, start: int = 0, end: int = 0, *, possible: str = _ANYTHING) -> InvalidRequest:
        """start, end: characters of the stripped text, counted from 0."""
        place = min(max(start + self._shift, 0), len(self._text))
        shown = self._text[place : max(end + self._shift, place + 1)].strip()
        at = f"at character {place + 1}" + (f" ({_cut(shown)})" if shown else "")
        return InvalidRequest(
            f"the requirement cannot be used: {at}: {why}",
            field=self._field,
            asked=_cut(self._text),
            possible=possible,
            details={"position": place + 1},
        )

    def _refusal_at(self, node: ast.expr, why: str, *, possible: str = _ANYTHING) -> InvalidRequest:
        start, end = self._span(node)
        return self._refusal(why, start, end, possible=possible)

    def _span(self, node: ast.expr) -> tuple[int, int]:
        """Where it stands. The parser counts bytes."""
        line = self._text.strip().encode()
        end = node.end_col_offset if node.end_col_offset is not None else node.col_offset + 1
        return len(line[: node.col_offset].decode()), len(line[:end].decode())

    def _source(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._text.strip()[start:end]

    # ------------------------------------------------------------ parts

    def _part(self, node: ast.expr, depth: int) -> Part:
        if depth > DEPTH_MAX:
            raise self._refusal_at(node, f"this is nested more than {DEPTH_MAX} deep")
        match node:
            case ast.Name(id=name) if name not in _TRUTHS:
                return Name(name, name)
            case ast.Constant() | ast.List() | ast.Tuple() | ast.Name():
                return Constant(self._source(node), self._constant(node))
            case ast.BoolOp():
                parts = tuple(self._truth(each, depth + 1) for each in node.values)
                return (AllOf if isinstance(node.op, ast.And) else AnyOf)(self._source(node), parts)
            case ast.UnaryOp(op=ast.Not()):
                return Not(self._source(node), (self._truth(node.operand, depth + 1),))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                work = operator.sub if isinstance(node.op, ast.USub) else operator.add
                return Arithmetic(self._source(node), (Constant("0", 0), self._number(node.operand, depth + 1)), work)
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult()):
                operands = self._number(node.left, depth + 1), self._number(node.right, depth + 1)
                return Arithmetic(self._source(node), operands, _ARITHMETIC[type(node.op)])
            case ast.Compare():
                return self._comparison(node, depth)
        raise self._refusal_at(node, self._why_refused(node))

    @staticmethod
    def _why_refused(node: ast.expr) -> str:
        asked = getattr(node, "op", node)
        return _REFUSED.get(type(asked), f"a {type(asked).__name__.lower()} is not among what can be used")

    def _constant(self, node: ast.expr, *, inside: bool = False) -> Any:
        """The value of a constant; `inside` a list these cannot be truths or lists."""
        match node:
            case ast.Constant(value=bool() as value) if not inside:
                return value
            case ast.Name(id=name) if name in _TRUTHS and not inside:
                return _TRUTHS[name]
            case ast.Constant(value=str() as value):
                return value
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                if not abs(value) <= NUMBER_MAX:
                    raise self._refusal_at(node, "the number is too large", possible=f"at most {NUMBER_MAX}")
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float()) as number):
                return -self._constant(number, inside=True)
            case ast.List(elts=items) | ast.Tuple(elts=items) if not inside:
                return tuple(self._constant(item, inside=True) for item in items)
        where = "in a list" if inside else "here"
        raise self._refusal_at(node, f"only numbers and quoted texts can stand {where}")

    def _comparison(self, node: ast.Compare, depth: int) -> Part:
        """`2 <= cpus < 8` is `2 <= cpus and cpus < 8`."""
        sides = [node.left, *node.comparators]
        parts = [self._part(side, depth + 1) for side in sides]
        links = []
        for i, asked in enumerate(node.ops):
            compared = _COMPARED.get(type(asked))
            if compared is None:
                raise self._refusal_at(node, _REFUSED[type(asked)])
            self._check_kinds(node, compared, parts[i], parts[i + 1])
            source = f"{self._source(sides[i])} {compared} {self._source(sides[i + 1])}"
            links.append(Comparison(source, (parts[i], parts[i + 1]), compared, COMPARISONS[compared]))
        return links[0] if len(links) == 1 else AllOf(self._source(node), tuple(links))

    # ------------------------------------------------------------ kinds

    def _truth(self, node: ast.expr, depth: int) -> Part:
        part = self._part(node, depth)
        kind = _kind(part)
        if kind is not None and kind != TRUTH:
            examples = {LIST: '"gpu" in labels', TEXT: 'arch == "x86_64"', NUMBER: "cpus >= 2"}
            possible = f"a comparison, such as {examples[kind]}"
            raise self._refusal_at(node, f"this is {kind}, not true or false", possible=possible)
        return part

    def _number(self, node: ast.expr, depth: int) -> Part:
        part = self._part(node, depth)
        kind = _kind(part)
        if kind not in (NUMBER, None):
            raise self._refusal_at(node, f"this is {kind}, not a number", possible="+ - * between numbers")
        return part

    def _check_kinds(self, node: ast.Compare, compared: str, left: Part, right: Part) -> None:
        kinds = _kind(left), _kind(right)
        listed = right if kinds[1] == LIST else left
        if compared in ("in", "not in"):
            if kinds[0] in (LIST, TRUTH) or kinds[1] in (NUMBER, TRUTH) or kinds == (NUMBER, TEXT):
                possible = '"gpu" in labels, or arch in ("x86_64", "aarch64")'
                raise self._refusal_at(node, f"{_of_kind(left)} cannot be in {_of_kind(right)}", possible=possible)
        elif LIST in kinds:
            raise self._refusal_at(node, f"{listed.source} is a list", possible=f'"…" in {listed.source}')
        elif None not in kinds and (kinds[0] != kinds[1] or (TRUTH in kinds and compared not in ("==", "!="))):
            raise self._refusal_at(
                node,
                f"{_of_kind(left)} and {_of_kind(right)} cannot be compared by {compared}",
                possible="two numbers, or two quoted texts",
            )


def _kind(part: Part) -> str | None:
    """What it will be worth where it is defined; None if that depends on the node."""
    if isinstance(part, Name):
        return KINDS.get(part.name)
    if isinstance(part, Arithmetic):
        return NUMBER
    if not isinstance(part, Constant):
        return TRUTH
    if isinstance(part.constant, bool):
        return TRUTH
    if isinstance(part.constant, str):
        return TEXT
    return LIST if isinstance(part.constant, tuple) else NUMBER


def _of_kind(part: Part) -> str:
    kind = _kind(part)
    return f"{part.source} ({kind})" if kind else part.source


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
