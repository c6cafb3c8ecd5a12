"""A real node for the tests of this folder that need no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisors import LibvirtSite, demo_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    return demo_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def real_node(tmp_path_factory, bundle) -> Iterator[LibvirtSite]:
    site = LibvirtSite(tmp_path_factory.mktemp("node"), bundle)
    yield site
    site.tear_down()


@pytest.fixture
def site(real_node) -> Iterator[LibvirtSite]:
    """A node with nothing on it; each test must leave it so."""
    yield real_node
    assert real_node.remains() == set()
