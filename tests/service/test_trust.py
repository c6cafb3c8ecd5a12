"""The image policy at a site: at the request, at the start and in orders; what is on record; revocations; its file."""

import os
from dataclasses import replace

import pytest

from tests.core import attesting
from tests.core.attesting import attestation, public, signer_of
from tests.core.authorities import Issuer
from tests.service.conftest import ADMIN, ANN, BOB, Rig
from vws import signing
from vws.core.chosen import Chosen
from vws.core.deployment import WorkspaceFact, orders_for
from vws.core.errors import CommandRefused, Forbidden, InvalidRequest, NameTaken, NotFound
from vws.core.image_access import ImageUser, put_tag
from vws.core.image_origin import made_from
from vws.core.image_policy import ImageRefused
from vws.core.lifecycle import Command, Desired, Observation
from vws.core.manifest import digest
from vws.core.membership import VO, Membership
from vws.core.site import Document, DocumentKind, LeaseState, OriginKind
from vws.core.terms import GroupRequest, LeaseRequest, When
from vws.core.trust import MEDIA_TYPE, why_not_vouched, write_envelope
from vws.ports import Filter
from vws.service import image_policy
from vws.service.clusters import Launch
from vws.service.image_policy import PolicyBook
from vws.service.site import Settings

SIGNED = '[[rule]]\nfor = "vo:cms"\nsigners = "desy"\n[[rule]]\nfor = "all"\n'
CMS = Chosen(membership=Membership({"cms": VO(("ann",))}))


@pytest.fixture
def ruled(store, tmp_path):
    """A site on which ann, of cms, may only run what desy vouches for."""
    path = tmp_path / "image-policy.toml"
    path.write_text(SIGNED)
    rig = Rig(store, tmp_path, Settings(chosen=CMS, image_policy=path))
    rig.enroll("n1", "n2")
    rig.services.trust.add_signer(ADMIN, "desy", public("desy"))
    rig.policy_file = path
    return rig


def demo(rig):
    return rig.services.images.image(ADMIN, "demo")


def attest(rig, content=None, by="desy", **more):
    now = int(rig.clock.now())
    content = content or attestation(demo(rig), by, at=now - 60, **more)
    document = Document(
        rig.site.ids.new("doc"), demo(rig).id, DocumentKind.ATTESTATION, MEDIA_TYPE, content, now, "ann"
    )
    rig.site.change("ann", lambda draft: draft.add_document(document))


def kinds(rig, *wanted):
    return [event for event in rig.site.events(Filter(), after=0, limit=10_000) if event.kind in wanted]


def write(rig, text):
    """As an editor does: a new file under the old name."""
    new = rig.policy_file.with_suffix(".edited")
    new.write_text(text)
    os.replace(new, rig.policy_file)
    rig.services.image_policy.look()


def later(rig, seconds=3600):
    """A reservation, so that its start lies ahead."""
    request = LeaseRequest((GroupRequest("demo", memory_mib=64, disk_mib=1),), 600, when=When.RESERVATION)
    return rig.leases.request(ANN, replace(request, start=int(rig.clock.now()) + seconds))


def wait(rig, seconds):
    rig.clock.time += seconds
    rig.obey()
    rig.services.reconciler.tick()
    rig.obey()


# ---------------------------------------------------------------- the request


def test_an_unsigned_image_is_refused_with_rule_reason_and_what_would_do(ruled):
    with pytest.raises(ImageRefused) as caught:
        ruled.request()
    assert "may not be run here: it is not signed (image-policy.toml:1, rule 1)" in caught.value.problem
    assert caught.value.possible == "an image signed by desy"
    (event,) = kinds(ruled, "image.refused")
    assert (event.owner, event.image, event.data["at"]) == ("ann", demo(ruled).id, "request")
    assert "it is not signed" in event.data["reason"]
    assert not ruled.site.present.leases


