"""Image lists of others (HEPiX) that the site follows: subscribed to, renewed, and images fetched from them.

Whose list counts is said beforehand by an administrator: the subject of the endorser's certificate and the authority
that issued it, which need not be one that anybody else here trusts. Everything that comes later is held against that:
each renewal is verified anew (service/smime.py) and must not go back in time, each image's bytes must have the sha512
that the list says, wherever they come from. What a list means for the images is core/subscriptions.py.

Only administrators cause these downloads, since the service fetches what they name from wherever it can reach.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import httpx

from vws.core import image_lists, subscriptions
from vws.core.draft import Draft
from vws.core.errors import Conflict, InvalidRequest, NameTaken, NotFound, Unavailable
from vws.core.image_lists import Endorser, ImageList
from vws.core.site import Answer, Image, Role, Subscribed, Subscription
from vws.service import smime
from vws.service.access import Caller
from vws.service.images import Images
from vws.service.once import Once
from vws.service.site import Site

SILENCE_S = 60.0
FETCH_S_MAX = 3000
REDIRECTS_MAX = 5
PIECE_BYTES = 1 << 20
NAME_LENGTH_MAX = 40  # as core/terms.py has it


class ImageLists:
    def __init__(self, site: Site, images: Images, folder: Path) -> None:
        self._site = site
        self._images = images
        self._folder = folder

    def sweep(self) -> None:
        """Remove what an earlier process left of messages that it looked at. Call it before serving."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------ lists

    def subscribe(
        self,
        caller: Caller,
        *,
        url: str,
        message: bytes | None,
        dn: str,
        ca_pem: str,
        shared: Iterable[str] = (),
        once: Once | None = None,
    ) -> Subscription | Answer:
        """Follow a list from now on. url: where it is published; message: the list itself, if it was handed in.
        dn: the subject of the endorser's certificate, /C=.../CN=...; ca_pem: the authority that issued it.

        Raises InvalidRequest with field "list", "ca", "endorser" or "shared", NameTaken if it is followed already,
        Unavailable if it cannot be fetched.
        """
        caller.must_be(Role.ADMIN)
        sharing = self._images.check_shared(shared)
        ca = smime.slashed(smime.check_authority(ca_pem).subject)
        found = self._verified(self._message(url, message), dn, ca_pem)
        now = self._site.clock.now()
        new = Subscription(
            id=self._site.ids.new("ils"),
            name=found.identifier,
            title="",
            version="",
            url=url,
            dn=dn,
            ca=ca,
            ca_pem=ca_pem,
            shared=sharing,
            images=(),
            created_at=0.0,
            expires_at=0.0,
            added_at=now,
            by=caller.subject,
            refreshed_at=now,
        )

        def decide(draft: Draft) -> Subscription:
            if any(each.name == new.name for each in draft.present.subscriptions.values()):
                raise NameTaken(
                    f"the list {new.name} is followed already",
                    field="list",
                    asked=new.name,
                    possible="vws image list-refresh; or give it up first (vws image list-unsubscribe)",
                )
            draft.say("list.subscribed", list=new.name, endorser=dn, authority=ca, version=found.version)
            return draft.put_subscription(subscriptions.renewed(new, found, draft.now))

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def refresh(
        self, caller: Caller, asked: str, message: bytes | None = None, once: Once | None = None
    ) -> Subscription | Answer:
        """Read the list again. What was wrong with it stays on record, as does the list that was in force."""
        before = self.subscription(caller, asked)
        try:
            found = self._verified(self._message(before.url, message), before.dn, before.ca_pem)
            return self._renew(caller, before.id, found, once)
        except (InvalidRequest, Unavailable) as error:
            self._note(caller, before.id, error.problem)
            raise

    def _renew(self, caller: Caller, id: str, found: ImageList, once: Once | None) -> Subscription | Answer:
        def decide(draft: Draft) -> Subscription:
            before = _live(draft, id)
            after = subscriptions.renewed(before, found, draft.now)
            if after.version != before.version or after.images != before.images:
                dropped = sorted({each.image for each in after.images if each.dropped_at == draft.now})
                draft.say("list.renewed", list=after.name, version=after.version, dropped=dropped)
            return draft.put_subscription(after)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def _note(self, caller: Caller, id: str, problem: str) -> None:
        def decide(draft: Draft) -> None:
            found = draft.present.subscriptions.get(id)
            if found is None:
                return
            if found.problem != problem:
                draft.say("list.failed", list=found.name, reason=problem, expires_at=found.expires_at)
            draft.put_subscription(replace(found, problem=problem, refreshed_at=draft.now))

        self._site.change(caller.subject, decide)

    def unsubscribe(self, caller: Caller, asked: str, once: Once | None = None) -> Subscription | Answer:
        """Follow a list no more. Images that came from it stay, and need its word no longer."""
        found = self.subscription(caller, asked)

        def decide(draft: Draft) -> Subscription:
            before = _live(draft, found.id)
            draft.say("list.unsubscribed", list=before.name)
            return draft.put_subscription(replace(before, removed_at=draft.now))

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def subscriptions(self, caller: Caller) -> list[Subscription]:
        caller.must_be(Role.ADMIN)
        return sorted(self._site.present.subscriptions.values(), key=lambda each: each.id)

    def subscription(self, caller: Caller, asked: str) -> Subscription:
        """By its id or the list's own identifier."""
        for each in self.subscriptions(caller):
            if asked in (each.id, each.name):
                return each
        raise NotFound(
            f"no list {asked[:60]!r} is followed", field="id", asked=asked[:60], possible="vws image lists shows them"
        )

    def warnings(self) -> list[str]:
        """What an administrator should know: which lists vouch for nothing any more, and which could not be read."""
        now, told = self._site.clock.now(), list[str]()
        for each in sorted(self._site.present.subscriptions.values(), key=lambda each: each.id):
            if each.expires_at <= now:
                told.append(f"the image list {each.name} has expired (vws image list-refresh)")
            elif each.problem:
                told.append(f"the image list {each.name} could not be read again (vws image list-show {each.name})")
        return told

    # ------------------------------------------------------------ images

    def fetch(
        self, caller: Caller, asked: str, identifier: str, name: str = "", once: Once | None = None
    ) -> Subscription | Answer:
        """Bring an image of a list to the site, under `name`; "": under one made of its title, with its version as tag
        and as the latest.

        Raises NotFound, Conflict for an expired list, InvalidRequest for bytes that are not what the list says.
        """
        found = self.subscription(caller, asked)
        listed = next((e for e in found.images if e.identifier == identifier and e.dropped_at is None), None)
        if listed is None:
            raise NotFound(
                f"the list {found.name} has no image {identifier[:80]!r}",
                field="identifier",
                asked=identifier[:80],
                possible=f"vws image list-show {found.name}",
            )
        if found.expires_at <= self._site.clock.now():
            raise Conflict(
                f"the list {found.name} expired on {image_lists.written_time(found.expires_at)}",
                asked=found.name,
                possible="a newer one first: vws image list-refresh",
            )
        image = self._images.add(
            caller, self._fetched(listed), name or _name_of(listed), shared=found.shared, declared=listed.format or None
        )
        assert isinstance(image, Image)
        if not name:
            self._images.tag(caller, image.id, _name_of(listed).partition(":")[0])
        return self._keep(caller, found.id, listed, image, once)

    def _keep(
        self, caller: Caller, id: str, listed: Subscribed, image: Image, once: Once | None
    ) -> Subscription | Answer:
        def decide(draft: Draft) -> Subscription:
            before = _live(draft, id)
            said = {"list": before.name, "endorser": before.dn, "identifier": listed.identifier}
            said |= {"version": listed.version, "sha512": listed.sha512}
            draft.say("list.fetched", image=image.id, owner=image.owner, **said)
            return draft.put_subscription(subscriptions.fetched(before, listed, image.id))

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def _fetched(self, listed: Subscribed) -> Path:
        """The file of an image, which has the length and the sha512 that the list says."""
        limit = self._site.settings.image_bytes_max
        if listed.size_bytes > limit:
            raise _not_as_listed(listed, f"it has {listed.size_bytes} bytes, and the site takes {limit}")
        target = self._images.begin()
        try:
            found = _download(listed.uri, target, listed.size_bytes)
            if target.stat().st_size != listed.size_bytes:
                raise _not_as_listed(listed, f"it has {target.stat().st_size} bytes, not {listed.size_bytes}")
            if found != listed.sha512:
                raise _not_as_listed(listed, "its sha512 is another")
            return target
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    # ------------------------------------------------------------ verifying

    def _verified(self, message: bytes, dn: str, ca_pem: str) -> ImageList:
        now = self._site.clock.now()
        signed = smime.verify(message, ca_pem, now, self._folder)
        if not image_lists.same_name(signed.dn, dn):
            raise InvalidRequest(
                f"the list is signed by {signed.dn[:200]!r}, not by {dn[:200]!r}",
                field="endorser",
                asked=dn[:200],
                possible="the list of the endorser whom you trust, or --endorser with the subject that signed it",
            )
        found = image_lists.read(_body(signed.payload))
        image_lists.check(found, Endorser(signed.dn, signed.ca), now)
        return found

    def _message(self, url: str, message: bytes | None) -> bytes:
        if message is not None:
            return message
        if not url:
            raise InvalidRequest(
                "the list has no address to fetch it from", field="list", possible="the list itself, as a file"
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = self._folder / self._site.ids.new("ils")
        try:
            _download(url, target, smime.MESSAGE_BYTES_MAX)
            return target.read_bytes()
        finally:
            target.unlink(missing_ok=True)


def _live(draft: Draft, id: str) -> Subscription:
    found = draft.present.subscriptions.get(id)
    if found is None:
        raise NotFound("the list was given up meanwhile", field="id", asked=id)
    return found


def _body(payload: bytes) -> bytes:
    """The JSON, without the header that some signers put before it."""
    head, _, rest = payload.replace(b"\r\n", b"\n").partition(b"\n\n")
    return rest if head.lower().startswith(b"content-type:") else payload


def _name_of(listed: Subscribed) -> str:
    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:NAME_LENGTH_MAX].strip("-")

    return f"{plain(listed.title) or plain(listed.identifier) or 'listed'}:v{plain(listed.version) or '0'}"


