"""Trust over HTTP: keys on record, attestations beside an image, the policy's word, revocations, who ran what."""

from __future__ import annotations

import time

import pytest

from tests.core.attesting import FULL, attestation, image, public
from tests.frontends.conftest import Running, asked
from vws.core.chosen import Chosen
from vws.core.membership import VO, Membership
from vws.frontends.rest import trust_models as models
from vws.frontends.rest.image_models import Image as ImageShown
from vws.service.access import SITE


@pytest.fixture
def ruled(server, sqlite_store, tmp_path):
    path = tmp_path / "image-policy.toml"
    path.write_text('[[rule]]\nfor = "vo:cms"\nsigners = "desy"\nassert = {maker = "DESY"}\n[[rule]]\nfor = "all"\n')
    chosen = Chosen(membership=Membership({"cms": VO(("ann",))}))
    running = Running(server, sqlite_store, tmp_path, chosen=chosen, image_policy=path)
    (running.node,) = running.enroll("one")
    running.policy_file = path
    yield running
    running.close()


def add_signer(running: Running, name: str = "desy") -> dict:
    answer = running.root.post("/v1/signers", json={"name": name, "pem": public(name)})
    assert answer.status_code == 201, answer.text
    return models.Signer(**answer.json()).model_dump()


def attest(running: Running, content: bytes | None = None):
    demo = running.services.images.image(SITE, "demo")
    content = content or attestation(demo, assertions=FULL | {"updates-until": "2026-11-01"}, at=int(time.time()) - 60)
    query = {"kind": "attestation", "media_type": "application/vnd.dsse.envelope.v1+json"}
    headers = {"Content-Type": "application/octet-stream"}
    return running.ann.post("/v1/images/demo/documents", params=query, content=content, headers=headers)


def test_a_refusal_is_a_problem_with_rule_and_what_would_do(ruled):
    answer = ruled.ann.post("/v1/leases", json=asked())
    assert answer.status_code == 403
    problem = answer.json()
    assert problem["code"] == "image-refused"
    assert problem["field"] == "groups[0].image"
    assert problem["rule"] == "image-policy.toml:1, rule 1"
    assert problem["possible"] == "an image signed by desy"
    told = ruled.ann.post("/v1/leases/explain", json=asked()).json()
    assert not told["fits"]
    assert "it is not signed" in told["reason"]


def test_from_signer_to_lease_to_revocation(ruled):
    signer = add_signer(ruled)
    assert attest(ruled).status_code == 201
    (told,) = models.Attestations(**ruled.ann.get("/v1/images/demo/attestations").json()).items
    assert (told.signers, told.problem) == (["desy"], "")
    assert told.assertions["listening"] == ["22/tcp"]
    decision = models.Decision(**ruled.ann.post("/v1/images/demo/judge", json={}).json())
    assert decision.allowed
    assert decision.signers == ["desy"]
    assert [need.what for need in decision.needs] == ["signed by desy", "maker is DESY"]
    lease = ruled.lease()
    ruled.node.obey()
    (order,) = ruled.node.pull().json()["orders"]["workspaces"]
    assert order["vouched"]["keys"] == [public("desy")]
    page = models.DecisionPage(**ruled.ann.get("/v1/images/demo/decisions").json())
    assert [event.kind for event in page.items] == ["image.allowed", "image.allowed", "workspace.running"]
    assert page.items[1].data["nodes"] == ["one"]
    first = ruled.root.get("/v1/images/demo/decisions", params={"limit": 1}).json()
    rest = ruled.root.get("/v1/images/demo/decisions", params={"after": first["next"]}).json()
    assert len(first["items"]) + len(rest["items"]) == 3

    answer = ruled.root.post("/v1/signers/desy/revoke", json={"reason": "stolen"})
    told = models.RevokedSignerView(**answer.json())
    assert (told.signer.reason, [each.id for each in told.leases], told.ended) == ("stolen", [lease["id"]], False)
    assert ruled.ann.post("/v1/leases", json=asked()).status_code == 403
    assert "revoked: stolen" in ruled.node.pull().json()["orders"]["workspaces"][0]["vouched"]["refused"]
    assert ruled.ann.get("/v1/signers").json()["items"] == []
    (gone,) = ruled.ann.get("/v1/signers", params={"all": True}).json()["items"]
    assert gone["id"] == signer["id"]


