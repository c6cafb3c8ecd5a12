"""How much may be said of an image, and by whom.

Whoever may use an image may vouch for it: its users know makers whom its owner never heard of. But what anybody may add
to must not be full when its owner, or somebody whose word counts, has something to say. So documents are welcome, or a
stranger's: an attestation that neither the image's owner nor an administrator added, and that no signer on record made.
Of these there are a few of each user and a few more of all; they take no room from those that are welcome, and are not
copied with the image. When their signer is put on record they are welcome as they are.

A signature counts wherever it came from, so that others may hand in what a signer signed; saying it once more, with
something else beside it, says nothing new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vws.core.errors import Conflict, InvalidRequest
from vws.core.image_access import ImageUser, may_change, user_of
from vws.core.manifest import digest
from vws.core.present import Present
from vws.core.site import Document, DocumentKind, Image
from vws.core.trust import TrustedKey, judged, read_envelope

WELCOME_MAX = 200
STRANGERS_MAX = 20
OF_ONE_STRANGER_MAX = 4


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks at what is said of an image, and when. user: who adds to it or copies it, as he is known by now."""

    present: Present
    image: Image
    user: ImageUser
    now: float

    def is_welcome(self, document: Document) -> bool:
        return self._is_at_home(document.by) or bool(self._signers(document))

    def _is_at_home(self, name: str) -> bool:
        known = self.user.name == name
        return may_change(self.image, self.user if known else user_of(self.present, name, self.now))

    def _signers(self, document: Document) -> frozenset[str]:
        """Those on record whose signatures count on an attestation."""
        if document.kind is not DocumentKind.ATTESTATION:
            return frozenset()
        keys = judged(document.content, digest(self.image), on_record(self.present), self.now).keys
        return frozenset(keys)

    def same(self, there: Sequence[Document], new: Document) -> Document | None:
        """What is there already and says all that `new` does."""
        own = next((each for each in there if (each.kind, each.content) == (new.kind, new.content)), None)
        if own is not None or self._is_at_home(new.by):
            return own
        signers = self._signers(new)
        return next((each for each in there if signers and self._repeats(each, new)), None)

    def _repeats(self, document: Document, new: Document) -> bool:
        alike = document.kind is new.kind and _payload(document) == _payload(new)
        return alike and self._signers(document) >= self._signers(new)

    def check_room(self, there: Sequence[Document], new: Document) -> None:
        """Raise Conflict if there is no room for it."""
        if self.is_welcome(new):
            if sum(map(self.is_welcome, there)) >= WELCOME_MAX:
                raise _full(f"the image has {WELCOME_MAX} documents already", new)
            return
        strangers = [each for each in there if not self.is_welcome(each)]
        if sum(each.by == new.by for each in strangers) >= OF_ONE_STRANGER_MAX:
            raise _full(f"{new.by} has {OF_ONE_STRANGER_MAX} attestations beside the image already", new)
        if len(strangers) >= STRANGERS_MAX:
            raise _full(f"the image has {STRANGERS_MAX} attestations by signers who are not on record already", new)


def on_record(present: Present) -> list[TrustedKey]:
    # Who is trusted still goes before who was once, of the same name perhaps.
    signers = sorted(present.signers.values(), key=lambda s: (s.revoked_at is not None, s.id))
    return [
        TrustedKey(s.name, s.pem, "" if s.revoked_at is None else s.reason or "no reason given", s.crls)
        for s in signers
    ]


def _payload(document: Document) -> bytes:
    try:
        return read_envelope(document.content).payload
    except InvalidRequest:  # what came in a bundle was not looked at
        return b""


def _full(problem: str, new: Document) -> Conflict:
    return Conflict(
        f"{problem}; this one was not kept", field="image", asked=new.image,
        possible="remove one (vws image documents IMAGE --remove ID); or have its signer put on record by an "
        "administrator (vws image trust add): what counts has room of its own",
    )  # fmt: skip
