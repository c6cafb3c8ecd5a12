"""Which passphrases an encrypted workspace needs, and whether they were given.

What is read of an image opens with the image's key; everything that the workspace writes is encrypted with one of its
own (service/keys.py says why).
"""

from __future__ import annotations

from collections.abc import Mapping

from vws.core.deployment import WorkspaceKeys, WorkspaceOrder
from vws.core.site import ImageFile
from vws.ports import HypervisorError

OWN = "own"


def needed(order: WorkspaceOrder, keys: WorkspaceKeys | None) -> Mapping[str, str]:
    """The passphrases by part. Raises HypervisorError if one is missing."""
    own = own_passphrase(order.encrypted, keys)
    return {OWN: own} | {f.sha256: _of(f, keys) for f in order.all_files if f.encryption}


def own_passphrase(encrypted: bool, keys: WorkspaceKeys | None) -> str:
    """With which everything is encrypted that a workspace writes to its node's disk; "": nothing of it is."""
    if not encrypted:
        return ""
    if keys is None or not keys.own:
        raise HypervisorError("it is encrypted, and its node was not given its key")
    return keys.own


def _of(file: ImageFile, keys: WorkspaceKeys | None) -> str:
    passphrase = keys.of(file) if keys else None
    if passphrase is None:
        raise HypervisorError(f"the service gives no key for the image's {file.role}: it may not be run (any more)")
    return passphrase
