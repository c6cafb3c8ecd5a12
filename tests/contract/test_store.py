"""What every Store keeps to, on each database."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from tests.store.builders import (
    NOW,
    address,
    answer,
    event,
    ground,
    image,
    lease,
    maintenance,
    node,
    revocation,
    signer,
    token,
    workspace,
)
from vws.core.errors import ClientTokenReused, Conflict, InvalidRequest, NameTaken
from vws.core.lifecycle import Desired, State
from vws.core.site import (
    Address,
    Changes,
    Cluster,
    Disk,
    Document,
    DocumentKind,
    Group,
    GroupRoles,
    Image,
    ImageFile,
    Lease,
    LeaseKind,
    LeaseState,
    Maintenance,
    Network,
    Nic,
    Node,
    OnFailure,
    Origin,
    OriginKind,
    Plan,
    PlanPhase,
    Role,
    SealedKey,
    Token,
    Workspace,
)
from vws.core.traits import Attribute, Traits
from vws.ports import Filter, Snapshot, StaleRevision


@pytest.fixture
def put(store):
    """Commit to `store` on whatever its revision is."""

    def commit(**changes):
        return store.commit(Changes(**changes), expected=store.revision())

    return commit


@pytest.fixture
def grounded(store):
    store.commit(ground(), expected=0)
    return store


# ---------------------------------------------------------------- commits


def test_a_new_store_is_empty(store):
    assert store.load() == Snapshot(0)
    assert (store.revision(), store.last_seq(), store.heard_at()) == (0, 0, {})
    assert store.get(Lease, "lse-000001") is None
    assert store.answer("ann", "once-1") is None


def test_values_come_back_as_they_went_in(store):
    lost = workspace(
        2,
        state=State.LOST,
        desired=Desired.SUSPEND,
        boots=7,
        generation=12,
        came_up=True,
        running_at=NOW + 0.125,
        released_at=NOW + 9,
        reason="its node is silent",
        step="copying…",
        host_key="ssh-ed25519 BBBB",
        network="net-000001",
        nics=(Nic("net-000001", "10.20.0.2", "02:78:00:00:00:01"), Nic("", "10.64.0.9", "02:77:0a:40:00:09")),
    )
    suspended = lease(
        kind=LeaseKind.DEADLINE,
        state=LeaseState.SUSPENDED,
        groups=(
            Group(
                "all",
                "img-000001",
                "image-1",
                2,
                1,
                160,
                1024,
                "cpus >= 2",
                apart=True,
                first=3,
                disks=(Disk("scratch", 9),),
            ),
        ),
        start=None,
        end=None,
        active_at=NOW,
        outcome=LeaseState.FAILED,
        reason="behind reserved",
        deadline=1_900_000_000,
        preemptible=True,
        restartable=True,
        urgent=True,
        command="#!/bin/sh\nmake é\n",
        series="srs-000001",
        worked_s=40,
        begun_at=NOW + 0.5,
        suspensions=2,
        migrations=1,
        restarts=3,
        cluster="cls-000001",
        one_node=True,
        plan=Plan(PlanPhase.BOOKED, ("nod-000001", "nod-000002"), *range(1_800_001_000, 1_800_001_005), saves=True),
    )
    values = {
        Image: image(simulated=True, cmdline="quiet", memory_mib_min=96),
        Node: node(
            drained=True,
            lost=True,
            sequence=4,
            problem="no room",
            instance="i",
            version="0.1",
            traits=Traits("x86_64", ("nvidia", "10de:2204"), ("ssd",), (Attribute("rack", "r1"), Attribute("gpus", 2))),
            labels=("zone/b",),
            attributes=(Attribute("rack", "é"), Attribute("row", 1 << 62)),
        ),
        Lease: suspended,
        Workspace: lost,
        Token: token(role=Role.JOIN, expires_at=NOW + 60),
        Maintenance: maintenance(begun_at=NOW + 1),
        Cluster: Cluster(
            "cls-000001",
            "slurm",
            "ann",
            (Network("net-000001", "private", "10.20.0.0/24", outgoing=True, pool="campus", router="10.20.0.9"),),
            (GroupRoles("head", ("head",), ("worker",), OnFailure.REPLACE),),
            "ctx-000001",
            "vws: cluster/1\nname: slürm\n",
            NOW,
        ),
        Address: address(name="www", cluster="cls-000001", member="head-1"),
    }
    images, nodes, leases, workspaces, tokens, maintenances, clusters, addresses = ((v,) for v in values.values())
    store.commit(
        Changes(
            leases,
            workspaces,
            nodes,
            images,
            tokens,
            maintenances=maintenances,
            clusters=clusters,
            addresses=addresses,
        ),
        expected=0,
    )
    for kind, value in values.items():
        assert store.get(kind, value.id) == value
    assert store.load() == Snapshot(
        1, leases, workspaces, nodes, images, tokens, maintenances, clusters, addresses=addresses
    )


def test_a_commit_replaces_whole_values(grounded, put):
    put(workspaces=(workspace(running_at=NOW, host_key="k"),))
    put(workspaces=(workspace(state=State.STOPPED),))
    assert grounded.get(Workspace, "wsp-000001") == workspace(state=State.STOPPED)


def test_revisions_and_event_numbers_have_no_gaps(store):
    assert store.commit(Changes(events=(event(1), event(2))), expected=0) == (1, 2)
    assert store.commit(Changes(tokens=(token(),)), expected=1) == (2, 2)
    assert store.commit(Changes(events=(event(3),)), expected=2) == (3, 3)
    assert (store.revision(), store.last_seq()) == (3, 3)
    assert [e.seq for e in store.events(Filter(), after=0, limit=10)] == [1, 2, 3]


def test_a_stale_commit_writes_nothing(grounded):
    before = grounded.load()
    for expected in (0, 2):
        with pytest.raises(StaleRevision):
            grounded.commit(Changes(tokens=(token(),), events=(event(),), answers=(answer(),)), expected=expected)
    assert grounded.load() == before
    assert grounded.last_seq() == 0
    assert grounded.answer("ann", "once-1") is None


def test_of_racing_commits_one_wins(store):
    won, lost = [], []
    barrier = threading.Barrier(8)

    def race(number):
        barrier.wait()
        try:
            won.append(store.commit(Changes(tokens=(token(number),), events=(event(number),)), expected=0))
        except StaleRevision:
            lost.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [(1, 1)]
    assert len(lost) == 7
    assert len(store.load().tokens) == len(store.events(Filter(), after=0, limit=10)) == 1


def test_readers_see_one_moment_while_others_write(grounded):
    """Each commit writes its number in three tables: a reader that finds two numbers has seen half a commit."""
    done = threading.Event()

    def write():
        for number in range(1, 120):
            values = Changes(
                leases=(lease(reason=str(number)),), workspaces=(workspace(boots=number),), tokens=(token(number),)
            )
            grounded.commit(values, expected=number)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        there = grounded.load()
        number = there.revision - 1
        if number:
            assert there.leases[0].reason == str(number)
            assert there.workspaces[0].boots == number == len(there.tokens)
        seen.add(number)
    writer.join()
    assert len(seen) > 5


# ---------------------------------------------------------------- unique rules


def test_a_live_leases_name_is_taken(grounded, put):
    with pytest.raises(NameTaken) as refused:
        put(leases=(lease(2, name="lease-1"),), events=(event(),))
    assert refused.value.asked == "lease-1"
    assert "lease-1" in refused.value.problem
    assert "lse-000001" in refused.value.problem
    assert (grounded.revision(), grounded.last_seq()) == (1, 0)


@pytest.mark.parametrize("state", [LeaseState.ENDED, LeaseState.FAILED])
def test_an_ended_leases_name_is_free(grounded, put, state):
    # One commit ends the holder and takes the name, in whatever order.
    put(leases=(lease(2, name="lease-1"), lease(1, state=state, ended_at=NOW)))
    assert [found.id for found in grounded.load().leases] == ["lse-000002"]


def test_an_address_is_held_until_its_release(grounded, put):
    put(workspaces=(workspace(1, address="10.64.1.2", state=State.TERMINATED),))
    second = workspace(2, address="10.64.1.2")
    with pytest.raises(Conflict, match=r"address 10\.64\.1\.2 is held by wsp-000001"):
        put(workspaces=(second,))
    put(workspaces=(second, workspace(1, address="10.64.1.2", state=State.TERMINATED, released_at=NOW)))
    assert grounded.get(Workspace, "wsp-000002") == second


def test_two_in_one_commit_cannot_have_the_same_address(grounded, put):
    with pytest.raises(Conflict, match=r"10\.64\.1\.2"):
        put(workspaces=(workspace(1, address="10.64.1.2"), workspace(2, address="10.64.1.2")))
    assert grounded.load().workspaces == ()


@pytest.mark.parametrize(
    ("name", "first", "second", "ended"),
    [
        ("workspaces", workspace(1, name="w"), workspace(2, name="w"), {"released_at": NOW}),
        ("signers", signer(2, name="i"), signer(3, name="i"), {"revoked_at": NOW}),
        ("nodes", node(2, name="n"), node(3, name="n"), {"removed_at": NOW}),
    ],
)
def test_live_names_are_unique(grounded, put, name, first, second, ended):
    put(**{name: (first,)})
    with pytest.raises(NameTaken, match=first.id):
        put(**{name: (second,)})
    put(**{name: (replace(first, **ended),)})
    put(**{name: (second,)})
    assert grounded.get(type(second), second.id) == second


def test_a_secret_is_one_tokens(put):
    put(tokens=(token(1),))
    with pytest.raises(Conflict, match="secret is held by tok-000001") as refused:
        put(tokens=(token(2, secret_sha256=token(1).secret_sha256),))
    assert token(1).secret_sha256 not in refused.value.problem


def test_a_workspace_belongs_to_something(grounded, put):
    with pytest.raises(Conflict, match="breaks a rule"):
        put(workspaces=(workspace(lease="lse-999999"),))
    assert grounded.get(Workspace, "wsp-000001") is None


# ---------------------------------------------------------------- what cannot be kept


@pytest.mark.parametrize("text", ["end\0less", "half \ud83d a pair"])
def test_text_that_is_no_text_is_refused(grounded, put, text):
    with pytest.raises(InvalidRequest, match="nothing was changed"):
        put(leases=(lease(reason=text),), events=(event(),))
    assert grounded.get(Lease, "lse-000001") == lease()
    assert grounded.last_seq() == 0


def test_absurd_numbers_are_refused(grounded, put):
    with pytest.raises(InvalidRequest, match="nothing was changed"):
        put(workspaces=(workspace(memory_mib=2**70),))
    put(workspaces=(workspace(memory_mib=2**62),))


def test_text_is_never_a_statement(grounded, put):
    evil = "'; DROP TABLE leases; -- %s %(name)s :name ? \\ \" 雪"
    put(leases=(lease(reason=evil),), events=(event(data={"said": evil, "nul": "\0"}),))
    assert grounded.get(Lease, "lse-000001").reason == evil
    assert grounded.events(Filter(), after=0, limit=1)[0].data == {"said": evil, "nul": "\0"}
    assert grounded.get(Lease, evil) is None
    assert grounded.page(Lease, Filter(name=evil, owner=evil), after=None, limit=5).items == ()


# ---------------------------------------------------------------- snapshots


def test_load_leaves_out_what_has_ended(grounded, put):
    put(
        leases=(lease(2, state=LeaseState.ENDED), lease(3, state=LeaseState.ENDING)),
        workspaces=(
            workspace(1, lease="lse-000002", released_at=NOW),
            workspace(2, lease="lse-000003", released_at=NOW),
            workspace(3, lease="lse-000003", state=State.TERMINATING),
        ),
        nodes=(node(2, removed_at=NOW),),
        images=(image(2, removed_at=NOW),),
        tokens=(token(1), token(2, revoked_at=NOW)),
    )
    there = grounded.load()
    assert [v.id for v in there.leases] == ["lse-000001", "lse-000003"]
    # A live lease comes with all its members: its state is told from theirs.
    assert [v.id for v in there.workspaces] == ["wsp-000002", "wsp-000003"]
    assert [v.id for v in there.nodes + there.images + there.tokens] == ["nod-000001", "img-000001", "tok-000001"]
    assert grounded.get(Lease, "lse-000002").state is LeaseState.ENDED


def test_load_leaves_out_tokens_that_expired_long_ago(store, put):
    day = 86400
    put(tokens=(token(1, expires_at=NOW - 40 * day), token(2, expires_at=NOW - day), token(3, expires_at=NOW + day)))
    assert len(store.load().tokens) == 3, "nothing tells the time yet"
    put(events=(event(),))
    assert [t.id for t in store.load().tokens] == ["tok-000002", "tok-000003"]
    assert store.get(Token, "tok-000001") is not None


def test_changed_since_gives_what_others_wrote(grounded, put):
    put(leases=(lease(2),))
    put(leases=(lease(1, state=LeaseState.ENDED),), workspaces=(workspace(lease="lse-000002", released_at=NOW),))
    put(tokens=(token(),))
    assert grounded.changed_since(1) == Snapshot(
        4,
        (lease(1, state=LeaseState.ENDED), lease(2)),
        (workspace(lease="lse-000002", released_at=NOW),),
        tokens=(token(),),
    )
    assert grounded.changed_since(3) == Snapshot(4, tokens=(token(),))
    assert grounded.changed_since(4) == Snapshot(4)


def test_being_heard_changes_no_revision(grounded):
    grounded.heard({"nod-000001": NOW, "nod-000002": NOW + 1})
    grounded.heard({"nod-000001": NOW + 5.5, "nod-000002": NOW})
    grounded.heard({})
    assert grounded.heard_at() == {"nod-000001": NOW + 5.5, "nod-000002": NOW + 1}
    assert grounded.revision() == 1


# ---------------------------------------------------------------- listings


def walk(store, kind, where, limit):
    """All pages' ids, checking each page's form."""
    ids, after = [], None
    while True:
        page = store.page(kind, where, after=after, limit=limit)
        assert page.items or after is None, "an empty page after the first: its cursor promised more"
        assert len(page.items) == limit or page.next is None
        ids += [value.id for value in page.items]
        after = page.next
        if after is None:
            return ids


@pytest.mark.parametrize("limit", [1, 3, 10, 11, 100])
def test_pages_cover_everything_once(grounded, put, limit):
    put(workspaces=tuple(workspace(number) for number in (7, 3, 9, 1, 10, 2, 8, 4, 6, 5)))
    assert walk(grounded, Workspace, Filter(), limit) == [f"wsp-{number:06d}" for number in range(1, 11)]


def test_pages_begin_with_the_newest_if_asked_for(grounded, put):
    put(workspaces=tuple(workspace(number) for number in (2, 3, 1, 5, 4)))
    first = grounded.page(Workspace, Filter(), after=None, limit=2, newest_first=True)
    put(workspaces=(workspace(6),))
    rest = grounded.page(Workspace, Filter(), after=first.next, limit=10, newest_first=True)
    assert [[w.number for w in page.items] for page in (first, rest)] == [[5, 4], [3, 2, 1]]
    assert rest.next is None


def test_a_page_goes_on_where_it_was_though_things_came_and_went(grounded, put):
    put(workspaces=tuple(workspace(number) for number in range(2, 8)))
    first = grounded.page(Workspace, Filter(live=True), after=None, limit=3)
    put(workspaces=(workspace(1), workspace(4, released_at=NOW), workspace(6, released_at=NOW), workspace(9)))
    rest = grounded.page(Workspace, Filter(live=True), after=first.next, limit=10)
    assert [w.number for w in rest.items] == [5, 7, 9]


@pytest.mark.parametrize("cursor", ["", "x", "wsp-000001", "AAAA", "é", "=", "\0", "A" * 5000, "lse"])
def test_a_made_up_cursor_is_refused(grounded, cursor):
    with pytest.raises(InvalidRequest, match="cursor") as refused:
        grounded.page(Workspace, Filter(), after=cursor, limit=5)
    assert refused.value.field == "after"


def test_another_listings_cursor_is_refused(grounded, put):
    put(leases=(lease(2),))
    cursor = grounded.page(Lease, Filter(), after=None, limit=1).next
    assert grounded.page(Lease, Filter(), after=cursor, limit=1).items == (lease(2),)
    with pytest.raises(InvalidRequest, match="cursor"):
        grounded.page(Workspace, Filter(), after=cursor, limit=1)


def test_a_page_has_a_size(store):
    with pytest.raises(InvalidRequest, match="at least one"):
        store.page(Lease, Filter(), after=None, limit=0)


def test_listings_are_limited_by_any_of_their_columns(grounded, put):
    put(
        leases=(lease(2, owner="bob", state=LeaseState.ENDED), lease(3, owner="bob", state=LeaseState.ACTIVE)),
        nodes=(node(2, sequence=1), node(3, sequence=1, problem="no disk"), node(4, lost=True, drained=True)),
        workspaces=(
            workspace(1, node="nod-000002", state=State.RUNNING),
            workspace(2, lease="lse-000003", owner="bob", state=State.LOST),
            workspace(3, lease="lse-000002", owner="bob", state=State.FAILED, released_at=NOW),
        ),
        tokens=(token(1), token(2, subject="bob"), token(3, subject="bob", revoked_at=NOW)),
    )

    def numbers(kind, **where):
        return [int(id[-6:]) for id in walk(grounded, kind, Filter(**where), 10)]

    assert numbers(Lease, owner="bob") == [2, 3]
    assert numbers(Lease, owner="bob", live=True) == [3]
    assert numbers(Lease, lease="lse-000002") == [2]
    assert numbers(Lease, states=("active", "ended")) == [2, 3]
    assert numbers(Lease, states=("no-such-state",)) == []
    assert numbers(Workspace, lease="lse-000003") == [2]
    assert numbers(Workspace, node="nod-000002", live=True) == [1]
    assert numbers(Workspace, workspace="wsp-000003") == [3]
    assert numbers(Workspace, owner="bob", live=True, states=("lost", "failed")) == [2]
    assert numbers(Workspace, name="lease-1-2") == [2]
    assert numbers(Node, states=("unfit",)) == [3]
    assert numbers(Node, states=("lost", "joining")) == [1, 4]
    assert numbers(Node, node="nod-000002", name="node-2") == [2]
    assert numbers(Token, owner="bob", live=True) == [2]
    assert numbers(Image, name="image-1", owner="ann") == [1]


@pytest.mark.parametrize(
    ("kind", "where"),
    [(Node, {"owner": "ann"}), (Image, {"states": ("ready",)}), (Token, {"name": "x"}), (Lease, {"node": "nod-1"})],
)
def test_a_limit_that_a_listing_has_not_is_refused_rather_than_ignored(store, kind, where):
    with pytest.raises(InvalidRequest, match="cannot be listed by"):
        store.page(kind, Filter(**where), after=None, limit=5)


# ---------------------------------------------------------------- the record


def test_events_are_followed_by_number(store, put):
    put(events=tuple(event(n, lease=f"lse-{n % 2}", workspace=f"wsp-{n % 3}", node="nod-1") for n in range(1, 7)))
    put(events=(event(7, owner="bob", image="img-1", data={}),))

    def seqs(after=0, limit=10, **where):
        return [e.seq for e in store.events(Filter(**where), after=after, limit=limit)]

    assert seqs() == [1, 2, 3, 4, 5, 6, 7]
    assert seqs(after=2, limit=3) == [3, 4, 5]
    assert seqs(after=7) == []
    assert seqs(lease="lse-1", after=1) == [3, 5]
    assert seqs(lease="lse-0", workspace="wsp-0") == [6]
    assert seqs(owner="bob") == [7]
    assert seqs(node="nod-1", after=5) == [6]
    assert store.events(Filter(), after=6, limit=1) == (event(7, owner="bob", image="img-1", data={}, seq=7),)
    with pytest.raises(InvalidRequest):
        seqs(states=("active",))


# ---------------------------------------------------------------- answers


def test_answers_are_kept_by_subject_and_client_token(store, put):
    mine, yours = answer(1, body="mine"), answer(1, subject="bob", body="yours")
    put(answers=(mine, yours))
    assert (store.answer("ann", "once-1"), store.answer("bob", "once-1")) == (mine, yours)
    assert store.answer("ann", "once-2") is None


def test_a_client_token_is_answered_once(store, put):
    put(answers=(answer(1, body="first"),))
    with pytest.raises(ClientTokenReused, match="once-1"):
        put(answers=(answer(1, body="second"),), tokens=(token(),))
    assert store.answer("ann", "once-1").body == "first"
    assert store.load().tokens == ()


def test_old_answers_are_forgotten(store, put):
    put(answers=(answer(1, at=NOW), answer(2, at=NOW + 1), answer(3, at=NOW + 2)))
    assert store.forget(answers_before=NOW + 2) == 2
    assert store.forget(answers_before=NOW + 2) == 0
    assert store.answer("ann", "once-3") is not None
    assert store.answer("ann", "once-1") is None


def test_one_store_alone_leads(store):
    assert store.lead()
    assert store.lead()


def test_an_address_is_one_of_its_network(grounded, put):
    put(workspaces=(workspace(network="net-000001"),))
    put(workspaces=(workspace(2, address=workspace().address, network="net-000002"),))
    with pytest.raises(Conflict, match=r"the address .* is held by wsp-000001"):
        put(workspaces=(workspace(3, address=workspace().address, network="net-000001"),))


def test_an_address_of_a_pool_has_one_holder(grounded, put):
    put(addresses=(address(1), address(2, pool="far"), address(3, address="192.0.2.18")))
    with pytest.raises(Conflict, match=r"the address 192\.0\.2\.17 is held by adr-000001"):
        put(addresses=(address(4, name="www"),))
    put(addresses=(address(1, released_at=NOW), address(4, name="www")))
    assert [a.id for a in grounded.page(Address, Filter(pool="campus", live=True), after=None, limit=9).items] == [
        "adr-000003",
        "adr-000004",
    ]
    assert grounded.changed_since(1).addresses[0].released_at == NOW


# ---------------------------------------------------------------- trust


def test_all_signers_are_loaded_and_revocations_that_hold(grounded, put):
    revoked = signer(2, revoked_at=NOW + 1, reason="its key was stolen")
    put(signers=(signer(1), revoked), revocations=(revocation(1), revocation(2, lifted_at=NOW + 1)))
    snapshot = grounded.load()
    assert snapshot.signers == (signer(1), revoked)
    assert snapshot.revocations == (revocation(1),)
    assert grounded.get(type(revoked), revoked.id) == revoked


def test_images_have_their_origins_and_are_found_by_their_disk(grounded, put):
    origin = Origin(OriginKind.SAME_DISK, "img-000001", "ab" * 32, "cd" * 32, "debian:12")
    disk = ImageFile("disk", "99" * 32, 1, "qcow2", 1)
    made = [image(2, origins=(origin,)), image(3, removed_at=NOW), image(4, files=(disk,))]
    put(images=tuple(made))
    assert grounded.get(Image, "img-000002").origins == (origin,)
    found = grounded.page(Image, Filter(content="cd" * 32), after=None, limit=9).items
    assert [each.id for each in found] == ["img-000001", "img-000002", "img-000003"], "removed ones too"
    assert grounded.page(Image, Filter(content="99" * 32), after=None, limit=9).items == (made[2],)


def test_live_signers_have_names_of_their_own_and_a_digest_is_revoked_once(grounded, put):
    put(signers=(signer(1, name="desy", revoked_at=NOW),))
    put(signers=(signer(2, name="desy"),))
    with pytest.raises(NameTaken, match="sgn-000002"):
        put(signers=(signer(3, name="desy"),))
    put(revocations=(revocation(1, digest="ab" * 32),))
    with pytest.raises(Conflict, match="rev-000001"):
        put(revocations=(revocation(2, digest="ab" * 32),))


def test_events_are_found_by_their_image(grounded, put):
    put(events=(event(1, image="img-000001"), event(2, image="img-000002"), event(3)))
    assert [e.image for e in grounded.events(Filter(image="img-000002"), after=0, limit=10)] == ["img-000002"]


# ---------------------------------------------------------------- documents


def test_documents_count_for_who_added_them_and_are_dropped_one_by_one_or_with_their_image(store, put):
    images = (image(1), image(2), image(3, removed_at=5.0))
    documents = tuple(
        Document(f"doc-{n}", f"img-{n:06d}", DocumentKind.PROVENANCE, "a/b", b"\0" * n, 1.0, "ann") for n in (1, 2, 3)
    )
    put(images=images, documents=documents)
    assert (store.documents_bytes("ann"), store.documents_bytes("bob")) == (3, 0)
    store.forget_documents()
    assert store.documents("img-000003") == (), "its image was removed"
    assert store.documents("img-000002") == (documents[1],)
    put(dropped_documents=("doc-2",))
    assert store.documents("img-000002") == ()
    assert (store.documents("img-000001"), store.documents_bytes("ann")) == ((documents[0],), 1)


# ---------------------------------------------------------------- keys


def test_sealed_keys_are_found_by_what_they_are_of_and_forgotten_with_it(store, put):
    keys = [
        SealedKey("key-1", "img-1", "a" * 64, "vws1.sealed", 1.0),
        SealedKey("key-2", "img-1", "b" * 64, "vws1.other", 2.0),
        SealedKey("key-3", "wsp-1", "", "vws1.own", 3.0),
    ]
    put(keys=tuple(keys))
    assert store.keys("img-1") == tuple(keys[:2])
    assert store.keys("wsp-1") == (keys[2],)
    assert store.keys_of() == {"img-1", "wsp-1"}
    revision = store.revision()
    store.forget_keys(["wsp-1", "wsp-none"])
    assert store.keys("wsp-1") == ()
    assert store.keys_of() == {"img-1"}
    assert store.revision() == revision, "nobody decides by them"