def test_an_image_is_called_what_was_asked_for_with_its_digest_in_errors_and_events(ruled):
    second = replace(demo(ruled), id="img-second", cmdline="quiet", sha256="ab" * 32)
    user = ImageUser("admin", is_admin=True)

    def enter(draft):
        draft.put_image(second)
        for number, tag in enumerate(("v2", "stable")):
            put_tag(draft, f"tag-new{number}", second, "demo", tag, user)

    ruled.site.change("admin", enter)

    def ask(image):
        ruled.leases.request(ANN, LeaseRequest((GroupRequest(image, memory_mib=64, disk_mib=1),), 600))

    of = f"sha256:{digest(second)[:12]}"
    for asked, called in (("demo:v2", "demo:v2"), ("demo:stable", "demo:stable"), (second.id, "demo:stable")):
        with pytest.raises(ImageRefused) as caught:
            ask(asked)
        assert f"the image {called} ({of}) may not be run here" in caught.value.problem
        event = kinds(ruled, "image.refused")[-1]
        assert (event.data["name"], event.data["digest"], event.image) == (called, digest(second), second.id)
    assert [ruled.services.trust.test(ANN, asked).image for asked in ("demo", "demo:v2")] == ["demo", "demo:v2"]
    told = ruled.services.trust.revoke_image(ADMIN, "demo:v2", reason="odd")
    assert told.value.name == kinds(ruled, "image.revoked")[-1].data["name"] == "demo:v2"


def test_the_dry_run_says_the_same_and_records_nothing(ruled):
    request = LeaseRequest((GroupRequest("demo", memory_mib=64, disk_mib=1),), 600)
    answer = ruled.leases.would_fit(ANN, request)
    assert not answer["fits"]
    assert "it is not signed" in answer["reason"]
    assert "what would be accepted: an image signed by desy" in answer["reason"]
    assert not kinds(ruled, "image.refused")
    attest(ruled)
    assert ruled.leases.would_fit(ANN, request)["fits"]


def test_a_signed_image_runs_and_the_record_says_by_whom_and_where(ruled):
    attest(ruled)
    lease = ruled.request(2)
    ruled.obey()
    requested, started = kinds(ruled, "image.allowed")
    assert requested.data["at"] == "request"
    assert requested.data["signers"] == started.data["signers"] == ["desy"]
    assert requested.data["digest"] == digest(demo(ruled))
    assert (started.lease, started.data["at"]) == (lease.id, "start")
    assert set(started.data["nodes"]) <= {"n1", "n2"}
    told, more = ruled.services.trust.decisions(ANN, "demo", after=0, limit=100)
    assert [event.kind for event in told] == ["image.allowed"] * 2 + ["workspace.running"] * 2
    assert more is None
    assert ruled.services.trust.decisions(BOB, "demo", after=0, limit=100) == ((), None)
    assert len(ruled.services.trust.decisions(ADMIN, "demo", after=0, limit=1)[0]) == 1


def test_others_run_it_unsigned_and_that_is_said(ruled):
    ruled.request(caller=BOB)
    assert "nobody vouches for it" in kinds(ruled, "image.allowed")[0].data["reason"]


def test_a_site_without_a_policy_decides_nothing(rig):
    rig.enroll("n1")
    rig.request()
    assert not kinds(rig, "image.allowed", "image.refused")
    decision = rig.services.trust.test(ANN, "demo")
    assert decision.allowed
    assert "no policy" in decision.reason
    assert not rig.services.trust.warnings()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda rig: attestation(attesting.image(), at=int(rig.clock.now())), "is about another image"),
        (lambda rig: attestation(demo(rig), "cern", at=int(rig.clock.now())), "is not on record here"),
        (lambda rig: b"{}", "an attestation cannot be read"),
    ],
)
def test_what_does_not_vouch_is_said(ruled, content, reason):
    attest(ruled, content(ruled))
    with pytest.raises(ImageRefused, match=reason):
        ruled.request()


