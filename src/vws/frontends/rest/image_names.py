"""How images are called in requests. The patterns are for readers and generators of the API's document: what breaks
them is refused by core/image_names.py, in words."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from vws.core.image_names import NEW_NAME_PATTERN, REFERENCE_PATTERN
from vws.frontends.rest.operation import REFERENCE_LENGTH_MAX

Named = Annotated[
    str,
    Path(
        description="NAME, NAME:TAG, id or sha256:DIGEST.",
        max_length=REFERENCE_LENGTH_MAX,
        json_schema_extra={"pattern": REFERENCE_PATTERN},
    ),
]
NEW_NAME: dict[str, Any] = {"pattern": NEW_NAME_PATTERN}
