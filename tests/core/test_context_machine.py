"""Whatever happens in whatever order: the record tells the same story, and who asks often enough knows the truth.

Members come, go, report, move and ask at random, some of them rarely. Each is played by an agent that does no more
than take over what it hears.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vws.core.broker import Context
from vws.core.context import (
    MEMBER,
    ContextRecord,
    ContextSpec,
    ContextState,
    Expected,
    Hook,
    HookSpec,
    Identity,
    Introduce,
    Nic,
    Ran,
    RoleSpec,
    SideSpec,
    ValueSpec,
)
from vws.core.context_document import Documents
from vws.core.errors import Conflict, ContextClosed
from vws.core.wire import from_json, to_json

HOOKS = (HookSpec(Hook.ON_JOINED, ""), HookSpec(Hook.ON_CHANGED, ""))
ROLES = (
    RoleSpec("head", SideSpec(hooks=HOOKS), SideSpec(hooks=HOOKS[:1]), (ValueSpec("key", secret=True),)),
    RoleSpec("worker", SideSpec(hooks=HOOKS[:1], after=("head",), uses=("key",))),
)
KINDS = {
    "head": Expected("", ("head",), ("worker",)),
    "worker": Expected("", ("worker",), ("head",)),
    "odd": Expected("", (), ("head",)),
}
NAMES = [f"{kind}-{number}" for kind in KINDS for number in (1, 2, 3)]
names = st.sampled_from(NAMES)


def expected(name):
    kind = KINDS[name.rpartition("-")[0]]
    return Expected(name, kind.provides, kind.requires)


@dataclass
class Agent:
    """What one member has heard. lists: per role, address by name."""

    version: int = 0
    lists: dict[str, dict[str, str]] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    closed: bool = False

    def hear(self, text: bytes) -> None:
        lines = [tuple(line.split("\t")) for line in text.decode().splitlines()]
        assert lines[-1] == ("end",)
        assert lines[0][0] == "vws-context"
        self.version, self.closed = int(lines[0][2]), lines[0][3] == "closed"
        for word, *rest in lines[1:]:
            if word == "member":
                self.lists.setdefault(rest[0], {})[rest[1]] = rest[3]
            elif word == "gone":
                self.lists.get(rest[0], {}).pop(rest[1], None)
            elif word == "passed":
                self.passed.add(rest[0])
            elif word == "pending":
                self.passed.discard(rest[0])
            elif word == "value":
                self.values[rest[0]] = rest[1]


class Life(RuleBasedStateMachine):
    @initialize(introduce=st.sampled_from(Introduce))
    def begin(self, introduce):
        self.now = 1.0
        spec = ContextSpec("c", ROLES, introduce=introduce, within_s=50)
        record = ContextRecord("ctx-1", "c", "ann", spec, (), 0.0)
        self.draft, self.told = Context(record), Context(record)
        self.documents = Documents(self.told)
        self.agents: dict[str, Agent] = {}
        self.kept = {}
        self.record = record
        for name in ("head-1", "worker-1"):
            self.comes(name)

    def commit(self):
        """What was decided is recorded as JSON, and told from the record."""
        self.now += 1
        moved = self.draft.take(self.now)
        if moved is None:
            return
        assert moved.record.revision == self.record.revision + 1
        self.record = from_json(ContextRecord, to_json(moved.record))
        for member in moved.members:
            self.kept[member.name] = from_json(type(member), to_json(member))
        self.told.apply(self.record, moved.members)
        self.documents.renew()

    @rule(name=names)
    def comes(self, name):
        try:
            member = self.draft.members.get(name)
            anew = member is None or member.left_at is not None
            self.draft.expect(expected(name), self.now)
        except ContextClosed:
            return
        if anew:
            self.agents[name] = Agent()
        self.commit()

    @rule(name=names)
    def goes(self, name):
        self.draft.leave(name, self.now)
        self.commit()

    @rule(name=names)
    def is_doubted(self, name):
        if self.is_here(name):
            self.draft.renew(name, self.now)
            self.commit()

    @rule(name=names, number=st.integers(1, 3))
    def reports(self, name, number):
        if self.is_here(name):
            self.draft.report(name, Identity((Nic("n", f"10.0.0.{number}"),)), self.now)
            self.commit()

    @rule(name=names, several=st.lists(names))
    def several_report_in_one_batch(self, name, several):
        for each in filter(self.is_here, {name, *several}):
            self.draft.report(each, Identity((Nic("n", f"10.9.0.{len(each)}"),)), self.now)
        self.commit()

    @rule(name=names, content=st.sampled_from(["a", "b"]))
    def publishes(self, name, content):
        if self.is_here(name) and name.startswith("head"):
            try:
                self.draft.publish(name, "key", base64.b64encode(content.encode()).decode(), self.now)
            except Conflict:
                assert self.draft.value("key") is not None
            self.commit()

    @rule(name=names, which=st.sampled_from([Hook.ON_JOINED, Hook.ON_CHANGED]), status=st.sampled_from([0, 0, 0, 1]))
    def runs(self, name, which, status):
        if self.is_here(name) and self.agents[name].version:
            for role, side, _ in self.draft.sides(self.draft.members[name]):
                self.draft.ended(name, Ran(role.name, side, which, self.agents[name].version, status), self.now)
            self.commit()

    @rule(name=names)
    def asks(self, name):
        agent = self.agents.get(name)
        if agent is None:
            return
        self.draft.heard(name, agent.version, self.now)
        self.commit()
        document = self.documents.document(name, agent.version)
        assert (document is not None) == self.documents.has_news(name, agent.version)
        if document is not None:
            agent.hear(document.text)
            if not agent.closed:
                assert self.documents.document(name, agent.version) is None, "nothing is told twice"

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds):
        self.now += seconds
        self.draft.pass_time(self.now)
        self.commit()

    @rule(chance=st.integers(0, 19))
    def may_close(self, chance):
        if not chance:
            self.draft.close(self.now)
            self.commit()

    def is_here(self, name):
        member = self.draft.members.get(name)
        return member is not None and member.left_at is None and not self.draft.closed

    # ------------------------------------------------------------ what always holds

    @invariant()
    def the_record_alone_gives_the_same_answers(self):
        anew = Context(self.record, self.kept.values())
        documents = Documents(anew)
        assert anew.take(self.now) is None, "nothing follows from the record that is not in it"
        for name, agent in self.agents.items():
            for since in {0, agent.version, max(0, agent.version - 3)}:
                mine, theirs = documents.document(name, since), self.documents.document(name, since)
                assert (mine and mine.text) == (theirs and theirs.text)

    @invariant()
    def who_has_asked_knows_the_truth_and_no_more(self):
        for name, agent in self.agents.items():
            if not self.is_here(name) or agent.version == 0:
                continue
            member = self.told.members[name]
            requires = self.told.requires(member)
            assert set(agent.lists) <= set(requires)
            if self.documents.has_news(name, agent.version):
                continue
            for role in requires:
                tally = self.told.roles.get(role)
                if tally is not None and tally.state.whole:
                    truth = {n: self.told.members[n].identity.nics[0].address for n in tally.providers}
                    assert agent.lists.get(role, {}) == truth, (name, role)
            awaited = {r for side in self.told.sides(member) for r in self.told.awaits(*side)}
            assert agent.passed == {r for r in awaited if r in self.told.roles and self.told.roles[r].state.passed}
            uses = any("key" in spec.uses for *_, spec in self.told.sides(member))
            value = self.told.value("key")
            assert agent.values == ({"key": value.content_base64} if value and uses else {})

    @invariant()
    def a_role_is_whole_when_nobody_is_missing(self):
        for role, tally in self.told.roles.items():
            here = [m for m in self.told.present() if role == MEMBER or role in m.expected.provides]
            assert tally.providers == {m.name for m in here}
            if tally.state.whole:
                assert not any(m.due for m in here)

    @invariant()
    def ready_means_ready(self):
        if self.record.state is ContextState.READY:
            for member in self.told.present():
                assert self.told.is_done(member)
                assert not any(ran.status for ran in member.ran)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
