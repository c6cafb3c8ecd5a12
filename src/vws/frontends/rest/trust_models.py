"""The shapes of trust: signers, attestations, what the image policy says and on what grounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from vws.core import terms
from vws.core.certificates import CRL_BYTES_MAX
from vws.frontends.rest.models import PERSON, Asked, Event

PEM = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


class SignerRequest(Asked):
    """Whose word about images is to count."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            description="What the image policy calls him.",
            examples=["desy"],
            json_schema_extra={"pattern": f"^{terms.NAME_PATTERN}$", "maxLength": terms.NAME_LENGTH_MAX},
        ),
    ]
    pem: Annotated[
        str,
        Field(
            min_length=1,
            max_length=60_000,
            description="His public key or certificate; an authority's counts for the keys that it certifies, and may "
            "be followed by those of intermediate ones.",
            examples=[PEM],
        ),
    ]


class CrlRequest(Asked):
    """What an authority took back."""

    pem: Annotated[
        str,
        Field(min_length=1, max_length=CRL_BYTES_MAX, description="Its list of revoked certificates (CRL), PEM."),
    ]


class RevocationRequest(Asked):
    """From now on."""

    reason: Annotated[
        str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$",
                   description="For those who will be refused.", examples=["its key was stolen"]),
    ]  # fmt: skip
    end: Annotated[bool, Field(description="End the leases that run, too; they are listed in any case.")] = False


class ImageRevocationRequest(RevocationRequest):
    only: Annotated[
        bool,
        Field(
            description="Its digest alone, and what was made from it: the same disk may run with another kernel line."
        ),
    ] = False


class Crl(BaseModel):
    """A list of revoked certificates."""

    issuer: str = Field(examples=["CN=Grid CA"])
    made_at: float
    expires_at: float = Field(description="Afterwards nothing counts that its authority certified.")
    revoked: int = Field(description="How many certificates.")


class Signer(BaseModel):
    id: str
    name: str
    keyid: str = Field(description="As in-toto's tools name the key.")
    kind: str = Field(examples=["Ed25519 key", "ECDSA authority"])
    pem: str
    added_at: float
    by: str
    revoked_at: float | None
    reason: str = Field(description="Why he was revoked.")
    crls: list[Crl] = Field(description="What the authority, and intermediate ones, took back.")


class Signers(BaseModel):
    items: list[Signer]


class RevokedImage(BaseModel):
    id: str
    digest: str = Field(description="Of what boots; nobody runs it, nor what was made from it, whatever it is called.")
    name: str = Field(description="Of the image when it was revoked.")
    reason: str
    by: str
    made_at: float
    lifted_at: float | None
    content: str = Field(description="The sha256 of its disk, which is revoked with it; empty: it is not.")


class StillRevoked(BaseModel):
    """What else keeps an image from running."""

    digest: str = Field(description="Of what was revoked.")
    why: str


class ReinstatedImage(RevokedImage):
    still: StillRevoked | None = Field(description="What was revoked and reaches it yet; null: it runs, if it may.")


class RevokedImages(BaseModel):
    items: list[RevokedImage]


class Concerned(BaseModel):
    """A lease that a revocation concerns."""

    id: str
    name: str
    owner: str
    state: str


class RevokedSignerView(BaseModel):
    signer: Signer
    leases: list[Concerned] = Field(description="That run by his word, or wait to.")
    ended: bool
    before: bool = Field(description="He was revoked already, for the reason that was given then.")


class Reached(BaseModel):
    """An image that is revoked with another."""

    id: str
    name: str
    owner: str
    digest: str
    how: str = Field(examples=["the same disk"], description="`the same image`, `the same disk` or `made from it`.")


class RevokedImageView(BaseModel):
    revocation: RevokedImage
    images: list[Reached] = Field(description="Others on record that nobody may run any more, by this.")
    leases: list[Concerned] = Field(description="That run the image, or wait to.")
    ended: bool
    before: bool = Field(description="It was revoked already, and stays so for the reason that was given then.")


class Attestation(BaseModel):
    """What somebody vouches for, and whether it counts; which rule trusts whom is another matter."""

    signers: list[str] = Field(description="On record, whose signature counts; empty: it is worth nothing.")
    problem: str = Field(description="Why none of it counts.")
    problems: list[str] = Field(description="What is wrong with single signatures.")
    signed_at: int | None
    expires: int | None
    assertions: dict[str, Any]


class Attestations(BaseModel):
    items: list[Attestation]


class JudgeRequest(Asked):
    """For whom; nothing said: for who asks. Only administrators ask for others."""

    user: Annotated[str | None, Field(min_length=1, max_length=64, pattern=PERSON)] = None
    vo: Annotated[str | None, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$", description='"": none.')] = None


class Need(BaseModel):
    """One thing that the rule demands."""

    what: str = Field(examples=["signed by desy"])
    met: bool
    found: str
    possible: str


class Decision(BaseModel):
    image: str
    digest: str
    allowed: bool
    rule: str = Field(description="That decided; empty: no rule was asked.", examples=["image-policy.toml:2, rule 1"])
    reason: str
    possible: str = Field(description="What would be accepted.")
    network: str = Field(description="`any` or `isolated`.")
    signers: list[str] = Field(description="Who vouches for it.")
    needs: list[Need]


class ImagePolicy(BaseModel):
    """The policy in force, as it was written; empty text: everybody may run everything."""

    text: str
    since: float = Field(description="UTC seconds.")
    problem: str = Field(description="Why what is in its file now is not in force.")
    blocked: bool = Field(description="There is to be a policy, and none can be in force: nothing may run.")
    warnings: list[str]


class DecisionPage(BaseModel):
    items: list[Event]
    next: int | None = Field(description="`after` for the following page.")