def test_policy_test_judges_for_others_only_if_an_administrator_asks(ruled):
    trust = ruled.services.trust
    assert not trust.test(ANN, "demo").allowed
    assert trust.test(ADMIN, "demo", user="bob").allowed
    assert not trust.test(ADMIN, "demo", vo="cms").allowed
    with pytest.raises(Forbidden):
        trust.test(ANN, "demo", user="bob")
    with pytest.raises(InvalidRequest, match="there is no VO atlas"):
        trust.test(ADMIN, "demo", vo="atlas")


# ---------------------------------------------------------------- the start


def test_a_planned_lease_whose_image_is_not_allowed_any_more_does_not_start(ruled):
    attest(ruled)
    lease = later(ruled)
    ruled.services.trust.revoke_signer(ADMIN, "desy", reason="its key was stolen")
    wait(ruled, 3600)
    ended = ruled.leases.lease(ANN, lease.id)
    assert ended.state is LeaseState.FAILED
    assert "may not be run any more" in ended.reason
    assert "was revoked: its key was stolen" in ended.reason
    assert not ruled.site.present.workspaces
    (event,) = kinds(ruled, "image.refused")
    assert (event.lease, event.data["at"]) == (lease.id, "start")


def test_an_attestation_that_expires_before_the_start_lets_nothing_start(ruled):
    attest(ruled, expires=int(ruled.clock.now()) + 1800)
    early, late = later(ruled, 900), later(ruled, 3600)
    for _ in range(4):
        wait(ruled, 900)
    assert ruled.leases.lease(ANN, early.id).active_at
    assert "expired at" in ruled.leases.lease(ANN, late.id).reason


# ---------------------------------------------------------------- orders


def orders(rig):
    present, now = rig.site.present, rig.clock.now()
    found = []
    for node in present.nodes.values():
        args = node, present.on_node(node.id), present.leases, present.images
        found += orders_for(*args, now=now, vouched_of=rig.services.trust.vouched).workspaces
    return found


def test_a_node_is_told_who_vouches_and_can_check_it(ruled):
    attest(ruled)
    ruled.request()
    (order,) = orders(ruled)
    assert order.vouched.keys == (public("desy"),)
    assert why_not_vouched(order, order.vouched) == ""
    assert "is not what was granted" in why_not_vouched(replace(order, cmdline="init=/bin/sh"), order.vouched)


def test_what_was_granted_boots_again_after_its_attestation_expired_but_not_after_a_revocation(ruled):
    attest(ruled, expires=int(ruled.clock.now()) + 100)
    ruled.request()
    ruled.clock.time += 200
    (order,) = orders(ruled)
    assert why_not_vouched(order, order.vouched) == ""
    before = {node.id: node.generation for node in ruled.site.present.nodes.values()}
    ruled.services.trust.revoke_signer(ADMIN, "desy", reason="its key was stolen")
    (order,) = orders(ruled)
    assert "was revoked: its key was stolen" in why_not_vouched(order, order.vouched)
    assert {node.id: node.generation for node in ruled.site.present.nodes.values()} != before, "nodes are told at once"


def test_an_isolated_workspace_is_ordered_so(ruled):
    write(ruled, SIGNED + 'network = "isolated"\n')
    ruled.request(caller=BOB)
    attest(ruled)
    ruled.request(caller=ANN)
    assert sorted(order.isolated for order in orders(ruled)) == [False, True]


def test_a_node_that_refuses_a_boot_is_on_record_as_such(ruled):
    attest(ruled)
    lease = ruled.request()
    (workspace,) = ruled.leases.members(lease.id)
    reason = "this node refuses to boot it: the image's disk was altered in the node's cache"
    ruled.report(workspace.node, WorkspaceFact(workspace.id, Observation.BROKEN, boots=1, reason=reason, refused=True))
    (event,) = kinds(ruled, "workspace.refused")
    assert (event.workspace, event.image, event.data["reason"]) == (workspace.id, workspace.image, reason)
    assert ruled.leases.lease(ANN, lease.id).reason == f"{workspace.name} is failed: {reason}"
    assert "workspace.refused" in [
        each.kind for each in ruled.services.trust.decisions(ANN, "demo", after=0, limit=99)[0]
    ]


