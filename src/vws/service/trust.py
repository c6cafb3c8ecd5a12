"""Who is trusted with images, what they vouch for, and what the site's policy makes of it.

`judge` and `vouched` are asked under the site's lock, at each lease and each order: what is said of an image is read
from the store once and remembered until somebody says more (its record is written with each document), and signatures
are remembered by the core. Whatever depends on the time is judged anew each time.

Refusing changes nothing, so that a refusal is recorded in a commit of its own.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Any, TypeVar

from vws.core.bill import Bill, read_bill
from vws.core.certificates import crl_facts, with_crl
from vws.core.draft import Draft
from vws.core.errors import InvalidRequest, NameTaken, NotFound, Unavailable
from vws.core.image_access import called, called_by, has
from vws.core.image_documents import on_record
from vws.core.image_gate import REFUSED
from vws.core.image_names import read_reference, with_digest
from vws.core.image_origin import reaches, revocation_meant, revocation_of, why_revoked
from vws.core.image_policy import Asked, Decision, Facts, ImageRefused, judge
from vws.core.lifecycle import UNORDERED
from vws.core.manifest import digest
from vws.core.membership import Membership
from vws.core.site import (
    Answer,
    DocumentKind,
    Event,
    Group,
    Image,
    Lease,
    LeaseState,
    Revocation,
    Role,
    Signer,
    Workspace,
)
from vws.core.standing import begin_end, settle
from vws.core.terms import check_name
from vws.core.trust import Attested, Vouched, checked_signer, judged
from vws.ports import Filter
from vws.service.access import Caller
from vws.service.image_policy import InForce, PolicyBook
from vws.service.once import Once
from vws.service.site import Site

log = logging.getLogger(__name__)
T = TypeVar("T")
REASON_LENGTH_MAX = 200
# What the record says of who ran what.
DECISIONS = (
    "image.allowed",
    "image.refused",
    "image.revoked",
    "image.reinstated",
    "workspace.refused",
    "image.key-given",
)
RUNS = ("workspace.running",)


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of an image, as it came. image: the very record that it was read for."""

    image: Image
    attestations: tuple[bytes, ...]
    bills: tuple[Bill, ...]
    bill_problem: str


@dataclass(frozen=True, slots=True)
class Affected:
    """A signer or a revocation, with the leases that it concerns: those that run, and those that will not begin.
    images: those on record that are revoked with another. before: it was there already, and is as it was."""

    value: Any
    leases: tuple[Lease, ...]
    ended: bool
    images: tuple[Image, ...] = ()
    before: bool = False


@dataclass(frozen=True, slots=True)
class Reinstated:
    """still: what else keeps the image from running, and why in words; None: nothing that was revoked."""

    value: Revocation
    still: Revocation | None = None
    why: str = ""


