"""Requirements mean what Python would say, say why they are not met, and are safe whatever is sent."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vws.core.errors import InvalidRequest
from vws.core.expressions import UNDEFINED
from vws.core.requirements import LENGTH_MAX, hints, parse

NODE = {
    "name": "host-1",
    "cpus": 8,
    "memory_mib": 16384,
    "disk_mib": 100_000,
    "bandwidth_mbit": 1000,
    "arch": "x86_64",
    "hypervisor": "kvm",
    "kvm": True,
    "accelerators": ("nvidia-10de-2204",),
    "labels": ("gpu", "ssd"),
    "rack": "r1",
    "gpus": 2,
}


# ---------------------------------------------------------------- meaning


@pytest.mark.parametrize(
    "text",
    [
        'cpus >= 2 and "gpu" in labels',
        '  "gpu" in labels  ',
        "4 <= cpus <= 8 != gpus",
        'arch in ("x86_64", "aarch64") and name not in ["host-2"]',
        'rack == "r1" or cpus > 100',
        'not (rack == "r2") and not false',
        "cpus * 2 + 1 > 16 and -gpus < -1 and +gpus == 2",
        "memory_mib >= 1.5 * 1024 + 1e3 + .5",
        '"86" in arch',
        "kvm and gpus",
        "kvm == true",
        "gpus in (1, 2, -3)",
        '"(&!" not in labels',
        "(((((cpus)))) > 1)",
    ],
)
def test_what_a_node_meets(text):
    assert parse(text).matches(NODE)
    assert parse(text).why_not(NODE) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"tpu" in labels', "it has no label tpu"),
        ('"gpu" not in labels', "it has the label gpu"),
        ('"tpu" in accelerators and cpus > 1', "it has no accelerator tpu"),
        ("cpus >= 16", "its cpus is 8, where cpus >= 16 is asked for"),
        ("2 <= cpus < 8", "its cpus is 8, where cpus < 8 is asked for"),
        ('arch == "aarch64" and "tpu" in labels', 'its arch is x86_64, where arch == "aarch64" is asked for; '
         "it has no label tpu"),
        ("not kvm", "its kvm is true, where not kvm is asked for"),
        ("tower == 3", "it does not say tower, where tower == 3 is asked for"),
        ('cpus > 8 or "tpu" in labels', "its cpus is 8, where cpus > 8 is asked for; it has no label tpu "
         "(one of these would do)"),
        ("rack > 3", "its rack is r1, where rack > 3 is asked for"),
        ("cpus > 8 and cpus > 8", "its cpus is 8, where cpus > 8 is asked for"),
        ('not ("gpu" in labels)', 'its labels are gpu, ssd, where not ("gpu" in labels) is asked for'),
    ],
)  # fmt: skip
def test_what_it_does_not_meet_and_why(text, reason):
    assert not parse(text).matches(NODE)
    assert parse(text).why_not(NODE) == reason


# Rows of the tables in HTCondor's manual; u: no node defines it.
@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("u", UNDEFINED),
        ("u == 1", UNDEFINED),
        ("u != 1", UNDEFINED),
        ("u + 1 > 0", UNDEFINED),
        ("u in labels", UNDEFINED),
        ("u not in labels", UNDEFINED),
        ("not u", UNDEFINED),
        ("u and kvm", UNDEFINED),
        ("u and not kvm", False),
        ("not kvm and u", False),
        ("u or kvm", True),
        ("kvm or u", True),
        ("u or not kvm", UNDEFINED),
        ("u > 1 or u <= 1", UNDEFINED),
        ("1 < u < 2 or cpus == 8", True),
        # what ClassAds call ERROR
        ("rack > 3", UNDEFINED),
        ("not rack > 3", UNDEFINED),
        ("rack * 2 == 2", UNDEFINED),
        ("rack and kvm", UNDEFINED),
        ("gpus in rack", UNDEFINED),
        ("1e18" + " * 1e18" * 17 + " * (gpus - 2) == 0", False),  # infinity times 0
        ("1000000000000000000" + " * 1000000000000000000" * 17 + " * 1.5 > cpus", UNDEFINED),
    ],
)
def test_what_is_not_defined_is_neither_true_nor_false(text, worth):
    assert parse(text).expression.value(NODE) is worth
    assert parse(text).matches(NODE) is (worth is True)


def test_the_same_text_is_read_once():
    assert parse("cpus > 3") is parse("cpus > 3")
    assert parse("cpus > 3").names == {"cpus"}


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "position", "why"),
    [
        ("", 1, "ends too early"),
        ("cpus >= 2 and", 14, "ends too early"),
        ("cpus = 2", 6, "use =="),
        ("cpus > 2 && kvm", 11, "use and"),
        ("cpus > 2 || kvm", 11, "use or"),
        ("!kvm", 1, "use not"),
        ("kvm and cpus & 2", 9, "use and"),
        ("cpus is 2", 1, "use =="),
        ('"é" in labels and foo.bar', 19, "no parts"),
        ("  labels.append", 3, "no parts"),
        ("open(name)", 1, "called"),
        ("cpus > labels[0]", 8, "numbered parts"),
        ("cpus ** 9 > 1", 1, "pow"),
        ("cpus // 2 > 1", 1, "floordiv"),
        ("cpus << 9 > 1", 1, "lshift"),
        ("kvm if kvm else kvm", 1, "no if"),
        ("lambda: kvm", 1, "no functions"),
        ("[x for x in labels]", 1, "listcomp"),
        ("(x := 1) > cpus", 2, "namedexpr"),
        ('f"{cpus}" == name', 1, "filled in"),
        ('b"a" in labels', 1, "only numbers and quoted texts"),
        ("cpus == None", 9, "only numbers and quoted texts"),
        ("cpus in (cpus, 1)", 10, "in a list"),
        ("cpus in ((1, 2), 3)", 10, "in a list"),
        ("cpus in (true, 3)", 10, "in a list"),
        ("cpus in {1, 2}", 9, "a list is written"),
        ("cpus > 1e999", 8, "too large"),
        ("cpus > 99999999999999999999", 8, "too large"),
        ("memory_mib >= 2GiB", 15, "no unit"),
        ("cpus > 0x10", 8, "no unit"),
        ("cpus > 2j", 8, "no unit"),
        ("cpus > 1e3and kvm", 8, "no unit"),
        ("cpus > .5or kvm", 9, "no unit"),
        ('"a\\n" in labels', 3, "cannot be used"),
        ("cpus > 1 # so", 10, "cannot be used"),
        ("cpus > 1\n", 9, "cannot be used"),
        ('"\u202e" in labels', 2, "cannot be used"),
        ("(" * 300, 201, "not understood"),
        ("not " * 40 + "kvm", 121, "deep"),
        ("kvm and " * 124 + "kvm and 1 < cpus", LENGTH_MAX + 1, "1008 characters"),
        # never true, whatever the node
        ("1 < 2", 1, "asks nothing of a node"),
        ("true", 1, "asks nothing of a node"),
        ("cpus", 1, "not true or false"),
        ("arch", 1, "not true or false"),
        ("kvm and labels", 9, "not true or false"),
        ('cpus == "2"', 1, "cannot be compared"),
        ("kvm > kvm", 1, "cannot be compared"),
        ("kvm == 1", 1, "cannot be compared"),
        ('labels == "gpu"', 1, "a list"),
        ("labels < labels", 1, "a list"),
        ("cpus in labels and labels in labels", 20, "cannot be in"),
        ("cpus in arch", 1, "cannot be in"),
        ('"a" in cpus', 1, "cannot be in"),
        ('"a" * 9 in labels', 1, "not a number"),
        ("-arch == 1", 2, "not a number"),
    ],
)
def test_what_cannot_be_used_says_where_and_why(text, position, why):
    with pytest.raises(InvalidRequest) as refused:
        parse(text, "groups[0].requirement")
    assert refused.value.field == "groups[0].requirement"
    assert f"at character {position}" in refused.value.problem
    assert refused.value.details == {"position": position}
    assert why in refused.value.problem
    assert refused.value.possible


def test_names_that_no_node_knows_come_with_what_was_meant():
    nodes = [NODE, {"name": "host-2", "labels": ("nvme",), "tower": 1}]
    text = 'bandwith_mbit > 2 and gpu and nvme and racks == "r" and tower == 1 and zzzzzz == 1'
    assert hints(parse(text), nodes) == (
        "no node has an attribute bandwith_mbit; did you mean bandwidth_mbit?",
        'no node has an attribute gpu; did you mean "gpu" in labels?',
        'no node has an attribute nvme; did you mean "nvme" in labels?',
        "no node has an attribute racks; did you mean rack?",
        "no node has an attribute zzzzzz",
    )
    assert hints(parse("cpus > 1"), nodes) == ()
    assert hints(parse("tower > 1"), nodes) == ()


# ---------------------------------------------------------------- any text, any expression

WORDS = (
    "cpus", "labels", "kvm", "u", '"gpu"', "'", '"', "1", "2.5", "1e9", "9" * 30, "and", "or", "not", "in", "is", "if",
    "else", "for", "lambda", "lambda:", "True", "None", "==", "<", ">=", "!", "&", "=", ":=", "+", "-", "*", "**", "/",
    "(", ")", "[", "]", "{", "}", ",", ".", ":", "f'{", "__class__", "\\", "#", "\n", "\t", "é", "💥", "\0", "\ud800",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=LENGTH_MAX + 5),
    st.lists(st.sampled_from(WORDS), max_size=250).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=400).map("".join),
    st.tuples(st.sampled_from(WORDS), st.integers(1, 400)).map(lambda said: said[0] * said[1]),
)


@settings(max_examples=400)
@given(TEXTS)
@example("-" * 900 + "1 < cpus")
@example("1<" * 400 + "cpus")
@example("9" * 900 + " < cpus")
def test_any_text_is_read_or_refused_at_once(text):
    began = time.perf_counter()
    try:
        requirement = parse.__wrapped__(text)
    except InvalidRequest as error:
        refused = error
    else:
        refused = None
    if refused:
        assert refused.possible
        assert len(refused.problem) < 300
    else:
        assert bool(requirement.why_not(NODE)) is not requirement.matches(NODE)
        requirement.why_not({})
    assert time.perf_counter() - began < 0.5


def joined(words, between):
    return st.tuples(words, st.sampled_from(between), words).map(" ".join)


NUMBERS = st.recursive(
    st.one_of(
        st.sampled_from(["cpus", "memory_mib", "gpus"]),
        st.integers(0, 1 << 40).map(str),
        st.floats(0, 1e18).map(repr),
    ),
    lambda inner: st.one_of(joined(inner, "+-*").map("({})".format), inner.map("-{}".format)),
    max_leaves=6,
)
LETTERS = st.one_of(st.sampled_from(["arch", "name", "rack"]), st.text("abgpu1'é", max_size=5).map(lambda t: f'"{t}"'))
ITEMS = st.one_of(st.integers(-5, 10).map(str), st.text("gpu8", max_size=3).map(lambda t: f'"{t}"'))
LISTS = st.one_of(
    st.sampled_from(["labels", "accelerators"]),
    st.lists(ITEMS, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
    st.lists(ITEMS, min_size=2, max_size=4).map(lambda items: f"({', '.join(items)})"),
)
ORDERS = ("<", "<=", ">", ">=", "==", "!=")
TRUTHS = st.recursive(
    st.one_of(
        st.sampled_from(["kvm", "True", "False"]),
        joined(NUMBERS, ORDERS),
        st.tuples(joined(NUMBERS, ORDERS), st.sampled_from(ORDERS), NUMBERS).map(" ".join),
        joined(LETTERS, (*ORDERS, "in", "not in")),
        st.tuples(st.one_of(LETTERS, NUMBERS), st.sampled_from(["in", "not in"]), LISTS).map(" ".join),
    ),
    lambda inner: st.one_of(joined(inner, ("and", "or")), inner.map("not {}".format), inner.map("({})".format)),
    max_leaves=12,
)


@settings(max_examples=600)
@given(TRUTHS)
def test_where_all_is_defined_it_is_what_python_says(text):
    try:
        requirement = parse(text)
    except InvalidRequest as refused:
        # Of what may be generated here, only that is refused.
        if any(why in refused.problem for why in ("asks nothing", "deep", "characters")):
            return
        raise
    try:
        said = eval(text, {"__builtins__": {}}, dict(NODE))
    except OverflowError:
        said = False
    assert requirement.matches(NODE) is bool(said)