def test_a_revoked_image_is_listed_and_may_be_reinstated(ruled):
    bob = ruled.bob.post("/v1/leases", json=asked()).json()
    answer = ruled.root.post("/v1/images/demo/revoke", json={"reason": "a bad kernel", "end": True})
    told = models.RevokedImageView(**answer.json())
    assert told.ended
    assert [(each.id, each.state) for each in told.leases] == [(bob["id"], "ending")]
    (listed,) = models.RevokedImages(**ruled.ann.get("/v1/revoked-images").json()).items
    assert listed.reason == "a bad kernel"
    assert ruled.bob.post("/v1/leases", json=asked()).json()["detail"].endswith("was revoked: a bad kernel")
    assert ruled.root.post("/v1/images/demo/reinstate").status_code == 200
    assert ruled.bob.post("/v1/leases", json=asked()).status_code == 201


def test_an_image_says_what_it_was_made_from_and_that_it_is_revoked_with_that(ruled):
    ruled.root.post("/v1/images/demo/copies", json={"name": "copy:2"})
    made = ImageShown(**ruled.root.get("/v1/images/copy:2").json())
    first = ImageShown(**ruled.root.get("/v1/images/demo").json())
    assert (made.revoked, made.withdrawn, first.origins) == (None, "", [])
    assert [(o.how, o.image, o.name, o.digest) for o in made.origins] == [("copied", first.id, "demo", first.digest)]
    answer = ruled.root.post("/v1/images/demo/revoke", json={"reason": "a bad kernel", "only": True})
    (reached,) = models.RevokedImageView(**answer.json()).images
    assert (reached.id, reached.name, reached.owner, reached.how) == (made.id, "copy:2", made.owner, "the same image")
    ruled.root.delete("/v1/images/demo")
    for shown in (ruled.root.get("/v1/images/copy:2").json(), *ruled.root.get("/v1/images").json()["items"]):
        revoked = ImageShown(**shown).revoked
        assert revoked is not None
        assert (revoked.reason, revoked.name, revoked.digest) == ("a bad kernel", "demo", first.digest)
    assert ruled.root.post("/v1/images/demo/reinstate").status_code == 200
    assert ruled.root.get("/v1/images/copy:2").json()["revoked"] is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{}", "signatures is 'None', not 1 to 16 signatures"),
        (attestation(image()), "the attestation is about another image"),
    ],
)
def test_what_would_never_count_is_not_kept(ruled, content, problem):
    answer = attest(ruled, content)
    assert answer.status_code == 422
    assert problem in answer.json()["detail"]


def test_trust_is_the_administrators_to_give(ruled):
    assert ruled.ann.post("/v1/signers", json={"name": "me", "pem": public("desy")}).status_code == 403
    assert ruled.ann.post("/v1/images/demo/revoke", json={"reason": "x"}).status_code == 403
    assert ruled.ann.post("/v1/images/demo/judge", json={"user": "bob"}).status_code == 403
    bad = ruled.root.post("/v1/signers", json={"name": "me", "pem": "nonsense"})
    assert bad.status_code == 422
    assert "cannot be read as a key or certificate" in bad.json()["detail"]
    assert ruled.root.post("/v1/signers/nobody/revoke", json={"reason": "x"}).status_code == 404


def test_the_policy_is_shown_with_what_is_wrong_with_it(ruled):
    shown = models.ImagePolicy(**ruled.ann.get("/v1/image-policy").json())
    assert shown.text == ruled.policy_file.read_text()
    assert "names desy, of whom no key is on record" in shown.warnings[0]
    assert ruled.nobody.get("/v1/health").json()["warnings"] == []
    ruled.policy_file.write_text("[[rule]")
    ruled.services.image_policy.look()
    assert "is not TOML" in ruled.ann.get("/v1/image-policy").json()["problem"]
    health = ruled.nobody.get("/v1/health").json()
    assert health["status"] == "ok"
    assert "not in force" in health["warnings"][0]