# ---------------------------------------------------------------- clusters

CLUSTER = """
vws: cluster/1
name: pair
networks: {private: {range: 10.20.0.0/24, outgoing: %s}}
groups:
  node: {image: demo, count: 2, memory: 512MiB, networks: [private]}
lease: {for: 1h}
"""


def test_a_cluster_is_refused_by_the_same_rule_and_runs_once_it_is_met(ruled):
    ruled.services.contexts.start()
    clusters = ruled.services.clusters
    with pytest.raises(ImageRefused, match="it is not signed"):
        clusters.launch(ANN, Launch(CLUSTER % "true"))
    assert not clusters.would_fit(ANN, Launch(CLUSTER % "true"))[1]["fits"]
    assert kinds(ruled, "image.refused")
    clusters.catch_up()
    attest(ruled)
    assert clusters.would_fit(ANN, Launch(CLUSTER % "true"))[1]["fits"]
    launched = clusters.launch(ANN, Launch(CLUSTER % "true"))
    write(ruled, SIGNED.replace("desy", "cern"))
    with pytest.raises(ImageRefused, match="whom this rule does not trust"):
        clusters.grow(ANN, launched.id, "node", 1)
    ruled.services.contexts.stop()


def test_an_isolated_image_has_no_cluster_with_a_way_out(ruled):
    ruled.services.contexts.start()
    write(ruled, '[[rule]]\nfor = "all"\nnetwork = "isolated"\n')
    clusters = ruled.services.clusters
    with pytest.raises(ImageRefused, match="may have no way out, and the network private has one") as caught:
        clusters.launch(ANN, Launch(CLUSTER % "true"))
    assert "a network without outgoing" in caught.value.possible
    assert "may have no way out" in clusters.would_fit(ANN, Launch(CLUSTER % "true"))[1]["reason"]
    clusters.catch_up()
    clusters.launch(ANN, Launch(CLUSTER % "false"))
    ruled.services.contexts.stop()


# ---------------------------------------------------------------- revoking


def test_revoking_a_signer_lists_what_runs_and_ends_it_if_asked(ruled):
    attest(ruled)
    lease, others = ruled.request(), ruled.request(caller=BOB)
    ruled.obey()
    told = ruled.services.trust.revoke_signer(ADMIN, "desy", reason="stolen")
    assert [each.id for each in told.leases] == [lease.id]
    assert ruled.leases.lease(ANN, lease.id).state is LeaseState.ACTIVE
    with pytest.raises(ImageRefused, match="desy, who was revoked: stolen") as caught:
        ruled.request()
    assert "all of these were revoked" in caught.value.possible
    told = ruled.services.trust.revoke_signer(ADMIN, told.value.id, reason="stolen", end=True)
    assert told.leases[0].state is LeaseState.ENDING
    ruled.obey()
    assert ruled.leases.lease(ANN, lease.id).reason == "desy was revoked: stolen"
    assert ruled.leases.lease(BOB, others.id).state is LeaseState.ACTIVE
    (event,) = kinds(ruled, "signer.revoked")
    assert event.data["reason"] == "stolen"