class Trust:
    def __init__(self, site: Site, book: PolicyBook, find: Callable[[Caller, str], Image]) -> None:
        """find: the image that a caller means."""
        self._site = site
        self._book = book
        self._find = find
        self._said: dict[str, Said] = {}
        site.present.judge = self.judge
        site.present.boot_refusal = self.boot_refusal

    # ------------------------------------------------------------ deciding

    def judge(self, image: Image, user: str, now: float) -> Decision:
        """What the policy in force says. Asked under the site's lock."""
        return self._judge(image, Asked(user, self._membership.vo_of(user)), now)

    def _judge(self, image: Image, asked: Asked, now: float) -> Decision:
        in_force, of = self._book.in_force, digest(image)
        revoked, name = self._revoked(image), called(self._site.present, image)
        if in_force.blocked:
            why = f"the site's image policy cannot be read, so that nothing may run: {in_force.problem}"
            return Decision(name, of, False, "the image policy", why, "the same when its administrator mended it")
        if in_force.policy is None or revoked:
            return judge(None, asked, Facts(name, of, image.created_at, revoked), now)
        return judge(in_force.policy, asked, self._facts(image, of, now), now)

    def _revoked(self, image: Image) -> str:
        """Why nobody may run an image; "": it was not revoked, nor was one that it was made from."""
        made = revocation_of(self._site.present, image)
        return "" if made is None else why_revoked(made, image)

    @property
    def _membership(self) -> Membership:
        return self._site.settings.chosen.membership

    def _facts(self, image: Image, of: str, now: float) -> Facts:
        said = self._said_of(image)
        known = on_record(self._site.present)
        attested = tuple(judged(each, of, known, now) for each in said.attestations)
        name = called(self._site.present, image)
        gone = frozenset(key.name for key in known) - {key.name for key in known if not key.revoked}
        return Facts(
            name, of, image.created_at, attested=attested, bills=said.bills, bill_problem=said.bill_problem, gone=gone
        )

    def _said_of(self, image: Image) -> Said:
        known = self._said.get(image.id)
        if known is None or known.image is not image:
            known = self._said[image.id] = _read(image, self._site.store.documents(image.id))
        return known

    def vouched(self, workspace: Workspace, lease: Lease, image: Image) -> Vouched:
        """What a node is told of the image of a workspace. Whether an attestation had expired is asked as of when the
        workspace was made; whether its signer, the image itself or one whose disk it shares was revoked, as of now."""
        of = digest(image)
        group = next((group for group in lease.groups if group.name == workspace.group), None)
        revoked = self._why_not_booted(image, group)
        if revoked:
            return Vouched(of, refused=revoked)
        if group is None or not group.signers:
            return Vouched(of)
        attested = self._facts(image, of, workspace.created_at).attested
        good = [each for each in attested if set(each.keys) & set(group.signers)]
        keys = {pem: None for each in good for name, pem in each.keys.items() if name in group.signers}
        if not keys:
            return Vouched(of, refused=self._why_nobody(group, of, attested))
        return Vouched(of, tuple(each.content.decode() for each in good), tuple(keys))

    def boot_refusal(self, workspace: Workspace) -> str:
        """Why a node would not start a workspace again, in words; "": it would, or is to have none of it any more."""
        with self._site.lock:
            lease = self._site.present.leases.get(workspace.lease)
            image = self._site.present.images.get(workspace.image)
            if lease is None or image is None or workspace.state in UNORDERED:
                return ""
            return self.vouched(workspace, lease, image).refused

    def _why_not_booted(self, image: Image, group: Group | None) -> str:
        """Which of the images that a group boots or shares disks of was revoked, in words; "": none."""
        present = self._site.present
        shared = (present.images.get(disk.image) for disk in (group.disks if group else ()))
        for each in filter(None, (image, *shared)):
            revoked = self._revoked(each)
            if revoked:
                name = group.image_name if group and each is image else called(present, each)
                return f"the image {with_digest(name, digest(each))} was revoked: {revoked}"
        return ""

    @staticmethod
    def _why_nobody(group: Group, of: str, attested: tuple[Attested, ...]) -> str:
        problems = "; ".join(each.problem for each in attested if each.problem) or "its attestation is gone"
        name = with_digest(group.image_name, of)
        return f"the image {name} is not vouched for any more by {', '.join(group.signers)}: {problems}"

    def recording(self, caller: Caller, ask: Callable[[], T]) -> T:
        """`ask`, whose refusal by the image policy becomes an event."""
        try:
            return ask()
        except ImageRefused as refused:
            self._record_refusal(caller, refused)
            raise

    def _record_refusal(self, caller: Caller, refused: ImageRefused) -> None:
        said = refused.details
        image = self._refused_image(said["image"], said["digest"])
        told = {"name": said["image"], "at": "request", "reason": refused.problem}
        told |= {"digest": said["digest"], "rule": said["rule"]}

        def decide(draft: Draft) -> None:
            draft.say(REFUSED, owner=caller.subject, image=image, **told)

        try:
            self._site.change(caller.subject, decide)
        except Unavailable as error:
            log.warning("a refusal of the image policy is not on record: %s (%s)", refused.problem, error.problem)

    def _refused_image(self, name: str, of: str) -> str:
        """The id of the image of that digest; of several the one that is called so."""
        same = [image for image in list(self._site.present.images.values()) if digest(image) == of]
        same.sort(key=lambda image: called(self._site.present, image) != name)
        return same[0].id if same else ""

    def test(self, caller: Caller, asked: str, *, user: str | None = None, vo: str | None = None) -> Decision:
        """What the policy would say of an image, for the caller or, asked by an administrator, for others."""
        image = self._find(caller, asked)
        if (user or vo is not None) and user != caller.subject:
            caller.must_be(Role.ADMIN)
        name = user or caller.subject
        if vo is not None and vo not in ("", *self._membership.vos):
            there = ", ".join(sorted(self._membership.vos)) or "none"
            raise InvalidRequest(f"there is no VO {vo[:60]}", field="vo", asked=vo[:60], possible=there)
        with self._site.lock:
            who = Asked(name, self._membership.vo_of(name) if vo is None else vo)
            decision = self._judge(image, who, self._site.clock.now())
            return replace(decision, image=called_by(self._site.present, image, asked))

    # ------------------------------------------------------------ signers

    def add_signer(self, caller: Caller, name: str, pem: str, once: Once | None = None) -> Signer | Answer:
        """Put a key or certificate on record, after an authority's those of intermediate ones; of the same name and key
        again, with what is said of it now. Raises InvalidRequest, NameTaken; a key that was revoked stays so."""
        caller.must_be(Role.ADMIN)
        check_name(name)
        keyid, kind = checked_signer(pem)

        def decide(draft: Draft) -> Signer:
            for other in draft.present.signers.values():
                if other.keyid == keyid and other.revoked_at is not None:
                    raise InvalidRequest(
                        f"this key was revoked, as {other.name}'s: {other.reason or 'no reason given'}",
                        field="key",
                        possible="a new key",
                    )
                if other.revoked_at is None and (other.name == name or other.keyid == keyid):
                    if (other.name, other.keyid) == (name, keyid):
                        return _renewed(draft, other, pem, kind)
                    raise NameTaken(
                        f"{other.name} is on record already, with {'this' if other.keyid == keyid else 'another'} key",
                        field="name",
                        asked=name,
                        possible="another name, or revoke the old one first (vws image trust revoke)",
                    )
            new = Signer(self._site.ids.new("sgn"), name, keyid, kind, pem, draft.now, caller.subject)
            draft.say("signer.added", signer=new.id, name=name, keyid=keyid, key=kind)
            return draft.put_signer(new)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def signers(self, caller: Caller, *, revoked: bool = False) -> list[Signer]:
        """Those on record, in the order in which they came; the revoked ones too if asked for."""
        caller.must_be(Role.ADMIN, Role.USER)
        found = sorted(self._site.present.signers.values(), key=lambda signer: signer.id)
        return [signer for signer in found if revoked or signer.revoked_at is None]

    def signer(self, caller: Caller, asked: str) -> Signer:
        """By id or name; of several of that name the one who is not revoked, else the one revoked last."""
        known = self.signers(caller, revoked=True)
        found = next((signer for signer in known if signer.id == asked), None)
        if found is None:
            named = (signer for signer in known if signer.name == asked)
            found = max(named, key=lambda signer: signer.revoked_at or inf, default=None)
        if found is None:
            raise NotFound(
                f"there is no signer {asked[:60]!r}", field="id", asked=asked[:60], possible="vws image trust list"
            )
        return found

    def revoke_signer(
        self, caller: Caller, asked: str, *, reason: str, end: bool = False, once: Once | None = None
    ) -> Affected | Answer:
        """Believe a signer no more, from now on and of what he signed before. end: end the leases that run by his
        word; they are listed in any case."""
        caller.must_be(Role.ADMIN)
        _check_reason(reason)
        found = self.signer(caller, asked)

        def decide(draft: Draft) -> Affected:
            signer = draft.present.signers[found.id]
            # His name may be on record with another key by now, whose word counts.
            by_his_word = self._not_vouched_anew if signer.revoked_at is not None else _vouched
            if signer.revoked_at is None:
                signer = draft.put_signer(replace(signer, revoked_at=draft.now, reason=reason))
                draft.say("signer.revoked", signer=signer.id, name=signer.name, keyid=signer.keyid, reason=reason)
            why = f"{signer.name} was revoked: {signer.reason}"
            affected = _affect(draft, signer, lambda group: by_his_word(group, signer.name), why, end)
            return replace(affected, before=draft.present.signers[found.id].revoked_at is not None)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def _not_vouched_anew(self, group: Group, name: str) -> bool:
        image = self._site.present.images.get(group.image)
        if not _vouched(group, name) or image is None:
            return _vouched(group, name)
        facts = self._facts(image, digest(image), self._site.clock.now())
        return all(name not in each.keys for each in facts.attested)

    def put_crl(self, caller: Caller, asked: str, pem: str, once: Once | None = None) -> Signer | Answer:
        """Put on record what a signer's authority took back (PEM), in place of an older list of the same authority.
        What was signed by it is not believed any more. InvalidRequest with field "crl"."""
        caller.must_be(Role.ADMIN)
        found = self.signer(caller, asked)
        with_crl(found.crls, pem, found.pem)  # a long one is read before everybody waits for it

        def decide(draft: Draft) -> Signer:
            signer = _not_revoked(draft, found)
            if pem in signer.crls:
                return signer
            signer = draft.put_signer(replace(signer, crls=with_crl(signer.crls, pem, signer.pem)))
            facts = crl_facts(pem)
            told: dict[str, Any] = {"issuer": facts.issuer, "revoked": facts.revoked, "expires_at": facts.expires_at}
            draft.say("signer.crl", signer=signer.id, name=signer.name, **told)
            _affect(draft, signer, lambda group: signer.name in group.signers, "", end=False)
            return signer

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def drop_crls(self, caller: Caller, asked: str, once: Once | None = None) -> Signer | Answer:
        """Forget what a signer's authorities took back: it counts again."""
        caller.must_be(Role.ADMIN)
        found = self.signer(caller, asked)

        def decide(draft: Draft) -> Signer:
            signer = _not_revoked(draft, found)
            if not signer.crls:
                return signer
            draft.say("signer.crl", signer=signer.id, name=signer.name, dropped=len(signer.crls))
            return draft.put_signer(replace(signer, crls=()))

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def stale_crls(self) -> list[str]:
        """What is wrong with the lists on record, in words: those that hold no longer."""
        now = self._site.clock.now()
        live = [signer for signer in list(self._site.present.signers.values()) if signer.revoked_at is None]
        old = [(s.name, facts) for s in live for facts in map(crl_facts, s.crls) if facts.expires_at <= now]
        return [
            f"the list of revoked certificates (CRL) of {facts.issuer} has expired, so that nothing counts which it "
            f"certified (vws image trust crl {name} --file FILE)"
            for name, facts in old
        ]

    # ------------------------------------------------------------ images

    def revoke_image(
        self, caller: Caller, asked: str, *, reason: str, end: bool = False, only: bool = False,
        once: Once | None = None,
    ) -> Affected | Answer:  # fmt: skip
        """Let nobody run an image any more, nor what was made from it, whatever it is called and whoever brings it
        again. only: its digest alone, so that the same disk may run with another kernel or kernel line. One that is
        revoked already stays so, for the reason that was given then."""
        caller.must_be(Role.ADMIN)
        _check_reason(reason)
        image = self._find_ever(caller, asked)
        of, name = digest(image), called_by(self._site.present, image, asked)
        name = image.name if name == image.id else name  # of one that was removed

        def decide(draft: Draft) -> Affected:
            made = before = draft.present.revocations.get(of)
            if made is None:
                id = self._site.ids.new("rev")
                made = Revocation(
                    id, of, name, reason, caller.subject, draft.now, content="" if only else image.content
                )
                draft.put_revocation(made)
                draft.say("image.revoked", image=image.id, name=name, digest=of, reason=reason)
            reached = [each for each in draft.present.images.values() if reaches(made, each)]
            others = tuple(each for each in reached if each.id != image.id)
            if before is None:
                _say_revoked(draft, made, others)
            images = {each.id for each in reached}
            why = f"{with_digest(made.name, of)} was revoked: {made.reason}"
            affected = _affect(draft, made, lambda group: has(group, images), why, end)
            return replace(affected, images=others, before=before is not None)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def reinstate_image(self, caller: Caller, asked: str, once: Once | None = None) -> Reinstated | Answer:
        """Let an image run again, as the policy says: one on record, or one that was removed, by its digest or by what
        it was called when it was revoked. NotFound if it is not revoked itself."""
        caller.must_be(Role.ADMIN)
        image = self._still_found(caller, asked)

        def decide(draft: Draft) -> Reinstated:
            made = revocation_meant(draft.present, asked, image)
            draft.say("image.reinstated", image=image.id if image else "", name=made.name, digest=made.digest)
            lifted = draft.put_revocation(replace(made, lifted_at=draft.now))
            still = revocation_of(draft.present, image, besides=made) if image else None
            return Reinstated(lifted, still, why_revoked(still, image) if still and image else "")

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def _still_found(self, caller: Caller, asked: str) -> Image | None:
        try:
            return self._find_ever(caller, asked)
        except NotFound:
            return None

    def _find_ever(self, caller: Caller, asked: str) -> Image:
        """The same by the digest of an image that was removed. NotFound."""
        try:
            return self._find(caller, asked)
        except NotFound:
            image = self._removed(read_reference(asked, "id").digest)
            if image is None:
                raise
            return image

    def _removed(self, digits: str) -> Image | None:
        """The last image on record whose digest begins so."""
        after = None
        while digits:
            page = self._site.store.page(Image, Filter(), after=after, limit=1000, newest_first=True)
            found = next((image for image in page.items if digest(image).startswith(digits)), None)
            after = page.next
            if found is not None or after is None:
                return found
        return None

    def revocations(self, caller: Caller) -> list[Revocation]:
        caller.must_be(Role.ADMIN, Role.USER)
        return sorted(self._site.present.revocations.values(), key=lambda made: made.id)

    def attested(self, caller: Caller, asked: str) -> list[Attested]:
        """All attestations beside an image, judged; the policy is not asked."""
        image = self._find(caller, asked)
        with self._site.lock:
            return list(self._facts(image, digest(image), self._site.clock.now()).attested)

    # ------------------------------------------------------------ the record

    def decisions(self, caller: Caller, asked: str, *, after: int, limit: int) -> tuple[tuple[Event, ...], int | None]:
        """Who was allowed or refused an image, why and by whom vouched for, and where it ran; a user sees his own.
        With the seq from which to go on; None at the end."""
        image = self._find(caller, asked)
        owner = None if caller.is_admin else caller.subject
        found: list[Event] = []
        while True:
            events = self._site.events(Filter(owner=owner, image=image.id), after=after, limit=1000)
            for event in events:
                after = event.seq
                if event.kind in DECISIONS or event.kind in RUNS:
                    found.append(event)
                    if len(found) == limit:
                        return tuple(found), after
            if len(events) < 1000:
                return tuple(found), None

    # ------------------------------------------------------------ the policy

    def policy(self, caller: Caller) -> InForce:
        caller.must_be(Role.ADMIN, Role.USER)
        return self._book.in_force

    def warnings(self) -> list[str]:
        """What an administrator should know of the policy: that it is not the one in its file, or names nobody."""
        in_force = self._book.in_force
        known = {s.name for s in list(self._site.present.signers.values()) if s.revoked_at is None}
        unknown = [name for name in in_force.signers if name not in known]
        told = [in_force.problem] if in_force.problem else []
        if unknown:
            names = ", ".join(unknown)
            told.append(f"the image policy names {names}, of whom no key is on record (vws image trust add)")
        return told + self.stale_crls()


