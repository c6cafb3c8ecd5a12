"""Trust in images: whose word counts, what is vouched for, what the image policy says, who ran what."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Query, Response

from vws.core.certificates import CRL_BYTES_MAX, crl_facts
from vws.core.image_access import called
from vws.core.image_origin import how_reached
from vws.core.image_policy import ANY, ISOLATED, Decision
from vws.core.manifest import digest
from vws.core.site import Lease, Signer
from vws.core.trust import Attested
from vws.core.wire import to_json
from vws.frontends.rest import trust_models as models
from vws.frontends.rest.call import LIMIT_DEFAULT, CallHere, ChangeHere, Limit
from vws.frontends.rest.image_names import Named
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router
from vws.service.trust import Affected, Reinstated

Json = dict[str, Any]
routes = router("trust")


@routes.post(
    "/v1/signers", operation_id="add_signer", status_code=201, response_model=models.Signer, responses=CHANGING
)
def add_signer(body: models.SignerRequest, call: ChangeHere) -> Response:
    """Put a public key or a certificate on record, under the name by which the image policy trusts it."""
    return call.mutate(
        lambda once: call.services.trust.add_signer(call.caller, body.name, body.pem, once), _signer, status=201
    )


@routes.get("/v1/signers", operation_id="list_signers", response_model=models.Signers, responses=READING)
def list_signers(
    call: CallHere, everything: Annotated[bool, Query(alias="all", description="The revoked ones too.")] = False
) -> Response:
    """Whose word about images counts here, where the policy says so."""
    signers = call.services.trust.signers(call.caller, revoked=everything)
    return call.answer({"items": [_signer(signer) for signer in signers]})


@routes.put("/v1/signers/{id}/crl", operation_id="put_crl", response_model=models.Signer, responses=CHANGING)
@body_limit(CRL_BYTES_MAX * 2)
def put_crl(id: str, body: models.CrlRequest, call: ChangeHere) -> Response:
    """Put on record which certificates an authority took back, in place of an older list of the same authority. From
    now on nothing that they signed counts."""
    return call.mutate(lambda once: call.services.trust.put_crl(call.caller, id, body.pem, once), _signer)


@routes.delete("/v1/signers/{id}/crl", operation_id="drop_crls", response_model=models.Signer, responses=CHANGING)
def drop_crls(id: str, call: ChangeHere) -> Response:
    """Forget all lists of a signer's authorities: what they took back counts again."""
    return call.mutate(lambda once: call.services.trust.drop_crls(call.caller, id, once), _signer)


@routes.post(
    "/v1/signers/{id}/revoke",
    operation_id="revoke_signer",
    response_model=models.RevokedSignerView,
    responses=CHANGING,
)
def revoke_signer(id: str, body: models.RevocationRequest, call: ChangeHere) -> Response:
    """Believe a signer (by name or id) no more. New leases stop at once; what runs is listed, or ended."""
    return call.mutate(
        lambda once: call.services.trust.revoke_signer(call.caller, id, reason=body.reason, end=body.end, once=once),
        lambda affected: _affected("signer", affected),
    )


@routes.post(
    "/v1/images/{id}/revoke", operation_id="revoke_image", response_model=models.RevokedImageView, responses=CHANGING
)
def revoke_image(id: Named, body: models.ImageRevocationRequest, call: ChangeHere) -> Response:
    """Let nobody run what this image boots, whatever it is called. New leases stop at once; what runs is listed, or
    ended."""
    return call.mutate(
        lambda once: call.services.trust.revoke_image(
            call.caller, id, reason=body.reason, end=body.end, only=body.only, once=once
        ),
        lambda affected: _affected("revocation", affected) | {"images": _reached(call, affected)},
    )


@routes.post(
    "/v1/images/{id}/reinstate",
    operation_id="reinstate_image",
    response_model=models.ReinstatedImage,
    responses=CHANGING,
)
def reinstate_image(id: Named, call: ChangeHere) -> Response:
    """Let an image that was revoked run again, as the policy says. One that was removed is named by its digest, or by
    what it was called when it was revoked."""
    return call.mutate(lambda once: call.services.trust.reinstate_image(call.caller, id, once), _reinstated)