def test_a_signer_who_is_revoked_is_found_by_name_and_a_new_key_of_that_name_is_spared(ruled):
    trust = ruled.services.trust
    attest(ruled)
    first = ruled.request()
    old = trust.revoke_signer(ADMIN, "desy", reason="stolen").value
    again = trust.revoke_signer(ADMIN, "desy", reason="another reason")
    assert (again.value.id, again.value.reason) == (old.id, "stolen")
    assert [each.id for each in again.leases] == [first.id]
    new = trust.add_signer(ADMIN, "desy", public("cern"))
    assert trust.signer(ADMIN, "desy").id == new.id
    assert trust.revoke_signer(ADMIN, old.id, reason="stolen").leases == again.leases, "nobody signed it anew"
    attest(ruled, by="cern")
    second = ruled.request()
    told = trust.revoke_signer(ADMIN, old.id, reason="stolen", end=True)
    assert told.leases == (), "the new key vouches for all that runs"
    assert ruled.leases.lease(ANN, second.id).state is not LeaseState.ENDING
    assert trust.signer(ADMIN, new.id).revoked_at is None


def test_a_revoked_image_is_refused_to_all_until_it_is_reinstated(ruled):
    trust = ruled.services.trust
    lease = ruled.request(caller=BOB)
    ruled.obey()
    told = trust.revoke_image(ADMIN, "demo", reason="a bad kernel")
    assert [each.id for each in told.leases] == [lease.id]
    with pytest.raises(ImageRefused, match="was revoked: a bad kernel"):
        ruled.request(caller=BOB)
    (order,) = orders(ruled)
    assert "was revoked: a bad kernel" in why_not_vouched(order, order.vouched)
    trust.reinstate_image(ADMIN, "demo")
    ruled.request(caller=BOB)
    with pytest.raises(NotFound, match="is not revoked"):
        trust.reinstate_image(ADMIN, "demo")
    for verb in (trust.revoke_image, trust.revoke_signer):
        with pytest.raises(Forbidden):
            verb(ANN, "demo", reason="x")
        with pytest.raises(InvalidRequest, match="a reason is needed"):
            verb(ADMIN, "desy" if verb == trust.revoke_signer else "demo", reason=" ")


def test_with_an_image_all_that_was_saved_on_it_is_revoked(rig):
    rig.enroll("n1")
    base, present = demo(rig), rig.site.present
    origins = made_from(present, base, OriginKind.SAVED)
    saved = replace(base, id="img-saved", name="saved", cmdline="saved", base=base.id, origins=origins)
    origins = made_from(present, saved, OriginKind.SAVED)
    again = replace(saved, id="img-again", name="again", cmdline="quiet", base=saved.id, origins=origins)

    def enter(draft):
        for number, image in enumerate((saved, again)):
            draft.put_image(image)
            put_tag(draft, f"tag-new{number}", image, image.name, "latest", ImageUser("admin", is_admin=True))

    rig.site.change("admin", enter)
    asked = {name: LeaseRequest((GroupRequest(name, memory_mib=64, disk_mib=1),), 600) for name in ("saved", "again")}
    lease = rig.leases.request(ANN, asked["again"])
    assert [each.id for each in rig.services.trust.revoke_image(ADMIN, "demo", reason="a bad kernel").leases] == [
        lease.id
    ]
    with pytest.raises(ImageRefused, match="it was revoked: with demo, which it was made from: a bad kernel"):
        rig.leases.request(ANN, asked["again"])
    (order,) = orders(rig)
    named = f"the image again (sha256:{digest(again)[:12]})"
    assert f"{named} was revoked: with demo" in why_not_vouched(order, order.vouched)
    rig.services.trust.reinstate_image(ADMIN, "demo")
    rig.services.trust.revoke_image(ADMIN, "again", reason="odd")
    rig.leases.request(ANN, asked["saved"])


def test_revocations_hold_without_a_policy_and_over_a_restart(rig):
    rig.enroll("n1")
    rig.services.trust.revoke_image(ADMIN, "demo", reason="a bad kernel", end=True)
    rig.services.trust.add_signer(ADMIN, "desy", public("desy"))
    rig.services.trust.revoke_signer(ADMIN, "desy", reason="stolen")
    rig.restart()
    with pytest.raises(ImageRefused, match="a bad kernel"):
        rig.request()
    assert [s.reason for s in rig.services.trust.signers(ANN, revoked=True)] == ["stolen"]
    assert not rig.services.trust.signers(ANN)