def _read(image: Image, documents: tuple[Any, ...]) -> Said:
    attestations = tuple(d.content for d in documents if d.kind is DocumentKind.ATTESTATION)
    bills, problem = [], ""
    for document in documents:
        if document.kind is DocumentKind.SBOM:
            try:
                bills.append(read_bill(document.content, hashlib.sha256(document.content).hexdigest()))
            except InvalidRequest as error:
                problem = error.problem
    return Said(image, attestations, tuple(bills), problem)


def _renewed(draft: Draft, signer: Signer, pem: str, kind: str) -> Signer:
    if signer.pem == pem:
        return signer
    draft.say("signer.renewed", signer=signer.id, name=signer.name, keyid=signer.keyid, key=kind)
    return draft.put_signer(replace(signer, pem=pem, kind=kind))


def _vouched(group: Group, name: str) -> bool:
    """Whether a group was granted by the word of a signer of that name, or of another too."""
    return name in group.signers


def _not_revoked(draft: Draft, found: Signer) -> Signer:
    signer = draft.present.signers[found.id]
    if signer.revoked_at is not None:
        raise InvalidRequest(f"{signer.name} is revoked: nothing of it counts", field="id", asked=signer.name)
    return signer


def _say_revoked(draft: Draft, made: Revocation, images: Iterable[Image]) -> None:
    """On record of each image that is revoked with another."""
    for image in images:
        told = {
            "name": called(draft.present, image),
            "digest": digest(image),
            "with": with_digest(made.name, made.digest),
        }
        draft.say("image.revoked", image=image.id, reason=why_revoked(made, image), **told)


def _check_reason(reason: str) -> None:
    if not reason.strip() or not reason.isprintable() or len(reason) > REASON_LENGTH_MAX:
        raise InvalidRequest(
            "a reason is needed, for those who will be refused",
            field="reason",
            asked=reason[:60],
            possible=f"one line of 1 to {REASON_LENGTH_MAX} printable characters",
        )


def _affect(draft: Draft, value: Any, concerns: Callable[[Any], bool], why: str, end: bool) -> Affected:
    """The leases that a revocation concerns: ended if that is asked for, and in any case what nodes are told of them
    is told anew, for what has not booted yet must not."""
    leases = [lease for lease in draft.leases() if not lease.ended and any(map(concerns, lease.groups))]
    for lease in leases:
        if end and lease.state is not LeaseState.ENDING:
            begin_end(draft, lease, LeaseState.FAILED if lease.active_at is None else LeaseState.ENDED, why)
        else:
            for workspace in draft.members(lease.id):
                if workspace.state not in UNORDERED:
                    draft.order(workspace)
    if end:
        settle(draft)
    return Affected(value, tuple(draft.lease(lease.id) for lease in leases), end)
