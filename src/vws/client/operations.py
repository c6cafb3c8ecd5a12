"""Everything that can be asked of a site, one method each."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from vws.client import transfers
from vws.client.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, DOWNLOAD_TIMEOUT_S, Connection, given, parsed
from vws.client.errors import ApiError, ConnectionFailed, Json, VwsClientError
from vws.client.tunnel import Tunnel

# A large image is looked at and unpacked before the answer comes.
UPLOAD_TIMEOUT_S = 900.0
# The service downloads the image from where its list says.
FETCH_TIMEOUT_S = 3600.0
FOLLOW_GIVE_UP_S = 120.0

NOT_BEGUN = ("waiting", "planned", "pending")


class Client(Connection):
    """One site, as one user. See `Connection` for how it is reached."""

    # ------------------------------------------------------------ clusters

    def launch_cluster(self, file: str, **more: Any) -> Json:
        """file: the cluster file's text. more: files (base64 by path), parameters, name, duration_s, when, start,
        deadline, ssh_keys."""
        return self._change("POST", "/v1/clusters", {"file": file, **more})

    def explain_cluster(self, file: str, **more: Any) -> Json:
        """What launching it would be answered now."""
        return self._json("POST", "/v1/clusters/explain", json={"file": file, **more})

    def clusters(self, **where: Any) -> Iterator[Json]:
        """where: live, owner, name."""
        return self._pages("/v1/clusters", where)

    def cluster(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("clusters", id))

    def grow_cluster(self, id: str, group: str, count: int) -> Json:
        return self._change("POST", _path("clusters", id, "grow"), {"group": group, "count": count})

    def shrink_cluster(self, id: str, group: str, count: int) -> Json:
        return self._change("POST", _path("clusters", id, "shrink"), {"group": group, "count": count})

    def suspend_cluster(self, id: str) -> Json:
        return self._change("POST", _path("clusters", id, "suspend"))

    def restore_cluster(self, id: str) -> Json:
        return self._change("POST", _path("clusters", id, "restore"))

    def terminate_cluster(self, id: str) -> Json:
        return self._change("DELETE", _path("clusters", id))

    def create_context(self, name: str, members: list[Json], **spec: Any) -> Json:
        """A context of machines that VWS does not boot: its id, url, ca_pem, and each member's one-time secret.

        members: dicts with name, provides and requires. spec: roles, data, introduce, ssh, within_s, duration_s.
        """
        return self._change("POST", "/v1/contexts", {"name": name, "members": members, **spec})

    def contexts(self, **where: Any) -> Iterator[Json]:
        """where: live, name."""
        return self._pages("/v1/contexts", where)

    def close_context(self, id: str) -> Json:
        return self._change("DELETE", _path("contexts", id))

    def context(self, id: str) -> Json:
        """By id, or by name while it is open; with each member's status."""
        return self._json("GET", _path("contexts", id))

    def context_log(self, id: str, member: str) -> Json:
        """The ends of the outputs of a member's hooks."""
        return self._json("GET", _path("contexts", id, "members", member, "log"))

    # ------------------------------------------------------------ leases

    def request_lease(
        self,
        groups: list[Json],
        duration_s: int,
        name: str | None = None,
        ssh_keys: list[str] | tuple[str, ...] = (),
        **terms: Any,
    ) -> Json:
        """groups: dicts with image, and optionally name, count, cpus, memory_mib, disk_mib, requirement, apart and
        together.

        terms: `when` ("immediate" if not given, "reservation" with `start`, "best-effort", "deadline" with `deadline`,
        "periodic" with `rule`, `until`, `zone`, `exceptions`), urgent, preemptible, restartable, command. Times are UTC
        seconds.
        """
        return self._change("POST", "/v1/leases", _request(groups, duration_s, name, ssh_keys, terms))

    def explain_request(
        self,
        groups: list[Json],
        duration_s: int,
        name: str | None = None,
        ssh_keys: list[str] | tuple[str, ...] = (),
        **terms: Any,
    ) -> Json:
        """What the request would be answered now: {"fits", "reason", "nodes", "offers"}."""
        return self._json("POST", "/v1/leases/explain", json=_request(groups, duration_s, name, ssh_keys, terms))

    def leases(self, **where: Any) -> Iterator[Json]:
        """where: live, state, owner, name, series."""
        return self._pages("/v1/leases", where)

    def lease(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("leases", id))

    def explain_lease(self, id: str) -> Json:
        return self._json("GET", _path("leases", id, "explain"))

    def extend_lease(self, id: str, duration_s: int) -> Json:
        return self._change("POST", _path("leases", id, "extend"), {"duration_s": duration_s})

    def resize_lease(
        self, id: str, *, memory_mib: int | None = None, cpus: int | None = None, group: str | None = None
    ) -> Json:
        size = {"memory_mib": memory_mib, "cpus": cpus, "group": group}
        return self._change("POST", _path("leases", id, "resize"), size)

    def cancel_lease(self, id: str) -> Json:
        return self._change("DELETE", _path("leases", id))

    def wait_lease(self, id: str, timeout_s: float = 600.0, on_change: Callable[[Json], object] | None = None) -> Json:
        """The lease once it has begun, or never will: see its `state` for what became of it. `on_change` is called with
        each new look at it. TimeoutError after `timeout_s`; the lease goes on."""
        until, pause_s, before = time.monotonic() + timeout_s, 0.1, None
        while True:
            lease = self.lease(id)
            if on_change and lease != before:
                on_change(lease)
            if lease["state"] not in NOT_BEGUN:
                return lease
            if time.monotonic() + pause_s > until:
                raise TimeoutError(f"the lease {lease['name']} is still {lease['state']} after {timeout_s:g} s")
            before = lease
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.5)

    # ------------------------------------------------------------ the plan

    def plan(self, start: int | None = None, end: int | None = None) -> Json:
        """Who has which node when over [start, end), UTC seconds: title, nodes, bars, start, end, now. If not said,
        from an hour ago until the last planned end, a week ahead at most."""
        return self._json("GET", "/v1/plan", params=given({"start": start, "end": end}))

    # ------------------------------------------------------------ workspaces

    def workspaces(self, **where: Any) -> Iterator[Json]:
        """where: live, state, owner, lease, node, name."""
        return self._pages("/v1/workspaces", where)

    def workspace(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("workspaces", id))

    def command(self, id: str, verb: str) -> Json:
        """verb: pause, resume, suspend, restore, reboot or terminate."""
        if verb == "terminate":
            return self.terminate_workspace(id)
        return self._change("POST", _path("workspaces", id, verb))

    def terminate_workspace(self, id: str) -> Json:
        return self._change("DELETE", _path("workspaces", id))

    def save_workspace(self, id: str, name: str, *, at_end: bool = False, clean: bool = True) -> Json:
        """Let it become the image NAME or NAME:TAG. The save that is due; see `save` for what becomes of it."""
        asked = {"name": name, "when": "end" if at_end else "now", "clean": clean}
        return self._change("POST", _path("workspaces", id, "saves"), asked)

    def saves(self, **where: Any) -> Iterator[Json]:
        """where: live, workspace."""
        return self._pages("/v1/saves", where)

    def save(self, id: str) -> Json:
        return self._json("GET", _path("saves", id))

    def console(self, id: str, tail_bytes: int = 65536) -> bytes:
        """The end of the serial console's log."""
        return self._send("GET", _path("workspaces", id, "console"), params={"tail_bytes": tail_bytes}).content

    def tunnel(self, id: str, port: int = 22) -> Tunnel:
        """A byte stream to a TCP port of the guest. ApiError if the workspace does not run."""
        return Tunnel(self, _path("workspaces", id, "tunnel") + f"?port={port}")

    # ------------------------------------------------------------ images

    def upload_image(
        self,
        file: str | os.PathLike[str],
        name: str,
        *,
        shared: Sequence[str] | None = None,
        format: str | None = None,
        encrypt: bool = False,
        passphrase: str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Json:
        """Import a disk image or an appliance as NAME or NAME:TAG. It goes on where it broke, also after the program or
        the service was killed; its zeros are not sent. shared: who may use it (names of VOs, "public"); format: that it
        has, if its bytes are not to tell. encrypt: keep its disk encrypted; passphrase: of one that is already.
        `progress` is called with the bytes that are there. OSError if the file cannot be read."""
        told = progress or (lambda _: None)
        return transfers.upload(self, Path(file), name, shared, format, told, encrypt, passphrase)

    def encrypt_image(self, id: str, name: str, *, shared: Sequence[str] | None = None) -> Json:
        """An image of one's own, NAME or NAME:TAG, with the content of another, encrypted. Answered when it is made."""
        body = {"name": name, "shared": None if shared is None else list(shared)}
        return self._change("POST", _path("images", id, "encrypted"), body, timeout_s=UPLOAD_TIMEOUT_S)

    def image_passphrase(self, id: str) -> str:
        """What opens an encrypted image's disk, for its owner and administrators. Each time is an event."""
        passphrase: str = self._json("POST", _path("images", id, "key"))["passphrase"]
        return passphrase

    def download_image_file(
        self,
        image: str,
        sha256: str,
        size_bytes: int,
        target: str | os.PathLike[str],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """One file of an image to `target`, going on with what is there, verified while it comes: VwsClientError, and
        `target` is gone, if it is not what its sha256 says. Zeros are not sent and become holes."""
        transfers.download(self, image, sha256, size_bytes, Path(target), progress or (lambda _: None))

    def images(self, **where: Any) -> Iterator[Json]:
        """Those that one may use. where: name (NAME or NAME:TAG), all (removed ones too)."""
        return self._pages("/v1/images", where)

    def image(self, id: str) -> Json:
        """By NAME, NAME:TAG, id or sha256:DIGEST."""
        return self._json("GET", _path("images", id))

    def tag_image(self, id: str, name: str) -> Json:
        """Let NAME or NAME:TAG point at it from now on."""
        return self._change("POST", _path("images", id, "tags"), {"name": name})

    def untag_image(self, name: str) -> Json:
        return self._change("DELETE", _path("image-names", name))

    def image_history(self, name: str, **where: Any) -> Iterator[Json]:
        """What a NAME's tags, or NAME:TAG, point and pointed at, the last first; pages are fetched as they are needed.
        where: limit, of a page."""
        return self._pages(_path("image-names", name), where)

    def share_image(self, id: str, shared: Sequence[str]) -> Json:
        """shared: names of VOs, "public" for all, none for its owner alone."""
        return self._change("PUT", _path("images", id, "sharing"), {"shared": list(shared)})

    def copy_image(self, id: str, name: str, *, flat: bool = False) -> Json:
        """An image of one's own with another's files. flat: with a disk that stands alone, where the other's is a
        delta; returns when it is written, and `flattening` tells how far it is."""
        within_s = DOWNLOAD_TIMEOUT_S if flat else ANSWER_TIMEOUT_S
        return self._change("POST", _path("images", id, "copies"), {"name": name, "flat": flat}, timeout_s=within_s)

    def flattening(self, id: str) -> Json:
        """How far one's own flattening of an image is: done_bytes of at most most_bytes. NotFound: none goes on."""
        return self._json("GET", _path("images", id, "flattening"))

    def remove_image(self, id: str, *, now: bool = False) -> Json:
        """At once, or when the last lease that uses it is over (`retired_at` is set till then). now: refused rather
        than waiting."""
        return self._change("DELETE", _path("images", id), params={"now": now})

    def verify_image(self, id: str) -> Json:
        """Have its files read and compared with their sha256s; `damaged` in the answer says what is wrong."""
        return self._change("POST", _path("images", id, "verify"), timeout_s=UPLOAD_TIMEOUT_S)

    def collect_images(self, *, dry_run: bool = False) -> Json:
        """{"images", "files"}: what nothing pointed at, and is gone now (or would be)."""
        return self._change("POST", "/v1/images/collect", params={"dry_run": dry_run}, timeout_s=UPLOAD_TIMEOUT_S)

    def image_documents(self, id: str) -> list[Json]:
        """What is kept beside an image: sbom, provenance and attestation, each without its content."""
        items: list[Json] = self._json("GET", _path("images", id, "documents"))["items"]
        return items

    def image_document(self, id: str, document: str) -> bytes:
        """A document's content."""
        return self._send("GET", _path("images", id, "documents", document)).content

    def add_image_document(self, id: str, kind: str, media_type: str, content: bytes) -> Json:
        """kind: sbom, provenance or attestation. The same content again is the same document."""
        headers = {"Content-Type": "application/octet-stream"} | self._client_token()
        where = {"kind": kind, "media_type": media_type}
        path = _path("images", id, "documents")
        return parsed(self._send("POST", path, params=where, headers=headers, content=lambda: iter((content,))))

    def remove_image_document(self, id: str, document: str) -> Json:
        """For the image's owner, administrators and who added it."""
        return self._change("DELETE", _path("images", id, "documents", document))

    # ------------------------------------------------------------ trust

    def add_signer(self, name: str, pem: str) -> Json:
        """pem: a public key or a certificate, after an authority's those of intermediate ones."""
        return self._change("POST", "/v1/signers", {"name": name, "pem": pem})

    def signers(self, *, everything: bool = False) -> list[Json]:
        """everything: the revoked ones too."""
        items: list[Json] = self._json("GET", "/v1/signers", params={"all": everything})["items"]
        return items

    def put_crl(self, id: str, pem: str) -> Json:
        """Put on record which certificates a signer's authority took back: its CRL, PEM."""
        return self._change("PUT", _path("signers", id, "crl"), {"pem": pem})

    def drop_crls(self, id: str) -> Json:
        """Forget what a signer's authorities took back."""
        return self._change("DELETE", _path("signers", id, "crl"))

    def revoke_signer(self, id: str, reason: str, *, end: bool = False) -> Json:
        """By name or id. {"signer", "leases", "ended"}: the leases that run by his word, ended if asked for."""
        return self._change("POST", _path("signers", id, "revoke"), {"reason": reason, "end": end})

    def revoke_image(self, id: str, reason: str, *, end: bool = False, only: bool = False) -> Json:
        """{"revocation", "images", "leases", "ended"}. only: not what else has the same disk."""
        return self._change("POST", _path("images", id, "revoke"), {"reason": reason, "end": end, "only": only})

    def reinstate_image(self, id: str) -> Json:
        return self._change("POST", _path("images", id, "reinstate"))

    def revoked_images(self) -> list[Json]:
        items: list[Json] = self._json("GET", "/v1/revoked-images")["items"]
        return items

    def attestations(self, id: str) -> list[Json]:
        """Who vouches for an image, and what of it counts."""
        items: list[Json] = self._json("GET", _path("images", id, "attestations"))["items"]
        return items

    def judge_image(self, id: str, *, user: str | None = None, vo: str | None = None) -> Json:
        """What the image policy would say: {"allowed", "reason", "rule", "needs", ...}."""
        return self._json("POST", _path("images", id, "judge"), json=given({"user": user, "vo": vo}))

    def image_policy(self) -> Json:
        """{"text", "since", "problem", "blocked", "warnings"}"""
        return self._json("GET", "/v1/image-policy")

    def image_decisions(self, id: str) -> Iterator[Json]:
        """Events: who was allowed or refused an image, and where it ran."""
        return self._pages(_path("images", id, "decisions"), {})

    def export_image(
        self,
        id: str,
        format: str,
        target: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> str:
        """Write an image to the file `target` (replaced when it is whole) in another format: qcow2, raw, vmdk, vpc,
        vhdx, vdi, bundle or oci. Returns what of the image is not in it, in words; "": nothing. `progress` is called
        with the bytes received so far and all. What breaks goes on, the next time too if that is within an hour or no
        disk had to be converted. OSError if the file cannot be written."""
        where, told = {"format": format}, progress or (lambda *_: None)
        headers = transfers.export(self, _path("images", id, "export"), where, Path(target), told)
        return unquote(headers.get("X-Left-Out", ""))

    # ------------------------------------------------------------ image lists

    def subscribe_image_list(
        self, endorser: str, ca_pem: str, *, url: str = "", message: bytes | None = None, shared: Sequence[str] = ()
    ) -> Json:
        """Follow a HEPiX image list: the one at `url`, or `message` itself. endorser: the subject of the certificate
        that must sign it, which the authority `ca_pem` issued."""
        body = {"url": url, "message": _in_base64(message), "endorser": endorser, "ca_pem": ca_pem}
        return self._change("POST", "/v1/image-lists", {**body, "shared": list(shared)}, timeout_s=UPLOAD_TIMEOUT_S)

    def image_lists(self) -> list[Json]:
        items: list[Json] = self._json("GET", "/v1/image-lists")["items"]
        return items

    def image_list(self, id: str) -> Json:
        """By its id or its own identifier."""
        return self._json("GET", _path("image-lists", id))

    def refresh_image_list(self, id: str, message: bytes | None = None) -> Json:
        body = {"message": _in_base64(message)}
        return self._change("POST", _path("image-lists", id, "refresh"), body, timeout_s=UPLOAD_TIMEOUT_S)

    def fetch_listed_image(self, id: str, identifier: str, name: str = "") -> Json:
        """The list, in which the image has an id now."""
        body = {"identifier": identifier, "name": name}
        return self._change("POST", _path("image-lists", id, "fetch"), body, timeout_s=FETCH_TIMEOUT_S)

    def unsubscribe_image_list(self, id: str) -> Json:
        return self._change("DELETE", _path("image-lists", id))

    # ------------------------------------------------------------ nodes

    def nodes(self, **where: Any) -> Iterator[Json]:
        """where: name, all."""
        return self._pages("/v1/nodes", where)

    def node(self, id: str) -> Json:
        """By id or name."""
        return self._json("GET", _path("nodes", id))

    def caches(self) -> Iterator[Json]:
        """What each node has in its image cache."""
        return self._pages("/v1/caches", {})

    def cache(self, node: str) -> Json:
        """By the node's id or name."""
        return self._json("GET", _path("nodes", node, "cache"))

    def prefetch_image(self, node: str, image: str) -> Json:
        """Have an image in a node's cache. The task that is due; see `cache` for what becomes of it."""
        return self._change("POST", _path("nodes", node, "cache", "prefetch"), {"image": image})

    def clear_cache(self, node: str, image: str | None = None) -> Json:
        """Drop an image, or all that is unused (None), from a node's cache. The task that is due."""
        return self._change("POST", _path("nodes", node, "cache", "clear"), {"image": image})

    def drain_node(self, id: str) -> Json:
        return self._change("POST", _path("nodes", id, "drain"))

    def undrain_node(self, id: str) -> Json:
        return self._change("POST", _path("nodes", id, "undrain"))

    def label_node(
        self,
        id: str,
        *,
        labels: Sequence[str] = (),
        attributes: dict[str, str | int] | None = None,
        remove: Sequence[str] = (),
    ) -> Json:
        """The node, after these labels and attributes were given to it and those named in `remove` taken away."""
        body = {"labels": list(labels), "attributes": attributes or {}, "remove": list(remove)}
        return self._change("POST", _path("nodes", id, "label"), body)

    def remove_node(self, id: str, *, force: bool = False) -> Json:
        return self._change("DELETE", _path("nodes", id), params={"force": force})

    def invite_node(self, lifetime_s: int = 3600) -> Json:
        """{"token": ..., "url": ...}: the word with which `vws node join` makes another host a node, once."""
        return self._change("POST", "/v1/nodes/invitations", {"lifetime_s": lifetime_s})

    # ------------------------------------------------------------ addresses

    def pools(self) -> list[Json]:
        """The pools of addresses that the site has set aside."""
        found: list[Json] = self._json("GET", "/v1/pools")["items"]
        return found

    def reserve_address(
        self, name: str, *, pool: str | None = None, address: str = "", owner: str | None = None
    ) -> Json:
        """An address of a pool (None: the default one) that is yours, or `owner`'s, until it is released."""
        body = {"name": name, "pool": pool, "address": address, "owner": owner}
        return self._change("POST", "/v1/addresses", body)

    def addresses(self, **where: Any) -> Iterator[Json]:
        """where: live, owner, pool."""
        return self._pages("/v1/addresses", where)

    def address(self, id: str) -> Json:
        """By id, by the name under which it is reserved, or itself."""
        return self._json("GET", _path("addresses", id))

    def release_address(self, id: str) -> Json:
        return self._change("DELETE", _path("addresses", id))

    # ------------------------------------------------------------ maintenance

    def plan_maintenance(self, node: str, duration_s: int, reason: str, *, start: int | None = None) -> Json:
        """Keep a node (by id or name) free for so long, from `start` (UTC seconds; None: now). `leases` of the answer:
        the names of those that are there meanwhile."""
        body: Json = {"duration_s": duration_s, "reason": reason} | ({} if start is None else {"start": start})
        return self._change("POST", _path("nodes", node, "maintenances"), body)

    def maintenances(self, **where: Any) -> Iterator[Json]:
        """where: node, all."""
        return self._pages("/v1/maintenances", where)

    def maintenance(self, id: str) -> Json:
        return self._json("GET", _path("maintenances", id))

    def remove_maintenance(self, id: str) -> Json:
        return self._change("DELETE", _path("maintenances", id))

    # ------------------------------------------------------------ tokens

    def create_token(self, subject: str, role: str = "user", lifetime_s: int | None = None) -> Json:
        """The token's text is in `token`, this once."""
        return self._change("POST", "/v1/tokens", {"subject": subject, "role": role, "lifetime_s": lifetime_s})

    def tokens(self, **where: Any) -> Iterator[Json]:
        """where: live."""
        return self._pages("/v1/tokens", where)

    def revoke_token(self, id: str) -> Json:
        return self._change("DELETE", _path("tokens", id))

    # ------------------------------------------------------------ events

    def events(self, after: int | None = None, **where: Any) -> Iterator[Json]:
        """What happened, in order. where: lease, workspace, node."""
        return self._pages("/v1/events", where | {"after": after})

    def follow_events(self, after: int | None = None, **where: Any) -> Iterator[Json]:
        """Events as they happen, without end: from now on, or those after the seq `after`. Broken connections are
        made anew and nothing is left out; ConnectionFailed if there is none at first, or for two minutes."""
        last_id, heard_at = None if after is None else str(after), float("-inf")
        while True:
            try:
                for seen_id, event in self._stream(last_id, where):
                    last_id, heard_at = seen_id, time.monotonic()
                    if event is not None:
                        yield event
            except ConnectionFailed:
                if time.monotonic() - heard_at > FOLLOW_GIVE_UP_S:
                    raise
            time.sleep(1)

    # ------------------------------------------------------------ usage

    def usage(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        progress: Callable[[int, int], object] | None = None,
        **where: Any,
    ) -> Json:
        """What was reserved and used, with charges. since, until: UTC seconds or dates of the site's clock (2026-10);
        without them this month until now. where: by (user, vo, lease, day), user, vo, lease. `progress` is called with
        how many events were read, of how many."""
        for name, data in self._named_events("/v1/usage", where | {"from": since, "to": until}):
            if name == "usage":
                return data
            if name == "problem":
                raise ApiError(data["status"], data)
            if progress and name == "progress":
                progress(data["read"], data["of"])
        raise ConnectionFailed(
            "the report broke off", code="unreachable", possible="the same again; the service's log says why"
        )

    # ------------------------------------------------------------ the site

    def rates(self) -> list[Json]:
        """How long each step takes here, as configured and as learned; for administrators."""
        items: list[Json] = self._json("GET", "/v1/rates")["items"]
        return items

    def site(self) -> Json:
        """name, url, version, time."""
        return self._json("GET", "/v1/site")

    def healthy(self) -> bool:
        """Does the service answer, and its store with it? One try; raises nothing."""
        import httpx

        try:
            return self._http().get("/v1/health", timeout=CONNECT_TIMEOUT_S).status_code == 200
        except (httpx.HTTPError, VwsClientError):
            return False


def _request(
    groups: list[Json], duration_s: int, name: str | None, ssh_keys: list[str] | tuple[str, ...], terms: Json
) -> Json:
    body: Json = {"groups": groups, "duration_s": duration_s, "ssh_keys": list(ssh_keys)}
    return body | terms | ({"name": name} if name is not None else {})


def _path(*parts: str) -> str:
    # A name of dots alone would be taken for a folder.
    return "/v1/" + "/".join(quote(part, safe="").replace(".", "%2E") for part in parts)


def _in_base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
