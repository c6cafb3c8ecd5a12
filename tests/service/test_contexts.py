"""Contexts over a real store, on SQLite and PostgreSQL: batches, restarts, two processes, certificates."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import stat
import threading
import time
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.service.conftest import ADMIN, ANN, BOB, Rig
from vws.core.context import (
    ContextSpec,
    ContextState,
    Expected,
    Hook,
    HookSpec,
    Identity,
    Nic,
    Ran,
    RoleSpec,
    Side,
    SideSpec,
    ValueSpec,
)
from vws.core.errors import (
    ClientTokenReused,
    ContextClosed,
    Forbidden,
    InvalidRequest,
    NameTaken,
    NotFound,
    SecretUsed,
    Unauthenticated,
    Unavailable,
)
from vws.core.information import Informed, SiteInformation
from vws.core.membership import VO, User
from vws.ports import ContextChanges, Filter, StaleRevision
from vws.service.certificates import make_ca, make_server
from vws.service.once import Once
from vws.service.site import Settings

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"k" * 32).decode()
PAIR = (Expected("a", ("head",)), Expected("b", (), ("head",)))
INFORMED = Informed(
    SiteInformation(("10.0.0.53",), ("ntp.example.org",), "example.internal"),
    {"physics": VO(("ann", "carl"))},
    {"ann": User(keys=(KEY,), subject="/DC=org/CN=Ann"), "carl": User(keys=(KEY,))},
)


class Process:
    """A service process's contexts, whose writing thread is the test's own unless `start` is called."""

    def __init__(self, store, directory):
        self.rig = Rig(store, directory, Settings(informed=INFORMED))
        self.contexts = self.rig.services.contexts
        self.contexts.start()

    def open(self, name="c", members=PAIR, owner="ann", **more):
        return self.contexts.open(owner, ContextSpec(name, **more), members)

    def joined(self, id, name, token=None):
        token = token or f"{id}{name}"
        self.contexts.join(self.contexts.secret_of_member(id, name), digest(token)).result(10)
        return self.contexts.authenticate(token)

    def reported(self, id, *names):
        heres = [self.joined(id, name) for name in names]
        for number, here in enumerate(heres, 2):
            self.contexts.report(here, identity(number)).result(10)
        return heres

    def kinds(self):
        return [event.kind for event in self.rig.store.events(Filter(), after=0, limit=1000)]


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def identity(number):
    return Identity((Nic("n", f"10.0.0.{number}"),))


@pytest.fixture
def process(store, tmp_path):
    process = Process(store, tmp_path)
    yield process
    process.contexts.stop()


def again(process, store, tmp_path):
    """What a kill and a new start are to the record."""
    process.contexts.stop()
    return Process(store, tmp_path)


def test_a_new_process_goes_on_where_the_last_one_ended(process, store, tmp_path):
    id = process.open()
    one, two = process.reported(id, "a", "b")
    before = process.contexts.document(two, 0)
    later = again(process, store, tmp_path)
    try:
        assert later.contexts.authenticate(f"{id}b") == two
        assert later.contexts.document(two, 0).text == before.text
        later.contexts.report(one, identity(9)).result(10)
        assert b"10.0.0.9" in later.contexts.document(two, before.version).text
        assert later.contexts.secret_of_member(id, "a") == process.contexts.secret_of_member(id, "a")
    finally:
        later.contexts.stop()


def test_the_key_is_the_owners_alone(process, tmp_path):
    assert stat.S_IMODE((tmp_path / "context.key").stat().st_mode) == 0o600


def test_what_arrives_while_a_batch_is_written_makes_the_next(process, store):
    id = process.open("many", tuple(Expected(f"m-{n}") for n in range(200)))
    commits, commit = [], store.contexts.commit
    gate = threading.Event()

    def counted(changes):
        commits.append(len(changes.members))
        gate.wait(10)
        return commit(changes)

    store.contexts.commit = counted
    try:
        secret = process.contexts.secret_of_member
        joins = [process.contexts.join(secret(id, f"m-{n}"), digest(f"{n}")) for n in range(200)]
        gate.set()
        assert {done.result(10)[1] for done in joins} == {"many"}
    finally:
        del store.contexts.commit
    assert sum(commits) == 200
    assert len(commits) <= 5


def test_a_bad_word_keeps_no_other_waiting(process):
    id = process.open()
    here = process.joined(id, "a")
    done = [
        process.contexts.report(here, Identity(())),
        process.contexts.report(here, identity(7)),
        process.contexts.publish(here, "nothing", b"x"),
    ]
    with pytest.raises(InvalidRequest):
        done[0].result(10)
    assert done[1].result(10) is None
    with pytest.raises(NotFound):
        done[2].result(10)


def test_what_was_not_committed_was_not_said(process, store):
    id = process.open()
    here = process.joined(id, "a")
    before, commit = process.contexts.document(here, 0).text, store.contexts.commit

    def full(changes):
        raise Unavailable("the disk is full; nothing was changed")

    store.contexts.commit = full
    with pytest.raises(Unavailable):
        process.contexts.report(here, identity(3)).result(10)
    assert process.contexts.document(here, 0).text == before
    store.contexts.commit = commit
    process.contexts.report(here, identity(3)).result(10)
    assert process.contexts.document(here, 0).text != before


def test_two_processes_on_one_record(store, tmp_path):
    one = Process(store, tmp_path)
    two = Process(store, tmp_path)
    try:
        id = one.open()
        # The second has not heard of it, and finds it when its first guest comes.
        b = two.joined(id, "b")
        a = one.joined(id, "a")
        for number in range(5):
            one.contexts.report(a, identity(10 + number)).result(10)
            two.contexts.report(b, identity(20 + number)).result(10)
        kept = store.contexts.get(id)
        assert {m.name: m.identity.nics[0].address for m in kept.members} == {"a": "10.0.0.14", "b": "10.0.0.24"}
        assert two.contexts.document(b, 0).text.count(b"10.0.0.14") == 2
        two.contexts.close_context(id)
        one.contexts._writer.refresh(lambda: None)
        with pytest.raises((ContextClosed, NotFound)):
            one.contexts.report(a, identity(3)).result(10)
    finally:
        one.contexts.stop()
        two.contexts.stop()


def test_a_batch_on_old_ground_is_refused_by_the_record(process, store):
    id = process.open()
    record = store.contexts.get(id).record
    with pytest.raises(StaleRevision):
        store.contexts.commit(ContextChanges((record,)))


def test_open_contexts_have_names_of_their_own(process):
    id = process.open("slurm")
    with pytest.raises(NameTaken):
        process.open("slurm", owner="bob")
    process.contexts.close_context(id)
    process.contexts.close_context(id)
    assert process.open("slurm", owner="bob") != id


def test_members_come_and_go_in_one_step(process):
    id = process.open()
    one, two = process.reported(id, "a", "b")
    version = process.contexts.document(two, 0).version
    with pytest.raises(InvalidRequest):
        process.contexts.alter(id, expect=[Expected("c"), Expected("../x")], leave=["a"])
    assert process.contexts.document(two, version) is None, "nothing of it"
    process.contexts.alter(id, expect=[Expected("c", ("head",), workspace="wsp-1")], leave=["a"])
    with pytest.raises(ContextClosed):
        process.contexts.report(one, identity(1)).result(10)
    process.contexts.join(process.contexts.secret_of("wsp-1"), digest("c")).result(10)
    process.contexts.report(process.contexts.authenticate("c"), identity(5)).result(10)
    assert b"gone\thead\ta\n" in process.contexts.document(two, version).text


def test_a_secret_of_elsewhere_or_of_the_past(process, store, tmp_path_factory):
    id = process.open()
    secret = process.contexts.secret_of_member(id, "a")
    process.contexts.join(secret, digest("x")).result(10)
    with pytest.raises(SecretUsed):
        process.contexts.join(secret, digest("y")).result(10)
    elsewhere = Process(store, tmp_path_factory.mktemp("other-site"))
    elsewhere.contexts.stop()
    for wrong in (elsewhere.contexts.secret_of_member(id, "b"), "", ".", f"{id}/b.", secret + "x"):
        with pytest.raises(Unauthenticated):
            process.contexts.join(wrong, digest("z"))
    process.contexts.close_context(id)
    with pytest.raises(ContextClosed):
        process.contexts.join(secret, digest("x")).result(10)
    assert process.kinds().count("context.secret-refused") == 1


def test_a_log_is_kept_to_its_end_and_without_secrets(process, store):
    roles = (RoleSpec("head", SideSpec(hooks=(HookSpec(Hook.ON_JOINED, ""),)), publishes=(ValueSpec("k", True),)),)
    id = process.open(roles=roles)
    here, _ = process.reported(id, "a", "b")
    process.contexts.publish(here, "k", b"hush-hush\n").result(10)
    ran = Ran("head", Side.PROVIDER, Hook.ON_JOINED, 3, 1, "said hush-hush")
    process.contexts.ended(here, ran, b"x" * 100_000 + b"hush-hush\xff").result(10)
    (log,) = process.contexts.logs(ANN, id, "a")
    assert log.log.endswith(b"x[secret]\xff")
    assert len(log.log) <= 65_536
    view = process.contexts.context(ANN, "c")
    assert view.record.reason.endswith("ended with 1: said [secret]")
    silent = b"begun\n\x1b[2Jno route to hush-hush \xff\n\n"
    process.contexts.ended(here, replace(ran, version=4, message=""), silent).result(10)
    view = process.contexts.context(ANN, "c")
    assert view.record.reason.endswith("ended with 1: [2Jno route to [secret] \ufffd"), "its last line says why"
    told = repr(store.events(Filter(), after=0, limit=100)) + repr(view.record)
    assert "hush" not in told


def test_people_see_their_own(process):
    id = process.open()
    other = process.open("d", owner="bob")
    assert [r.id for r in process.contexts.contexts(ANN, Filter(), after=None, limit=10).items] == [id]
    page = process.contexts.contexts(ADMIN, Filter(live=True), after=None, limit=1)
    assert [r.id for r in page.items] == [id]
    rest = process.contexts.contexts(ADMIN, Filter(live=True), after=page.next, limit=1)
    assert ([r.id for r in rest.items], rest.next) == ([other], None)
    for look in (process.contexts.context, process.contexts.close):
        with pytest.raises(Forbidden):
            look(BOB, id)
    with pytest.raises(Forbidden):
        process.contexts.logs(BOB, id, "a")
    assert process.contexts.close(ANN, id).record.state is ContextState.CLOSED
    assert process.contexts.context(ANN, id).record.state is ContextState.CLOSED
    with pytest.raises(NotFound):
        process.contexts.context(ANN, "ctx-none")


def test_a_context_is_made_once_per_client_token(process):
    def make(fingerprint="f", name="c"):
        once = Once("token", fingerprint, 201, str)
        return process.contexts.create(ANN, ContextSpec(name), PAIR, 3600, once)

    id = make()
    assert make() == id
    with pytest.raises(ClientTokenReused):
        make("other", "d")
    assert len(process.contexts.contexts(ANN, Filter(), after=None, limit=10).items) == 1


def test_who_is_late_is_said_by_the_passing_of_time(process):
    id = process.open(within_s=5)
    process.rig.clock.time += 10
    process.contexts._writer.ask(id, lambda context, now: context.pass_time(now)).result(10)
    record = process.contexts.view(id).record
    assert record.state is ContextState.FAILED
    assert record.reason == "a has not reported within 5 s; b has not reported within 5 s"
    assert "context.failed" in process.kinds()


def test_a_context_without_a_cluster_is_closed_when_its_time_is_over(process):
    id = process.contexts.create(ANN, ContextSpec("desks"), PAIR, 3600)
    process.rig.clock.time += 3601
    process.contexts._writer.ask("none", lambda context, now: None).exception(10)  # its loop looks at the clock now
    deadline = time.monotonic() + 10
    while process.contexts.is_open(id) and time.monotonic() < deadline:
        time.sleep(0.02)
    record = process.contexts.context(ANN, id).record
    assert (record.state, record.reason) == (ContextState.CLOSED, "its time was over")
    with pytest.raises(InvalidRequest, match="duration_s"):
        process.contexts.create(ANN, ContextSpec("desks"), PAIR, 0)


def test_events_of_guests_leave_the_sites_revision_and_take_their_turn(process):
    process.rig.enroll("n1")
    before = process.rig.store.revision()
    id = process.open()
    process.reported(id, "a", "b")
    assert process.rig.store.revision() == before
    process.rig.request()
    events = process.rig.store.events(Filter(), after=0, limit=100)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].kind.startswith(("lease.", "workspace."))
    joined = [event for event in events if event.kind == "context.joined"]
    assert [(event.owner, event.data["member"]) for event in joined] == [("ann", "a"), ("ann", "b")]


# ---------------------------------------------------------------- information and certificates


def test_what_the_site_knows_is_told_to_who_requires_it(process, tmp_path):
    wanted = ("site:dns", "site:time", "vo:keys", "vo:gridmap", "user:keys")
    id = process.open(members=(Expected("a", (), wanted), Expected("b")))
    one, two = process.reported(id, "a", "b")
    lines = [line.split("\t") for line in process.contexts.document(one, 0).text.decode().splitlines()]
    told = {line[1]: base64.b64decode(line[2]).decode() for line in lines if line[0] == "data"}
    assert told == {
        "site-dns": "10.0.0.53\n",
        "site-time": "ntp.example.org\n",
        "vo-keys": f"{KEY} ann\n{KEY} carl\n",
        "vo-gridmap": '"/DC=org/CN=Ann" ann\n',
        "user-keys": f"{KEY} ann\n",
    }
    assert b"\ndata\t" not in process.contexts.document(two, 0).text


def test_what_nobody_configured_cannot_be_required(process):
    with pytest.raises(InvalidRequest, match="b requires vo:keys, which this site does not know"):
        process.open(members=(Expected("b", (), ("vo:keys",)),), owner="nobody")


@pytest.fixture
def authority(tmp_path, process):
    (tmp_path / "tls").mkdir()
    make_ca(tmp_path / "tls", "here", process.rig.clock.now())
    make_server(tmp_path / "tls", ["localhost", "vws", "10.9.9.9"], process.rig.clock.now())
    return x509.load_pem_x509_certificate((tmp_path / "tls" / "ca.crt").read_bytes())


def asked_for(*names, common="", key=None):
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([as_name(name) for name in names]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def as_name(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def member_with_certificate(process, name="a"):
    wanted = Expected(name, (), ("site:certificate",), addresses=("10.0.0.2", "10.9.9.9"))
    id = process.open("slurm", (wanted, Expected("b")))
    return process.reported(id, name, "b")


def test_a_host_certificate_is_for_the_members_own_names(process, authority):
    here, _ = member_with_certificate(process)
    answer = process.contexts.certificate(here, asked_for("a.slurm.example.internal", "a", "10.0.0.2", common="a"))
    mine, ca = x509.load_pem_x509_certificates(answer)
    assert ca == authority
    said = answer.split(b"\n")[0].decode()
    life_s = (mine.not_valid_after_utc - mine.not_valid_before_utc).total_seconds()
    assert said.startswith("# renew in ")
    assert 0.6 * life_s < int(said.split()[3]) < 0.7 * life_s
    mine.verify_directly_issued_by(ca)
    names = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.slurm.example.internal", "a"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.2")]
    lasts = mine.not_valid_after_utc - datetime.datetime.fromtimestamp(process.rig.clock.now(), datetime.UTC)
    assert lasts == datetime.timedelta(days=90)
    assert not mine.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    "request_pem",
    [
        asked_for("b"),
        asked_for("b.slurm.example.internal"),
        asked_for("a", "localhost"),
        asked_for("*.slurm.example.internal"),
        asked_for("10.0.0.3"),
        asked_for("10.9.9.9"),
        asked_for("a", common="vws"),
        asked_for("a", key=rsa.generate_private_key(65537, 1024)),
        b"",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ],
)
def test_a_certificate_for_another_is_refused(process, authority, request_pem):
    here, _ = member_with_certificate(process)
    with pytest.raises(InvalidRequest):
        process.contexts.certificate(here, request_pem)


@pytest.mark.parametrize("name", ["localhost", "vws"])
def test_a_member_called_as_the_service_gets_its_qualified_name_alone(process, authority, name):
    here, _ = member_with_certificate(process, name)
    with pytest.raises(InvalidRequest):
        process.contexts.certificate(here, asked_for(name))
    mine, _ = x509.load_pem_x509_certificates(process.contexts.certificate(here, asked_for()))
    names = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"{name}.slurm.example.internal"]


def test_who_does_not_require_a_certificate_gets_none(process, authority):
    _, other = member_with_certificate(process)
    with pytest.raises(InvalidRequest, match="does not require site:certificate"):
        process.contexts.certificate(other, asked_for("b"))
