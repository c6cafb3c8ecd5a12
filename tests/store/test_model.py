"""Any sequence of commits leaves the store as a dictionary would be, on both databases.

The model knows the rules in their shortest form: after a commit, no two live values share a name, an address or a
secret. What breaks one must be refused whole.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.builders import NOW, answer, event, image, lease, maintenance, node, token, workspace
from vws.core.errors import Conflict
from vws.core.lifecycle import State
from vws.core.site import Changes, Image, Lease, LeaseState, Maintenance, Node, Token, Workspace
from vws.ports import Filter
from vws.store.schema import live
from vws.store.sql import SqlStore

KINDS = {
    "leases": Lease,
    "workspaces": Workspace,
    "nodes": Node,
    "images": Image,
    "tokens": Token,
    "maintenances": Maintenance,
}
IDS = st.integers(1, 6)


def few(values, size=3):
    return st.lists(values, max_size=size, unique_by=lambda value: getattr(value, "id", value)).map(tuple)


# Numbers that share a remainder share a name or address: clashes are common.
LEASES = st.builds(
    lambda n, state, reason: lease(n, name=f"l{n % 4}", state=state, reason=reason),
    IDS,
    st.sampled_from(LeaseState),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
WORKSPACES = st.builds(
    lambda n, of, state, released: workspace(
        n, name=f"w{n}", lease=f"lse-{of:06d}", address=f"10.64.0.{n % 4}", state=state, released_at=released
    ),
    IDS,
    st.integers(1, 2),
    st.sampled_from(State),
    st.none() | st.just(NOW),
)
NODES = st.builds(lambda n, gone: node(n, name=f"n{n % 4}", removed_at=gone), IDS, st.none() | st.just(NOW))
TOKENS = st.builds(lambda n, gone: token(n, secret_sha256=f"s{n % 5}", revoked_at=gone), IDS, st.none() | st.just(NOW))
MAINTENANCES = st.builds(lambda n, gone: maintenance(n, removed_at=gone), IDS, st.none() | st.just(NOW))
EVENTS = st.builds(lambda n, of: event(n, lease=f"lse-{of:06d}"), st.integers(0, 99), IDS)
ANSWERS = st.builds(lambda n, subject: answer(n, subject=subject), IDS, st.sampled_from(["ann", "bob"]))
CHANGES = st.builds(
    Changes,
    leases=few(LEASES),
    workspaces=few(WORKSPACES),
    nodes=few(NODES),
    tokens=few(TOKENS),
    maintenances=few(MAINTENANCES),
    events=st.lists(EVENTS, max_size=3).map(tuple),
    answers=few(ANSWERS, 1),
)
GROUND = Changes(images=(image(),), nodes=(node(removed_at=NOW),), leases=tuple(lease(n, name=f"l{n}") for n in (1, 2)))


class Model:
    def __init__(self):
        self.values = {name: {} for name in KINDS}
        self.events, self.answers = [], {}
        self.revision = 0

    def commit(self, changes):
        """Apply, or return False for what breaks a rule."""
        after = {name: self.values[name] | {value.id: value for value in getattr(changes, name)} for name in KINDS}
        if any(self.clashes(after)) or any(self.key(a) in self.answers for a in changes.answers):
            return False
        self.values = after
        self.events += [replace(e, seq=len(self.events) + i) for i, e in enumerate(changes.events, 1)]
        self.answers |= {self.key(a): a for a in changes.answers}
        self.revision += 1
        return True

    def clashes(self, after):
        unique = {"leases": ["name"], "workspaces": ["name", "address"], "nodes": ["name"], "tokens": ["secret_sha256"]}
        for name, columns in unique.items():
            for column in columns:
                held = Counter(getattr(value, column) for value in after[name].values() if live(value))
                yield any(count > 1 for count in held.values())

    def is_member(self, workspace):
        return live(self.values["leases"][workspace.lease])

    @staticmethod
    def key(answer):
        return answer.subject, answer.client_token

    def sorted(self, name, wanted=lambda value: True):
        return tuple(value for _, value in sorted(self.values[name].items()) if wanted(value))


def agree(store, model):
    there = store.load()
    assert (there.revision, store.last_seq()) == (model.revision, len(model.events))
    for name, kind in KINDS.items():
        assert store.page(kind, Filter(), after=None, limit=100).items == model.sorted(name)
        assert store.page(kind, Filter(live=True), after=None, limit=100).items == model.sorted(name, live)
        loaded = model.is_member if name == "workspaces" else live
        assert getattr(there, name) == model.sorted(name, loaded)
    assert list(store.events(Filter(), after=0, limit=1000)) == model.events
    for (subject, client_token), kept in model.answers.items():
        assert store.answer(subject, client_token) == kept


def check(store, batches):
    model = Model()
    for changes in [GROUND, *batches]:
        before = model.revision
        if model.commit(changes):
            store.commit(changes, expected=before)
            news = store.changed_since(before)
            for name in KINDS:
                assert getattr(news, name) == tuple(sorted(getattr(changes, name), key=lambda value: value.id))
        else:
            with pytest.raises(Conflict):
                store.commit(changes, expected=before)
        agree(store, model)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(CHANGES, max_size=6))
def test_sqlite_agrees_with_the_model(sqlite_template, tmp_path, batches):
    shutil.copy(sqlite_template, tmp_path / "model.db")
    store = SqlStore.open(f"sqlite:///{tmp_path / 'model.db'}")
    try:
        check(store, batches)
    finally:
        store.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(CHANGES, max_size=6))
def test_postgresql_agrees_with_the_model(empty_postgres, batches):
    store = SqlStore.open(empty_postgres())
    try:
        check(store, batches)
    finally:
        store.close()