def test_signers_on_record(ruled):
    trust = ruled.services.trust
    again = trust.add_signer(ADMIN, "desy", public("desy"))
    assert again.id == trust.signer(ANN, "desy").id
    with pytest.raises(NameTaken, match="with another key"):
        trust.add_signer(ADMIN, "desy", public("cern"))
    with pytest.raises(NameTaken, match="with this key"):
        trust.add_signer(ADMIN, "desy2", public("desy"))
    with pytest.raises(Forbidden):
        trust.add_signer(ANN, "ann", public("cern"))
    trust.revoke_signer(ADMIN, "desy", reason="stolen")
    with pytest.raises(InvalidRequest, match="this key was revoked, as desy's: stolen"):
        trust.add_signer(ADMIN, "other", public("desy"))
    trust.add_signer(ADMIN, "desy", public("cern"))
    with pytest.raises(NotFound, match="there is no signer"):
        trust.signer(ANN, "nobody")


def test_what_was_revoked_after_a_reboot_was_ordered_is_refused_by_the_order(ruled):
    attest(ruled)
    lease = ruled.request()
    ruled.obey()
    ruled.leases.command(ANN, ruled.leases.members(lease.id)[0].id, Command.REBOOT)
    ruled.services.trust.revoke_signer(ADMIN, "desy", reason="stolen")
    (order,) = orders(ruled)
    assert order.boots == 2
    assert order.vouched.refused


@pytest.mark.parametrize("what", ["signer", "image"])
def test_what_would_stop_a_workspace_of_a_revoked_image_is_refused_and_it_runs_on(ruled, what):
    attest(ruled)
    lease = ruled.request(2)
    ruled.obey()
    runs, rests = ruled.leases.members(lease.id)
    ruled.leases.command(ANN, rests.id, Command.SUSPEND)
    ruled.report(rests.node, *(_fact(w) for w in ruled.site.present.on_node(rests.node)))
    assert ruled.states(lease) == ["running", "suspended"]
    assert ruled.services.trust.boot_refusal(runs) == ""
    if what == "signer":
        ruled.services.trust.revoke_signer(ADMIN, "desy", reason="a bad one")
    else:
        ruled.services.trust.revoke_image(ADMIN, "demo", reason="a bad one")
    for workspace, order in ((runs, "reboot"), (runs, "suspend"), (rests, "restore")):
        with pytest.raises(CommandRefused, match=f"cannot {order} {workspace.name}.*revoked: a bad one"):
            ruled.leases.command(ANN, workspace.id, Command(order))
    assert ruled.states(lease) == ["running", "suspended"]
    (said,) = [each for each in ruled.leases.explain(ANN, lease.id)["says"] if "does not start again" in each]
    assert "revoked: a bad one" in said
    assert str(ruled.leases.command(ANN, runs.id, Command.PAUSE).state) == "pausing", "it does not stop for that"
    assert str(ruled.leases.command(ANN, rests.id, Command.TERMINATE).state) == "terminating"
    assert ruled.services.trust.boot_refusal(ruled.leases.members(lease.id)[1]) == ""


def _fact(workspace):
    seen = Observation.SUSPENDED if workspace.desired is Desired.SUSPEND else Observation.RUNNING
    return WorkspaceFact(workspace.id, seen, workspace.boots)


# ---------------------------------------------------------------- the file


