from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.machine import unpack
from vws.guest import appliance

CACHE = Path(__file__).parents[2] / "build" / "cache"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """The bundle that these sources make, which build/appliance may not hold yet."""
    out = tmp_path_factory.mktemp("bundle") / "demo.vws"
    appliance.build(out, CACHE)
    return out


@pytest.fixture(scope="session")
def parts(bundle, tmp_path_factory) -> Path:
    """A folder of the bundle's files."""
    folder = tmp_path_factory.mktemp("parts")
    unpack(bundle, folder)
    return folder
