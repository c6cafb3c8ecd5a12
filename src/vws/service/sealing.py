"""The site's own key, with which the keys of encrypted images and workspaces are kept.

It is a file of the service's, apart from the store: who gets hold of the store, of a backup of it or of a listing has
sealed keys and can open none. What is sealed is bound to what it is a key of, so that no other record can borrow it.
The key is made the first time that something is to be sealed. Where something was sealed already and the key is not
there, none is made: a new key would open nothing and hide that the old one is missed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vws.core.draft import Draft
from vws.core.errors import Conflict, Unavailable
from vws.core.site import Image, SealedKey
from vws.service.site import Site

KEY_BYTES = 32
NONCE_BYTES = 12
_FORMAT = "vws1"


class SiteKey:
    """The key in the file `path`. used: whether anything was sealed before. Thread-safe."""

    def __init__(self, path: Path, used: Callable[[], bool]) -> None:
        self._path = path
        self._used = used
        self._lock = threading.Lock()

    def seal(self, secret: str, of: str) -> str:
        """`secret`, to be opened with the same `of` only."""
        key = self._key()
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + AESGCM(key).encrypt(nonce, secret.encode(), of.encode())
        return f"{_FORMAT}.{_name(key)}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, of: str) -> str:
        """Raises Conflict if this site's key is missing, is another one, or the sealed key was altered."""
        _, _, rest = sealed.partition(".")
        name, _, content = rest.partition(".")
        key = self._key()
        if _name(key) != name:
            raise Conflict(
                f"what was sealed with the site's key {name} cannot be opened with {_name(key)}, that of {self._path}",
                possible=f"put the file with the key {name} back from a backup; nothing was changed",
            )
        try:
            data = base64.urlsafe_b64decode(content)
            return AESGCM(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], of.encode()).decode()
        except (InvalidTag, ValueError):
            raise Conflict(
                f"the sealed key of {of.partition(' ')[0]} was altered in the store",
                possible="restore the store from a backup",
            ) from None

    def _key(self) -> bytes:
        with self._lock:
            try:
                return self._read()
            except FileNotFoundError:
                if self._used():
                    raise Conflict(
                        f"the site's key for encrypted images is missing ({self._path}); without it no encrypted image "
                        "can be run, exported or made",
                        possible="put the file back from a backup; images and workspaces are as they were",
                    ) from None
                return self._made()
            except OSError as error:
                raise Unavailable(
                    f"the site's key for encrypted images cannot be read ({self._path}: {error.strerror})",
                    possible="the file readable by the service's user alone",
                ) from None

    def _read(self) -> bytes:
        try:
            key = base64.b64decode(self._path.read_bytes().strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise Conflict(
                f"{self._path} does not hold the site's key for encrypted images",
                possible="put the file back from a backup; nothing was changed",
            )
        return key

    def _made(self) -> bytes:
        """On disk for sure before anything is sealed with it. Of two processes that make one, one does."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
                file.flush()
                os.fsync(fd)
            with contextlib.suppress(FileExistsError):
                os.link(new, self._path)
            _sync_folder(self._path.parent)
        finally:
            new.unlink(missing_ok=True)
        return self._read()


class KeyRing:
    """Sealed keys of a site's store."""

    def __init__(self, site: Site, site_key: SiteKey) -> None:
        self._site = site
        self._site_key = site_key

    def add(self, draft: Draft, of: str, file: str, passphrase: str) -> None:
        sealed = self._site_key.seal(passphrase, _bound(of, file))
        draft.add_key(SealedKey(self._site.ids.new("key"), of, file, sealed, draft.now))

    def opened(self, of: str) -> dict[str, str]:
        """The passphrases of an image or workspace, by file. Raises Conflict (service/sealing.py)."""
        return {key.file: self._site_key.open(key.sealed, _bound(of, key.file)) for key in self._site.store.keys(of)}

    def copy(self, draft: Draft, source: Image, to: Image) -> None:
        """Those of an image for another one of the same files."""
        for file, passphrase in self.opened(source.id).items():
            self.add(draft, to.id, file, passphrase)


def new_passphrase() -> str:
    """256 random bits, in letters that every tool takes for a passphrase."""
    return secrets.token_urlsafe(32)


def _bound(of: str, file: str) -> str:
    return f"{of} {file}"


def _name(key: bytes) -> str:
    """By which a key is told from others, and not found."""
    return hashlib.sha256(b"vws site key " + key).hexdigest()[:12]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
