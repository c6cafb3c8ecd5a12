"""What may be said of an image: by anybody a little, by those whose word counts in any case."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.core.attesting import attestation, public
from tests.service.conftest import ADMIN, ANN, BOB, Rig
from tests.service.test_images import disk, upload
from vws.core.chosen import Chosen
from vws.core.errors import Conflict, Forbidden, LimitReached, NotFound
from vws.core.image_documents import OF_ONE_STRANGER_MAX, STRANGERS_MAX
from vws.core.membership import Membership, User
from vws.core.site import DocumentKind, Role
from vws.core.trust import read_envelope, write_envelope
from vws.ports import Filter
from vws.service.access import Caller
from vws.service.site import Settings

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")


@pytest.fixture
def rig(sqlite_store, tmp_path):
    """bob may keep two megabytes. There is an image of ann's for all."""
    members = Membership({}, users={"bob": User(image_quota_mib=2)})
    rig = Rig(sqlite_store, tmp_path, Settings(chosen=Chosen(membership=members)))
    upload(rig, disk(), "site", shared=["public"])
    rig.services.trust.add_signer(ADMIN, "desy", public("desy"))
    return rig


def say(rig, caller, by, mark=0, content=None):
    image = rig.services.images.image(ADMIN, "site")
    content = content or attestation(image, by, {"mark": mark})
    return rig.services.images.add_document(caller, "site", DocumentKind.ATTESTATION, "a/b", content)


def beside(rig, name="site"):
    return rig.services.images.documents(ADMIN, name)


def marks(rig, name):
    said = (json.loads(read_envelope(document.content).payload) for document in beside(rig, name))
    return [each["predicate"]["assertions"]["mark"] for each in said]


def test_who_fills_an_image_with_his_word_keeps_nobody_else_out(rig):
    for mark in range(OF_ONE_STRANGER_MAX):
        say(rig, BOB, "nobody", mark)
    with pytest.raises(Conflict, match="bob has 4 attestations"):
        say(rig, BOB, "nobody", "one more")
    assert say(rig, BOB, "nobody", 0).by == "bob", "what he said already is no other"
    others = [Caller(f"user{n}", Role.USER) for n in range(STRANGERS_MAX)]
    for caller in others[: STRANGERS_MAX - OF_ONE_STRANGER_MAX]:
        say(rig, caller, "nobody", caller.subject)
    with pytest.raises(Conflict, match="20 attestations by signers who are not on record"):
        say(rig, others[-1], "nobody", "too many")
    assert say(rig, others[-1], "desy", "a signer's word").by == "user19"
    assert say(rig, ANN, "nobody", "her own").by == "ann"
    rig.services.images.copy(BOB, "site", "mine")
    assert marks(rig, "mine") == ["a signer's word", "her own"], "what strangers say stays where it was said"
    assert {document.by for document in beside(rig, "mine")} == {"bob"}
    assert say(rig, ADMIN, "nobody", "the administrator's").by == "admin"


def test_a_signature_is_not_said_again_with_something_beside_it(rig):
    image = rig.services.images.image(ADMIN, "site")
    first = say(rig, BOB, "desy")
    signed, other = (read_envelope(attestation(image, by, {"mark": 0})) for by in ("desy", "nobody"))
    again = write_envelope(type(signed)(signed.payload, signed.payload_type, (*signed.signatures, *other.signatures)))
    assert say(rig, BOB, "", content=again) == first
    assert beside(rig) == (first,)
    assert say(rig, ANN, "", content=again) != first, "its owner adds what she likes"


def test_who_added_it_and_whose_image_it_is_have_it_removed(rig):
    images = rig.services.images
    carl = Caller("carl", Role.USER)
    first, second, third = (say(rig, BOB, "nobody", mark) for mark in range(3))
    with pytest.raises(Forbidden, match=f"the document {first.id} was added by bob, beside an image of ann"):
        images.remove_document(carl, "site", first.id)
    for caller, document in ((BOB, first), (ANN, second), (ADMIN, third)):
        assert images.remove_document(caller, "site", document.id) == document
    assert beside(rig) == ()
    with pytest.raises(NotFound):
        images.remove_document(ANN, "site", first.id)
    events = rig.site.events(Filter(), after=0, limit=100)
    assert [event.data["by"] for event in events if event.kind == "image.undocumented"] == ["bob"] * 3


def test_a_removed_attestation_counts_no_more(rig):
    document = say(rig, ANN, "desy")
    (counts,) = rig.services.trust.attested(ANN, "site")
    assert list(counts.keys) == ["desy"]
    rig.services.images.remove_document(ANN, "site", document.id)
    assert rig.services.trust.attested(ANN, "site") == []


def test_documents_count_for_who_added_them_and_go_with_the_image(rig):
    images = rig.services.images
    mine = images.copy(BOB, "site", "mine")
    assert mine.owner == "bob"

    def describe(name, mark):
        return images.add_document(BOB, name, DocumentKind.PROVENANCE, "a/b", mark * (900 << 10))

    describe("mine", b"a")
    describe("mine", b"b")
    with pytest.raises(LimitReached, match="may keep 2 MiB of images and documents"):
        describe("mine", b"c")
    with pytest.raises(LimitReached):
        upload(rig, disk(b"y") + bytes(400 << 10), "other", caller=BOB)
    images.remove(BOB, "mine")
    assert rig.store.documents(mine.id) == ()
    images.copy(BOB, "site", "mine:2")
    describe("mine:2", b"c")