@routes.get(
    "/v1/revoked-images", operation_id="list_revoked_images", response_model=models.RevokedImages, responses=READING
)
def list_revoked_images(call: CallHere) -> Response:
    """What nobody may run."""
    return call.answer({"items": [to_json(made) for made in call.services.trust.revocations(call.caller)]})


@routes.get(
    "/v1/images/{id}/attestations",
    operation_id="list_attestations",
    response_model=models.Attestations,
    responses=READING,
)
def list_attestations(id: Named, call: CallHere) -> Response:
    """Who vouches for an image, for what, and which of it counts."""
    return call.answer({"items": [_attested(each) for each in call.services.trust.attested(call.caller, id)]})


@routes.post("/v1/images/{id}/judge", operation_id="judge_image", response_model=models.Decision, responses=CHANGING)
def judge_image(id: Named, body: models.JudgeRequest, call: CallHere) -> Response:
    """What the image policy would say, and on what grounds. Nothing is changed or recorded."""
    return call.answer(_decision(call.services.trust.test(call.caller, id, user=body.user, vo=body.vo)))


@routes.get(
    "/v1/images/{id}/decisions", operation_id="list_decisions", response_model=models.DecisionPage, responses=READING
)
def list_decisions(
    id: Named,
    call: CallHere,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Only later ones than this seq.")] = 0,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """Who was allowed or refused an image, why and by whom vouched for, and where it ran; a user sees his own."""
    events, last = call.services.trust.decisions(call.caller, id, after=after, limit=limit)
    return call.answer({"items": [call.views.event(event) for event in events], "next": last})


@routes.get("/v1/image-policy", operation_id="show_image_policy", response_model=models.ImagePolicy, responses=READING)
def show_image_policy(call: CallHere) -> Response:
    """The policy in force, and what is wrong with the one in its file."""
    found = call.services.trust.policy(call.caller)
    shown = {name: getattr(found, name) for name in ("text", "since", "problem", "blocked")}
    return call.answer(shown | {"warnings": call.services.trust.warnings()})


# ---------------------------------------------------------------- as they are shown


def _signer(signer: Signer) -> Json:
    return {**to_json(signer), "crls": [asdict(crl_facts(crl)) for crl in signer.crls]}


def _affected(name: str, affected: Affected) -> Json:
    return {
        name: _signer(affected.value) if isinstance(affected.value, Signer) else to_json(affected.value),
        "leases": [_concerned(each) for each in affected.leases],
        "ended": affected.ended,
        "before": affected.before,
    }


def _reinstated(found: Reinstated) -> Json:
    still = {"digest": found.still.digest, "why": found.why} if found.still else None
    return {**to_json(found.value), "still": still}


def _concerned(lease: Lease) -> Json:
    return {"id": lease.id, "name": lease.name, "owner": lease.owner, "state": str(lease.state)}


def _reached(call: CallHere, affected: Affected) -> list[Json]:
    present, made = call.services.site.present, affected.value
    return [
        {"id": each.id, "name": called(present, each), "owner": each.owner, "digest": digest(each),
         "how": how_reached(made, each)}
        for each in affected.images
    ]  # fmt: skip


def _attested(attested: Attested) -> Json:
    said = attested.statement
    return {
        "signers": sorted(attested.keys),
        "problem": attested.problem,
        "problems": list(attested.problems),
        "signed_at": said.signed_at if said else None,
        "expires": said.expires if said else None,
        "assertions": {name: to_json(value) for name, value in said.assertions.items()} if said else {},
    }


def _decision(decision: Decision) -> Json:
    told = {name: getattr(decision, name) for name in ("image", "digest", "allowed", "rule", "reason", "possible")}
    network = ISOLATED if decision.isolated else ANY
    needs = [asdict(need) for need in decision.needs]
    return told | {"network": network, "signers": sorted(decision.keys), "needs": needs}
