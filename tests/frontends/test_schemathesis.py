"""The API against its own document: whatever schemathesis thinks up, no 5xx, and answers as described."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.frontends.conftest import Running, Server
from vws.frontends.rest.app import bare_app
from vws.service.access import SITE
from vws.store.sql import SqlStore

# What it thinks up takes it seconds: in the tests themselves, not whenever somebody collects them.
quick, thorough = (schemathesis.pytest.from_fixture(name) for name in ("document", "covered"))
SAME = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}

# Which images, VOs, names, cursors and files there are, which letters can be printed and what time it is, no schema can
# say: theirs is valid data that is refused all the same.
SITUATIONAL = {
    "subscribe_image_list", "reserve_address", "begin_upload", "share_image", "tag_image", "copy_image",
    "encrypt_image", "untag_image", "image_history",
    "request_lease", "create_context", "explain_request", "import_image", "show_plan", "launch_cluster",
    "explain_cluster", "add_signer", "revoke_signer", "put_crl", "judge_image", "revoke_image", "reinstate_image",
    "prefetch_image", "clear_cache",
    "complete_upload",
}  # fmt: skip


def described(request):
    request.node._nodeid = request.node.nodeid  # by which schemathesis 4.32 names what it runs, gone from pytest 9.2
    return schemathesis.openapi.from_dict(bare_app().openapi())


@pytest.fixture
def document(request):
    document = described(request)
    document.config.phases.coverage.enabled = False
    return document


@pytest.fixture
def covered(request):
    """With every bound of every schema, beside what is thought up."""
    return described(request)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    store = SqlStore.open(f"sqlite:///{directory / 'site.db'}")
    server = Server()
    running = Running(server, store, directory, image_bytes_max=1 << 20)
    (node,) = running.enroll("one")
    running.lease(2, name="cluster")
    node.obey()
    running.node = node
    yield running
    running.close()
    server.stop()
    store.close()


@pytest.mark.timeout(600)
@quick.parametrize()
@settings(max_examples=4, **SAME)
def test_the_api_keeps_its_word(case, site):
    keeps_its_word(case, site)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@thorough.parametrize()
@settings(max_examples=20, **SAME)
def test_the_api_keeps_its_word_at_every_bound(case, site):
    keeps_its_word(case, site)


def keeps_its_word(case, site):
    name = case.operation.definition.raw["operationId"]
    excluded = [positive_data_acceptance] if name in SITUATIONAL or name.startswith("list_") else []
    headers = {"Authorization": f"Bearer {site.root_token}"}
    case.call_and_validate(base_url=site.url, headers=headers, timeout=10, excluded_checks=excluded)


@thorough.include(operation_id=["pull_orders", "send_report", "keep_console", "join_site"]).parametrize()
@settings(max_examples=10, **SAME)
def test_a_nodes_side_keeps_its_word_to_a_node(case, site):
    """With a token of the right role, so that what reads the messages is reached."""
    name, token = case.operation.definition.raw["operationId"], site.node.token
    if name == "join_site":
        _, token = site.services.nodes.invite(SITE, 60)
    else:
        case.path_parameters["id"] = site.node.id
    if isinstance(case.query.get("wait"), int | float):
        case.query["wait"] = min(case.query["wait"], 0.05)
    if isinstance(case.body, dict) and isinstance(case.body.get("node"), str):
        case.body["node"] = site.node.id
    headers = {"Authorization": f"Bearer {token}"}
    # Whose report it is and which names are free, no schema can say.
    case.call_and_validate(
        base_url=site.url, headers=headers, timeout=10, excluded_checks=[positive_data_acceptance, ignored_auth]
    )
