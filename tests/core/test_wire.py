"""Messages between service and node: whole and right, or refused with the field's path."""

import pytest

from vws.core.deployment import NodeOrders, NodeReport, WorkspaceFact, WorkspaceOrder
from vws.core.errors import InvalidRequest
from vws.core.lifecycle import Desired, Observation
from vws.core.site import Capacity, ImageFile
from vws.core.traits import Attribute, Traits
from vws.core.wire import from_json, to_json

REPORT = NodeReport(
    "nod-1", "inst", 1, 2, 3, 4.5, Capacity(2, 1024, 2048),
    workspaces=(WorkspaceFact("wsp-1", Observation.RUNNING, 1),),
    traits=Traits("x86_64", ("nvidia",), ("ssd",), (Attribute("rack", "r1"), Attribute("gpus", 2))),
)  # fmt: skip
ORDER = WorkspaceOrder(
    "wsp-1", "a-1", "lse-1", Desired.RUN, 1, True, 1000, "img-1", (ImageFile("disk", "00", 1, "qcow2", 2),), "disk", "",
    "root", "ssh", 300, 1, 1, 128, 128, 1024, "02:77:0a:00:00:02", "10.0.0.2", ("ssh-ed25519 AAAA",),
)  # fmt: skip


@pytest.mark.parametrize("value", [REPORT, NodeOrders("nod-1", 3, "10.0.0.0/24", "10.0.0.1", (ORDER,), 5.0)])
def test_values_survive_the_journey(value):
    assert from_json(type(value), to_json(value)) == value


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("node",), 7, "NodeReport.node"),
        (("sequence",), "2", "NodeReport.sequence"),
        (("sequence",), True, "NodeReport.sequence"),
        (("extra",), 1, "NodeReport.extra"),
        (("capacity", "cpus"), None, "NodeReport.capacity.cpus"),
        (("workspaces", 0, "state"), "flying", "NodeReport.workspaces[0].state"),
        (("workspaces",), {}, "NodeReport.workspaces"),
        (("capacity", "cpu_ratio"), float("inf"), "NodeReport.capacity.cpu_ratio"),
        (("at",), float("nan"), "NodeReport.at"),
        (("at",), 10**400, "NodeReport.at"),
        (("sequence",), 1 << 63, "NodeReport.sequence"),
        (("traits", "attributes", 0, "value"), True, "NodeReport.traits.attributes[0].value"),
        (("traits", "attributes", 1, "value"), 1.5, "NodeReport.traits.attributes[1].value"),
    ],
)
def test_a_wrong_field_is_named(path, value, named):
    data = to_json(REPORT)
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(InvalidRequest) as refused:
        from_json(NodeReport, data)
    assert refused.value.field == named


def test_a_missing_field_is_named():
    data = to_json(REPORT)
    del data["generation"]
    with pytest.raises(InvalidRequest) as refused:
        from_json(NodeReport, data)
    assert refused.value.field == "NodeReport.generation"