def _not_as_listed(listed: Subscribed, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"what {listed.uri[:200]} gives is not the image {listed.identifier[:80]} of the list: {problem}",
        field="identifier",
        asked=listed.identifier[:80],
        possible="the same when its publisher mended it",
    )


# ---------------------------------------------------------------- fetching


def _download(url: str, target: Path, bytes_max: int) -> str:
    """Write the file at an http(s) address to `target`; returns its sha512. Raises InvalidRequest or Unavailable."""
    if not re.match(r"https?://", url):
        raise InvalidRequest(
            f"{url[:100]!r} is no address to fetch from", field="url", asked=url[:200], possible="https:// or http://"
        )
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=REDIRECTS_MAX, timeout=SILENCE_S) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
            target.open("xb") as file,
        ):
            if answer.status_code != 200:
                raise _no_answer(url, f"it answers {answer.status_code}")
            return _receive(url, answer, file, bytes_max)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _no_answer(url, str(error) or type(error).__name__) from None
    except OSError as error:
        raise Unavailable(
            f"the service cannot keep the file: {error.strerror or error}", possible="the same when its disk has room"
        ) from None


def _receive(url: str, answer: httpx.Response, file: BinaryIO, bytes_max: int) -> str:
    until, digest, count = time.monotonic() + FETCH_S_MAX, hashlib.sha512(), 0
    for piece in answer.iter_raw(PIECE_BYTES):
        count += len(piece)
        if count > bytes_max:
            raise InvalidRequest(
                f"{url[:200]} gives more than {bytes_max} bytes", field="url", possible=f"at most {bytes_max} bytes"
            )
        if time.monotonic() > until:
            raise _no_answer(url, f"it took longer than {FETCH_S_MAX} s")
        file.write(piece)
        digest.update(piece)
    return digest.hexdigest()


def _no_answer(url: str, why: str) -> Unavailable:
    return Unavailable(f"{url[:200]} cannot be fetched: {why[:200]}", possible="the same when it answers again")