def test_a_changed_file_is_taken_up_and_one_with_an_error_is_not(ruled):
    with pytest.raises(ImageRefused):
        ruled.request()
    write(ruled, '[[rule]]\nfor = "all"\n')
    ruled.request()
    write(ruled, '[[rule]]\nfor = "all"\nsigner = "desy"\n')
    in_force = ruled.services.trust.policy(ANN)
    assert "image-policy.toml:3, rule 1: 'signer' is no key; did you mean signers?" in in_force.problem
    assert in_force.text == '[[rule]]\nfor = "all"\n'
    ruled.request()
    assert "did you mean" in ruled.services.trust.warnings()[0]
    ruled.policy_file.unlink()
    ruled.services.image_policy.look()
    assert "No such file" in ruled.services.trust.policy(ANN).problem
    write(ruled, SIGNED)
    assert ruled.services.trust.policy(ANN).problem == ""
    with pytest.raises(ImageRefused):
        ruled.request()


def test_the_policy_in_force_outlives_a_restart_with_an_error_in_the_file(ruled):
    ruled.policy_file.write_text("[[rule]")
    ruled.restart()
    assert ruled.services.trust.policy(ANN).text == SIGNED
    assert "is not TOML" in ruled.services.trust.policy(ANN).problem
    with pytest.raises(ImageRefused, match="it is not signed"):
        ruled.request()


def test_where_no_policy_can_be_in_force_nothing_runs(store, tmp_path):
    path = tmp_path / "image-policy.toml"
    rig = Rig(store, tmp_path, Settings(image_policy=path))
    rig.enroll("n1")
    with pytest.raises(ImageRefused, match=r"cannot be read, so that nothing may run: .*No such file"):
        rig.request()
    path.write_text('[[rule]]\nfor = "all"\n')
    rig.services.image_policy.look()
    rig.request()


def test_health_tells_of_a_policy_that_is_not_in_force(ruled):
    ruled.services.reconciler.start()
    assert ruled.services.health()["warnings"] == []
    write(ruled, "[[rule]")
    assert "not in force" in ruled.services.health()["warnings"][0]
    ruled.services.reconciler.stop()


def test_who_is_named_and_not_on_record_is_warned_of(ruled):
    write(ruled, '[[rule]]\nfor = "all"\nsigners = ["desy", "cern"]\n')
    (warning,) = ruled.services.trust.warnings()
    assert "names cern, of whom no key is on record" in warning


TRACKED = '[[rule]]\nfor = "all"\nvulnerabilities = ["high"]\n[tracker]\nfile = "tracker.json"\nrelease = "bookworm"\n'
ENTRY = '{"openssl": {"CVE-1": {"releases": {"bookworm": {"status": "open", "urgency": "high"}}}}}'


def test_the_tracker_is_read_beside_the_policy_and_again_when_it_changes(tmp_path, monkeypatch):
    path, tracker = tmp_path / "image-policy.toml", tmp_path / "tracker.json"
    path.write_text(TRACKED)
    book = PolicyBook(path, tmp_path / "kept.toml", lambda: 5.0)
    assert "tracker.json: No such file" in book.in_force.problem
    tracker.write_text(ENTRY)
    assert book.look()
    assert [flaw.id for flaw in book.in_force.policy.flaws["openssl"]] == ["CVE-1"]
    tracker.write_text("[")
    book.look()
    assert "is not a security tracker's JSON" in book.in_force.problem
    assert book.in_force.policy.flaws
    tracker.write_text(ENTRY.replace("bookworm", "sid"))
    book.look()
    assert "knows nothing of the release bookworm" in book.in_force.problem
    tracker.write_text(ENTRY.replace("CVE-1", "CVE-12"))
    book.look()
    assert book.in_force.problem == ""
    monkeypatch.setattr(image_policy, "read_flaws", None)
    path.write_text("# the same tracker\n" + TRACKED)
    book.look()
    assert book.in_force.problem == "", "a tracker that has not changed is not read again"


def test_a_watched_file_is_taken_up_by_itself(tmp_path, monkeypatch):
    import time

    monkeypatch.setattr(image_policy, "LOOK_EVERY_S", 0.01)
    path = tmp_path / "image-policy.toml"
    path.write_text(SIGNED)
    book = PolicyBook(path, tmp_path / "kept.toml", lambda: 5.0)
    book.start()
    path.write_text('[[rule]]\nfor = "all"\n# longer than before, by far, so that its size tells\n')
    until = time.monotonic() + 5
    while "longer" not in book.in_force.text and time.monotonic() < until:
        time.sleep(0.01)
    book.stop()
    assert "longer" in book.in_force.text


