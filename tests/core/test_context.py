"""The rules of a context, call by call."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from vws.core.broker import Context
from vws.core.context import (
    ContextRecord,
    ContextSpec,
    ContextState,
    DataSpec,
    Expected,
    FileSpec,
    Hook,
    HookSpec,
    Identity,
    Introduce,
    Nic,
    Ran,
    RoleSpec,
    Side,
    SideSpec,
    Ssh,
    ValueSpec,
)
from vws.core.context_document import Documents
from vws.core.context_status import MemberState, member_status
from vws.core.errors import Conflict, ContextClosed, Forbidden, InvalidRequest, NameTaken, NotFound, SecretUsed
from vws.core.tally import GAPS_MAX
from vws.core.waits import check_context, check_waits

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"k" * 32).decode()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def hook(which: Hook = Hook.ON_JOINED) -> HookSpec:
    return HookSpec(which, b64("#!/bin/sh\n"))


def identity(number: int, **more) -> Identity:
    return Identity((Nic("private", f"10.0.0.{number}"),), host_keys=(KEY,), user_keys=(KEY,), **more)


NFS = ContextSpec(
    "nfs",
    (
        RoleSpec(
            "server",
            SideSpec(hooks=(hook(), hook(Hook.ON_CHANGED))),
            SideSpec(files=(FileSpec("/etc/mounts", b64("x")),), hooks=(hook(), hook(Hook.ON_CHANGED))),
            publishes=(ValueSpec("key", secret=True),),
        ),
        RoleSpec("worker", SideSpec(hooks=(hook(),), after=("server",), uses=("key",))),
    ),
    (DataSpec("motd", b64("hello")),),
)
SERVER = Expected("server-1", ("server",), ("worker",))
WORKERS = tuple(Expected(f"worker-{number}", ("worker",), ("server",)) for number in (1, 2))


class Told:
    """A context with what its members would hear."""

    def __init__(self, spec=NFS, members=(SERVER, *WORKERS), **record) -> None:
        self.context = Context(ContextRecord("ctx-1", spec.name, "ann", spec, (), 0.0, **record))
        self.documents = Documents(self.context)
        for member in members:
            self.context.expect(member, 1)
        self.notices = []
        self.take(1)

    def take(self, now=10.0):
        moved = self.context.take(now)
        self.documents.renew()
        self.notices += [notice.kind for notice in moved.notices] if moved else []
        return moved

    def report_all(self, now=2.0):
        for number, member in enumerate(self.context.present(), 2):
            self.context.join(member.name, "a" * 64, now)
            self.context.report(member.name, identity(number), now)
        self.take(now)

    def lines(self, name, since=0):
        self.documents.renew()
        document = self.documents.document(name, since)
        if document is None:
            return None
        return [tuple(line.split("\t")) for line in document.text.decode().splitlines()]

    def ran(self, name, role, side, which=Hook.ON_JOINED, status=0, now=5.0, version=None):
        version = self.context.version if version is None else version
        self.context.ended(name, Ran(role, side, which, version, status, "why" if status else ""), now)
        self.take(now)

    def finish(self):
        self.ran("server-1", "server", Side.PROVIDER)
        self.context.publish("server-1", "key", b64("s3cret"), 5)
        for worker in ("worker-1", "worker-2"):
            self.ran(worker, "server", Side.CLIENT)
            self.ran(worker, "worker", Side.PROVIDER)

    @property
    def state(self):
        return self.context.record.state

    def status(self, name):
        return member_status(self.context, self.context.members[name])


# ---------------------------------------------------------------- what may wait for what


def chain(spec, *members):
    with pytest.raises(InvalidRequest) as refused:
        check_waits(spec, members)
    return refused.value


def test_what_is_sound_is_taken():
    check_context(NFS, [SERVER, *WORKERS])


def test_a_role_that_nobody_provides_is_refused_with_who_wants_it():
    error = chain(NFS, Expected("a-1", (), ("sever",)), SERVER, *WORKERS)
    assert error.problem == "a-1 requires sever, which no member provides"
    assert error.possible == "did you mean server?"


def test_a_value_that_nobody_publishes_is_refused():
    spec = ContextSpec("x", (RoleSpec("a", SideSpec(uses=("token",))),))
    assert chain(spec, Expected("a-1", ("a",))).problem == "the provider side of a uses token, which nobody publishes"


def test_a_barrier_of_a_role_that_is_not_there_is_refused():
    spec = ContextSpec("x", (RoleSpec("a", SideSpec(after=("b",))), RoleSpec("b")))
    assert "waits for b, which no member provides" in chain(spec, Expected("a-1", ("a",))).problem


@pytest.mark.parametrize(
    ("roles", "says"),
    [
        ([("a", ["b"], []), ("b", ["a"], [])], "a is after b, b is after a"),
        ([("a", ["b"], []), ("b", [], ["of-a"])], "a is after b, b uses of-a of a"),
        ([("a", ["a"], [])], "a is after a"),
        ([("a", [], ["of-a"])], "a uses of-a of a"),
        ([("x", ["a"], []), ("a", ["b"], []), ("b", ["c"], []), ("c", ["a"], [])], "a is after b, b is after c, c is"),
    ],
)
def test_a_cycle_is_refused_with_the_chain(roles, says):
    specs = [
        RoleSpec(
            name, SideSpec(hooks=(hook(),), after=tuple(after), uses=tuple(uses)), publishes=(ValueSpec(f"of-{name}"),)
        )
        for name, after, uses in roles
    ]
    error = chain(ContextSpec("x", tuple(specs)), *(Expected(f"{name}-1", (name,)) for name, *_ in roles))
    assert says in error.problem
    assert error.problem.startswith("roles wait for each other: ")


def test_members_may_require_each_other_and_clients_wait_in_circles():
    spec = ContextSpec("x", (RoleSpec("a", client=SideSpec(hooks=(hook(),))), RoleSpec("b", SideSpec(after=("a",)))))
    check_waits(spec, [Expected("a-1", ("a",), ("b",)), Expected("b-1", ("b",), ("a",))])


def test_a_long_chain_is_no_cycle():
    roles = [RoleSpec(f"r{i}", SideSpec(after=(f"r{i + 1}",) if i < 99 else ())) for i in range(100)]
    check_context(ContextSpec("x", tuple(roles)), [Expected(f"m-{i}", (f"r{i}",)) for i in range(100)])


BIG = base64.b64encode(bytes(10_000_000)).decode()


@pytest.mark.parametrize(
    ("spec", "members", "says"),
    [
        (NFS, [], "has 0 members"),
        (NFS, [SERVER, SERVER], "two members called server-1"),
        (NFS, [Expected("../etc")], "cannot be a name"),
        (NFS, [Expected("a-1", ("../../root",))], "cannot be a name"),
        (NFS, [Expected("a-1", (), ("site:moon",))], "does not know"),
        (ContextSpec("x", (RoleSpec("../x"),)), [SERVER], "cannot be a name"),
        (ContextSpec("x", data=(DataSpec("d", BIG),)), [Expected("a")], "data.d has 10000000 bytes"),
        (ContextSpec("x", data=(DataSpec("site-dns", ""),)), [Expected("a")], "what the site provides"),
        (ContextSpec("x", data=(DataSpec("d", "no base64!"),)), [Expected("a")], "not base64"),
        (ContextSpec("x", (RoleSpec("a"), RoleSpec("a"))), [Expected("a")], "two roles called a"),
        (ContextSpec("x", within_s=0), [Expected("a")], "context.within is 0"),
        (ContextSpec("x", domain="-bad-"), [Expected("a")], "cannot be a domain"),
        (
            ContextSpec("x", (RoleSpec("a", publishes=(ValueSpec("v"),)), RoleSpec("b", publishes=(ValueSpec("v"),)))),
            [Expected("a", ("a",))],
            "both publish v",
        ),
        *(
            (ContextSpec("x", (RoleSpec("a", SideSpec(files=(FileSpec(path, ""),))),)), [Expected("a")], "file's path")
            for path in ("etc/x", "/etc/../x", "/etc/\tx", "/", "/etc//x", "/x\n", "/" + "x" * 300)
        ),
        (ContextSpec("x", (RoleSpec("a", SideSpec(files=(FileSpec("/x", "", "99"),))),)), [Expected("a")], "no mode"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_booted(spec, members, says):
    with pytest.raises(InvalidRequest, match=says):
        check_context(spec, members)


def test_all_contents_together_have_a_limit():
    data = tuple(DataSpec(f"d{i}", base64.b64encode(bytes(1 << 20)).decode()) for i in range(5))
    with pytest.raises(InvalidRequest, match="in all"):
        check_context(ContextSpec("x", data=data), [Expected("a")])


# ---------------------------------------------------------------- who hears what


def test_a_role_is_told_when_its_last_provider_has_reported():
    told = Told()
    context = told.context
    context.report("worker-1", identity(3), 2)
    context.report("server-1", identity(2), 2)
    assert ("role", "server", "5") not in told.lines("server-1")
    assert [line for line in told.lines("worker-1") if line[0] == "role"] == [("role", "server", str(context.version))]
    since = context.version
    assert told.lines("worker-1", since) is None
    context.report("worker-2", identity(4), 2)
    assert ("role", "member", str(context.version)) in told.lines("worker-1", since)
    assert len([line for line in told.lines("server-1", since) if line[:2] == ("member", "worker")]) == 2


def test_an_identity_said_again_is_no_news_and_a_changed_one_is():
    told = Told()
    told.report_all()
    since = told.context.version
    told.context.report("worker-1", identity(3), 3)
    assert told.context.version == since
    told.context.report("worker-1", identity(33), 3)
    heard = told.lines("server-1", since)
    assert {line[2] for line in heard if line[0] == "member"} == {"worker-1"}
    assert {line[4] for line in heard if line[0] == "member"} == {"10.0.0.33"}


def test_growth_is_told_as_a_whole_and_to_those_who_asked_in_between_too():
    told = Told()
    told.report_all()
    before = told.context.version
    told.context.expect(Expected("worker-3", ("worker",), ("server",)), 3)
    told.context.leave("worker-1", 3)
    told.context.report("worker-2", identity(44), 3)
    between = told.context.version
    assert told.lines("server-1", before) is None, "not yet"
    told.context.report("worker-3", identity(5), 4)
    for since in (before, before + 1, between):
        heard = told.lines("server-1", since)
        assert ("gone", "worker", "worker-1") in heard, since
        assert {line[2] for line in heard if line[:2] == ("member", "worker")} == {"worker-2", "worker-3"}, since
    assert told.lines("server-1", told.context.version) is None
    fresh = told.lines("server-1", 0)
    assert not [line for line in fresh if line[0] == "gone"], "who begins anew never heard of it"


def test_many_gaps_are_run_together_and_nothing_is_lost():
    told = Told()
    told.report_all()
    asked = {told.context.version}
    for number in range(3, GAPS_MAX + 10):
        told.context.expect(Expected(f"worker-{number}", ("worker",), ("server",)), 3)
        asked.add(told.context.version)
        told.context.report(f"worker-{number}", identity(number), 3)
    assert len(told.context.roles["worker"].state.gaps) == GAPS_MAX
    for since in asked:
        heard = {line[2] for line in told.lines("server-1", since) if line[:2] == ("member", "worker")}
        newer = {m.name for m in told.context.members.values() if "worker" in m.name and m.version > since}
        assert newer <= heard


def test_who_restored_elsewhere_is_asked_again():
    told = Told()
    told.report_all()
    since = told.context.version
    told.context.renew("worker-1", 50)
    assert ("report",) in told.lines("worker-1", since)
    told.context.renew("worker-1", 51)
    told.context.report("worker-1", identity(3), 52)
    assert ("report",) not in told.lines("worker-1", 0)
    assert ("member", "worker", "worker-1", "private", "10.0.0.3", "worker-1") in told.lines("server-1", since)


def test_who_sleeps_is_never_late_and_is_asked_again_when_he_wakes():
    told = Told()
    told.report_all(now=2)
    asleep = replace(WORKERS[0], start=None)
    told.context.expect(asleep, 3)
    told.context.pass_time(1_000_000)
    assert not told.context.members["worker-1"].late
    assert told.context.members["worker-2"].late, "who is awake has had its time for its hooks"
    since = told.context.version
    told.context.expect(asleep, 1_000_001)
    assert told.context.version == since, "nothing new"
    told.context.expect(WORKERS[0], 1_000_002)
    assert ("report",) in told.lines("worker-1", since)
    told.context.pass_time(1_000_602)
    assert not told.context.members["worker-1"].late
    told.context.pass_time(1_000_603)
    assert told.context.members["worker-1"].late == "worker-1 has not reported within 600 s"


def test_who_comes_back_with_another_address_is_asked_again_and_others_follow():
    told = Told()
    told.report_all()
    since, worker = told.context.version, told.context.members["worker-1"].expected
    told.context.expect(worker, 50)
    assert told.context.version == since, "nothing has changed"
    told.context.expect(replace(worker, addresses=("10.0.0.3",)), 51)
    assert ("report",) in told.lines("worker-1", since)
    assert told.lines("server-1", since) is None, "while the role is not whole nothing new of it is told"
    told.context.report("worker-1", identity(3), 52)
    heard = told.lines("server-1", since)
    assert ("member", "worker", "worker-1", "private", "10.0.0.3", "worker-1") in heard
    assert any(line[:2] == ("role", "worker") for line in heard), "so it runs on-changed"


def test_only_what_is_required_reaches_a_member():
    spec = ContextSpec("x", NFS.roles, introduce=Introduce.REQUIRED, ssh=Ssh.NONE)
    told = Told(spec, (SERVER, *WORKERS, Expected("other-1")))
    told.report_all()
    told.context.publish("server-1", "key", b64("s3cret"), 5)
    assert {line[0] for line in told.lines("other-1")} == {"vws-context", "self", "within", "end"}
    heard = told.lines("worker-1")
    assert {line[1:3] for line in heard if line[0] == "member"} == {("server", "server-1")}
    assert [line[1] for line in heard if line[0] == "host-key"] == ["server-1"]
    assert not [line for line in heard if line[0] == "user-key"]
    assert ("value", "key", b64("s3cret")) in heard
    assert not [line for line in told.lines("server-1") if line[0] == "value"]


def test_information_reaches_who_requires_it():
    told = Told(ContextSpec("x"), (Expected("a", (), ("site:dns",)), Expected("b")))
    informed = (DataSpec("site-dns", b64("10.0.0.53\n")), DataSpec("vo-keys", b64(KEY)))
    told.context.record = ContextRecord("ctx-1", "x", "ann", ContextSpec("x"), informed, 0.0)
    assert [line[1] for line in told.lines("a") if line[0] == "data"] == ["site-dns"]
    assert not [line for line in told.lines("b") if line[0] == "data"]


def test_a_member_ahead_of_the_record_hears_all_again():
    told = Told()
    told.report_all()
    assert told.lines("worker-1", 10_000) == told.lines("worker-1", 0)


def test_a_barrier_passes_and_waits_again_for_another_provider():
    told = Told()
    told.report_all()
    since = told.context.version
    told.ran("server-1", "server", Side.PROVIDER, status=1)
    assert told.lines("worker-1", since) is None
    told.ran("server-1", "server", Side.PROVIDER)
    assert ("passed", "server") in told.lines("worker-1", since)
    since = told.context.version
    told.context.expect(Expected("server-2", ("server",), ("worker",)), 6)
    assert ("pending", "server") in told.lines("worker-1", since)
    told.context.report("server-2", identity(9), 6)
    told.ran("server-2", "server", Side.PROVIDER)
    assert ("passed", "server") in told.lines("worker-1", since)


# ---------------------------------------------------------------- the whole


def test_ready_is_said_when_everybody_has_heard_and_every_hook_has_ended_well():
    told = Told()
    told.report_all()
    assert told.state is ContextState.OPEN
    told.finish()
    assert told.state is ContextState.READY
    assert told.notices.count("context.ready") == 1
    assert told.status("worker-1").state is MemberState.READY


def test_without_hooks_ready_is_when_the_last_has_asked_for_more():
    told = Told(ContextSpec("x"), (Expected("a"), Expected("b")))
    told.report_all()
    version = told.context.version
    told.context.heard("a", version, 3)
    told.take()
    assert told.state is ContextState.OPEN
    told.context.heard("b", version - 1, 3)
    told.take()
    assert told.state is ContextState.OPEN, "it has not the last document"
    told.context.heard("b", version + 7, 3)
    told.take()
    assert told.state is ContextState.OPEN, "there is no such version"
    told.context.heard("b", version, 3)
    told.take()
    assert told.state is ContextState.READY


def test_growth_is_ready_when_those_with_on_changed_have_run_it():
    told = Told()
    told.report_all()
    told.finish()
    told.context.expect(Expected("worker-3", ("worker",), ("server",)), 7)
    told.take()
    assert told.state is ContextState.OPEN
    told.context.join("worker-3", "c" * 64, 8)
    told.context.report("worker-3", identity(7), 8)
    told.ran("worker-3", "server", Side.CLIENT)
    told.ran("worker-3", "worker", Side.PROVIDER)
    for worker in ("worker-1", "worker-2"):
        told.ran(worker, "server", Side.CLIENT, Hook.ON_CHANGED)
    assert told.state is ContextState.OPEN
    assert told.status("server-1").state is MemberState.RUNNING
    told.ran("server-1", "server", Side.PROVIDER, Hook.ON_CHANGED)
    assert told.state is ContextState.READY


def test_a_failed_hook_fails_the_context_until_it_is_mended_or_the_member_has_left():
    for mend in (lambda t: t.ran("worker-1", "server", Side.CLIENT), lambda t: t.context.leave("worker-1", 9)):
        told = Told()
        told.report_all()
        told.ran("worker-1", "server", Side.CLIENT, status=3)
        assert told.state is ContextState.FAILED
        assert told.context.record.reason == "worker-1: on-joined of server (client) ended with 3: why"
        assert told.status("worker-1").state is MemberState.FAILED
        mend(told)
        told.take()
        assert told.state is ContextState.OPEN
        assert told.notices.count("context.failed") == 1


def test_who_does_not_report_in_time_is_named():
    told = Told()
    told.context.report("server-1", identity(2), 2)
    told.context.report("worker-1", identity(3), 2)
    told.context.pass_time(600)
    told.take(600)
    assert told.state is ContextState.OPEN
    told.context.pass_time(602)
    told.take(602)
    assert told.state is ContextState.FAILED
    assert told.context.record.reason == "worker-2 has not reported within 600 s"
    assert told.status("worker-2").state is MemberState.LATE
    waits = {(wait.what, wait.members) for wait in told.status("worker-1").waits}
    assert ("role member", ("worker-2",)) in waits
    told.context.report("worker-2", identity(4), 700)
    told.take(700)
    assert told.state is ContextState.OPEN


def test_the_time_to_report_counts_from_the_start_of_the_machine():
    later, unknown = Expected("a", start=5000.0), Expected("b", start=None)
    told = Told(ContextSpec("x"), (later, unknown))
    told.context.pass_time(5500)
    told.take()
    assert told.state is ContextState.OPEN
    told.context.pass_time(5601)
    told.take()
    assert told.context.record.reason == "a has not reported within 600 s"
    told.context.expect(Expected("b", start=5300.0), 5602)
    told.context.pass_time(6201)
    told.take()
    assert "b has not reported" not in told.context.record.reason
    told.context.pass_time(6203)
    told.take()
    assert "b has not reported" in told.context.record.reason


def test_a_hook_that_never_ends_is_named_but_not_one_that_waits():
    told = Told()
    told.report_all(now=2)
    for name in ("server-1", "worker-1", "worker-2"):
        told.context.heard(name, told.context.version, 3)
    told.context.pass_time(700)
    told.take(700)
    assert told.context.record.reason == "server-1 has not ended its hooks (provider of server) within 600 s"


# ---------------------------------------------------------------- refusals


def test_a_secret_is_traded_once():
    told = Told()
    told.context.join("worker-1", "a" * 64, 2)
    told.context.join("worker-1", "a" * 64, 3)
    for now in (4, 5, 4000):
        with pytest.raises(SecretUsed):
            told.context.join("worker-1", "b" * 64, now)
    told.take()
    assert told.notices == ["context.joined", "context.secret-refused", "context.secret-refused"]
    assert told.context.members["worker-1"].token_sha256 == "a" * 64


def test_a_name_that_another_goes_by_is_refused():
    told = Told()
    told.context.report("worker-1", identity(3, name="A.example.org"), 2)
    for name in ("a.example.org", "a.example.org.", "server-1"):
        with pytest.raises(NameTaken):
            told.context.report("worker-2", identity(4, name=name), 2)
    told.context.leave("worker-1", 3)
    told.context.report("worker-2", identity(4, name="a.example.org"), 4)
    assert ("self", "worker-2", "a.example.org") in told.lines("worker-2")


def test_values_are_their_roles_and_their_first_publishers():
    told = Told(members=(SERVER, Expected("server-2", ("server",)), *WORKERS))
    with pytest.raises(Forbidden):
        told.context.publish("worker-1", "key", b64("mine"), 3)
    with pytest.raises(NotFound):
        told.context.publish("server-1", "kay", b64("mine"), 3)
    told.context.publish("server-1", "key", b64("one"), 3)
    with pytest.raises(Conflict, match="published by server-1"):
        told.context.publish("server-2", "key", b64("two"), 3)
    version = told.context.version
    told.context.publish("server-1", "key", b64("one"), 4)
    assert told.context.version == version
    told.context.leave("server-1", 5)
    assert ("value", "key", b64("one")) in told.lines("worker-1")
    told.context.publish("server-2", "key", b64("two"), 6)
    assert ("value", "key", b64("two")) in told.lines("worker-1")


def test_what_is_no_side_of_the_member_did_not_run():
    told = Told()
    with pytest.raises(InvalidRequest, match="has no client side of worker"):
        told.context.ended("server-1", Ran("worker", Side.CLIENT, Hook.ON_JOINED, 1, 0), 2)
    with pytest.raises(InvalidRequest, match="version"):
        told.context.ended("server-1", Ran("server", Side.PROVIDER, Hook.ON_JOINED, 10_000, 0), 2)


def test_after_the_end_nothing_changes_and_secrets_are_forgotten():
    told = Told()
    told.report_all()
    told.context.publish("server-1", "key", b64("s3cret"), 5)
    told.context.close(6)
    told.context.close(7)
    moved = told.take(7)
    assert moved.record.closed_at == 6
    assert b64("s3cret") not in repr(moved.members)
    version = told.context.version
    for call in (
        lambda: told.context.report("worker-1", identity(9), 8),
        lambda: told.context.join("worker-1", "a" * 64, 8),
        lambda: told.context.expect(Expected("x"), 8),
    ):
        with pytest.raises(ContextClosed):
            call()
    told.context.leave("worker-1", 8)
    assert told.context.version == version
    assert [line[0] for line in told.lines("worker-1", version)] == ["vws-context", "end"]
    assert told.take(9) is None


def test_a_member_with_other_roles_is_another_member():
    told = Told()
    for _ in range(2):
        with pytest.raises(Conflict, match="other roles"):
            told.context.expect(Expected("worker-1", ("server",)), 2)
        told.context.leave("worker-1", 2)
    told.context.expect(Expected("worker-1", ("worker",), ("server",)), 3)
    assert told.context.members["worker-1"].left_at is None
