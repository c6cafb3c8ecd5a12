"""The JSON Schema for editors and the parser say the same.

Documents are made from a good one by changing it at random places. What the parser takes the schema takes: no editor
underlines what works. What the parser refuses for what one place says, the schema refuses too, but for what it has no
words for (ranges of sizes, a requirement's grammar).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.cluster_files import FOLDER, FULL, SMALL
from vws.core.cluster_keys import CLUSTER, schema
from vws.core.clusterfile import read_cluster_file
from vws.core.errors import InvalidRequest
from vws.core.shapes import Spot
from vws.core.yaml_tree import parse

VALIDATOR = jsonschema_rs.Draft202012Validator(schema())
GOOD: dict[str, Any] = yaml.safe_load(FULL)

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 64, 10**6, 10**12, 1.5, 512.0, "", " ", "a", "A", "no", "head", "worker", "private",
    "512MiB", "1.5 GiB", "1GB", "4h", "1h30m", "90", "10.20.0.0/24", "10.0.0.0/8", "/etc/motd", "/", "../x", "a/../b",
    "0644", "644", "0999", "${workers}", "x${release}", "site:dns", "site:moon", "replace", "all", "cpus >= 2", "é",
    "a b", "x" * 41, "x" * 5000, "a\nb", "member", [], ["head"], ["head", "head"], {}, {"text": "x"},
    {"from": "files/key"}, {"range": "10.9.0.0/24"}, {"image": "demo"},
]  # fmt: skip
KEYS = ["a", "b-c", "A", "_", "../x", "from", "text", "name", "image", "x" * 60, "on-left", "secret", "size", "1"]
# What a schema cannot say, by the words of the refusal or of what is possible.
UNSAID = ("cannot be used", "cannot be read", "the list has already", "a size such", "a time such", "a speed such")


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


@st.composite
def documents(draw: st.DrawFn) -> Any:
    document = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(document), key=str)))
        node = at(document, path)
        if isinstance(node, dict) and draw(st.booleans()):
            node[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif isinstance(node, list) and draw(st.booleans()):
            node.append(copy.deepcopy(draw(st.sampled_from([*VALUES, *node]))))
        elif path and draw(st.booleans()):
            del at(document, path[:-1])[path[-1]]
        elif path:
            at(document, path[:-1])[path[-1]] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return document


def whole(text: str) -> InvalidRequest | None:
    """Why the parser refuses it."""
    try:
        read_cluster_file(text, lambda path: FOLDER.get(path, b"#!/bin/sh\n"))
    except InvalidRequest as error:
        return error
    return None


def place_by_place(text: str) -> InvalidRequest | None:
    """Why a place in it cannot say what it says, whatever others say."""
    values = {"workers": "2", "memory": "512MiB", "release": "bookworm", "patient": "true"}
    try:
        CLUSTER.read(Spot(parse(text), (), values))
    except InvalidRequest as error:
        return error
    return None


def said_of(document: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(document)]


@settings(max_examples=400, deadline=None)
@given(documents())
@example(GOOD)
@example(yaml.safe_load(SMALL))
def test_what_is_read_is_right_to_an_editor(document):
    if whole(json.dumps(document, ensure_ascii=False)) is None:
        assert said_of(document) == []


@settings(max_examples=400, deadline=None)
@given(documents())
def test_what_is_wrong_by_itself_is_wrong_to_an_editor(document):
    error = place_by_place(json.dumps(document, ensure_ascii=False))
    if error is None or any(words in f"{error.problem} {error.possible}" for words in UNSAID):
        return
    if "${" in str(error.asked) or "parameter" in error.problem:
        return  # of what a parameter's value makes a schema knows nothing
    assert said_of(document), error.problem


def test_random_changes_are_of_both_kinds():
    """Neither test above is about one half only."""
    read = refused = 0

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(documents())
    def count(document):
        nonlocal read, refused
        good = whole(json.dumps(document, ensure_ascii=False)) is None
        read, refused = read + good, refused + (not good)

    count()
    assert read > 10
    assert refused > 40


@pytest.mark.parametrize(
    "key", sorted({".".join(path) for path in places(GOOD) if all(isinstance(p, str) for p in path)} - {""})
)
def test_each_key_is_known_to_the_schema(key):
    """An editor would say so of a slip in any of them."""
    document = copy.deepcopy(GOOD)
    *parents, last = key.split(".")
    parent = at(document, tuple(parents))
    parent[f"{last}!"] = parent.pop(last)
    assert said_of(document) or place_by_place(json.dumps(document)) is None


def test_the_schema_is_a_schema_and_tells_what_keys_are_for():
    jsonschema_rs.meta.validate(schema())
    group = schema()["properties"]["groups"]["additionalProperties"]["properties"]
    assert all(said["description"] for said in group.values())
    assert set(group) >= {"image", "count", "cpus", "memory", "disk", "networks", "provides", "requires", "on-failure"}