# ---------------------------------------------------------------- what authorities took back


def test_what_an_authority_took_back_starts_and_boots_nothing_from_then_on(ruled):
    now = int(ruled.clock.now())
    root = Issuer("Grid CA", since=now - 86_400)
    sub = Issuer("Sub CA", root, since=now - 86_400)
    leaf = Issuer("DESY", sub, ca=False, since=now - 86_400)
    write(ruled, SIGNED.replace("desy", "grid"))
    trust = ruled.services.trust
    trust.add_signer(ADMIN, "grid", root.pem)
    made = signing.sign(demo(ruled), "d", {}, signer_of(leaf.key), signed_at=now - 60, certificate=leaf.pem)
    attest(ruled, write_envelope(made))
    with pytest.raises(ImageRefused, match="nor does its certificate lead to an authority"):
        ruled.request()
    with pytest.raises(InvalidRequest, match="no authority that is on record here"):
        trust.put_crl(ADMIN, "grid", sub.crl(at=now - 60))
    renewed = trust.add_signer(ADMIN, "grid", root.pem + sub.pem)
    assert [signer.id for signer in trust.signers(ADMIN) if signer.name == "grid"] == [renewed.id]
    trust.put_crl(ADMIN, "grid", sub.crl(at=now - 120, days=1))
    lease = ruled.request()
    ruled.obey()

    (node,) = {w.node for w in ruled.leases.members(lease.id)}
    before = ruled.nodes.generation(node)
    trust.put_crl(ADMIN, "grid", sub.crl(leaf, at=now - 60, days=1))
    assert ruled.nodes.generation(node) > before, "its node hears of it"
    (workspace,) = ruled.leases.members(lease.id)
    told = trust.vouched(workspace, ruled.site.present.leases[lease.id], demo(ruled))
    assert "the certificate of CN=DESY was revoked" in told.refused
    with pytest.raises(ImageRefused, match="the certificate of CN=DESY was revoked"):
        ruled.request()
    with pytest.raises(InvalidRequest, match="older than the one on record"):
        trust.put_crl(ADMIN, "grid", sub.crl(at=now - 120))
    ruled.restart()
    with pytest.raises(ImageRefused, match="the certificate of CN=DESY was revoked"):
        ruled.request()
    ruled.services.trust.drop_crls(ADMIN, "grid")
    assert ruled.request()
    said = [(e.data.get("revoked"), e.data.get("dropped")) for e in kinds(ruled, "signer.crl")]
    assert said == [(0, None), (1, None), (None, 1)]


def test_a_list_that_has_expired_is_warned_of(ruled):
    now = int(ruled.clock.now())
    root = Issuer("Grid CA", since=now - 86_400)
    trust = ruled.services.trust
    trust.add_signer(ADMIN, "grid", root.pem)
    trust.put_crl(ADMIN, "grid", root.crl(at=now - 60, days=1))
    ruled.services.reconciler.start()
    try:
        assert ruled.services.health()["warnings"] == []
        ruled.clock.time += 86_400
        (warning,) = ruled.services.health()["warnings"]
    finally:
        ruled.services.reconciler.stop()
    assert "(CRL) of CN=Grid CA has expired" in warning
    assert warning in trust.warnings()
    with pytest.raises(Forbidden):
        trust.put_crl(ANN, "grid", root.crl(at=now))


def test_a_simulated_image_is_revoked_without_the_others(rig):
    rig.enroll("n1")
    rig.services.images.simulate("other")
    rig.services.trust.revoke_image(ADMIN, "other", reason="odd")
    assert rig.request()
