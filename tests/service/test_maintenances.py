"""What administrators say of nodes: labels and attributes, and when somebody works on one."""

import pytest

from tests.service.conftest import ADMIN, ANN, BOB
from vws.core.errors import CannotFit, Conflict, Forbidden, InvalidRequest, NotFound
from vws.core.requirements import node_attributes, parse
from vws.core.site import Maintenance, MaintenanceState
from vws.core.traits import Attribute, Relabelling, Traits
from vws.ports import Filter

HOUR = 3600


def events(rig, *prefixes):
    found = rig.site.events(Filter(), after=0, limit=1000)
    return [event for event in found if event.kind.startswith(prefixes)]


def plan(rig, node, **fields):
    given = {"start": int(rig.clock.time) + HOUR, "duration_s": HOUR, "reason": "new disks"}
    return rig.services.maintenances.plan(ADMIN, node.name, **(given | fields))


# ---------------------------------------------------------------- labels


def test_labels_of_the_node_and_of_the_administrator_add_up(rig):
    (node,) = rig.enroll("n1")
    own = Traits("x86_64", ("nvidia",), ("ssd",), (Attribute("rack", "r1"), Attribute("gpus", 2)))
    rig.report(node.id, traits=own, hypervisor="kvm")
    change = Relabelling(("gpu", "ssd"), (Attribute("rack", "r2"),))
    after = rig.nodes.label(ADMIN, "n1", change)
    assert (after.every_label, after.every_attribute) == (("ssd", "gpu"), {"rack": "r2", "gpus": 2})
    # Another report takes nothing of it away, nor does a restart.
    rig.report(node.id, traits=Traits("x86_64", labels=("nvme",)), hypervisor="kvm")
    rig.restart()
    again = rig.nodes.node(ADMIN, "n1")
    assert (again.every_label, again.every_attribute) == (("nvme", "gpu", "ssd"), {"rack": "r2"})
    asked = parse('"gpu" in labels and rack == "r2" and kvm and cpus == 8 and arch == "x86_64" and memory_mib > 1')
    assert asked.matches(node_attributes(again))
    assert not parse('"nvidia" in accelerators').matches(node_attributes(again))


def test_what_is_removed_and_what_cannot_be(rig):
    (node,) = rig.enroll("n1")
    rig.report(node.id, traits=Traits(labels=("ssd",)))
    rig.nodes.label(ADMIN, node.id, Relabelling(("gpu", "old"), (Attribute("rack", "r2"),)))
    after = rig.nodes.label(ADMIN, node.id, Relabelling(("new",), removed=("old", "rack", "never")))
    assert (after.labels, after.attributes) == (("gpu", "new"), ())
    with pytest.raises(Conflict, match="in the node's own configuration"):
        rig.nodes.label(ADMIN, node.id, Relabelling(removed=("gpu", "ssd")))
    assert rig.nodes.node(ADMIN, node.id).labels == ("gpu", "new")
    with pytest.raises(Forbidden):
        rig.nodes.label(ANN, node.id, Relabelling(("gpu",)))
    said = events(rig, "node.labelled")
    assert [e.data["labels"] for e in said] == [["ssd", "gpu", "old"], ["ssd", "gpu", "new"]]
    rig.nodes.label(ADMIN, node.id, Relabelling(("gpu",)))
    assert len(events(rig, "node.labelled")) == 2, "nothing was changed"


@pytest.mark.parametrize("name", ["cpus", "labels", "and", "true", "Rack", "a-b", "", "x" * 41, "_x"])
def test_attributes_have_names_that_requirements_can_use(rig, name):
    rig.enroll("n1")
    with pytest.raises(InvalidRequest):
        rig.nodes.label(ADMIN, "n1", Relabelling(attributes=(Attribute(name, 1),)))


@pytest.mark.parametrize("value", [1 << 63, "a\nb", "x" * 201, "a\\b", True, 1.5])
def test_attributes_have_values_that_requirements_can_name(rig, value):
    rig.enroll("n1")
    with pytest.raises(InvalidRequest):
        rig.nodes.label(ADMIN, "n1", Relabelling(attributes=(Attribute("rack", value),)))


def test_a_report_with_impossible_traits_is_refused(rig):
    (node,) = rig.enroll("n1")
    for traits in (Traits("x86 64"), Traits(labels=("a b",)), Traits(attributes=(Attribute("cpus", 1),))):
        with pytest.raises(InvalidRequest):
            rig.report(node.id, traits=traits)
    assert rig.nodes.node(ADMIN, node.id).traits == Traits()


# ---------------------------------------------------------------- maintenance


def test_a_window_comes_and_goes_by_itself(rig):
    (node,) = rig.enroll("n1")
    window = plan(rig, node)
    assert (window.node, window.end - window.start, window.state) == (node.id, HOUR, MaintenanceState.PLANNED)
    rig.restart()
    assert rig.site.present.maintenances_of(node.id) == [window]
    rig.clock.time += HOUR
    rig.services.reconciler.tick()
    (on,) = rig.site.present.maintenances_of(node.id)
    assert (on.state, on.begun_at) == (MaintenanceState.ON, rig.clock.time)
    rig.clock.time += HOUR - 1
    rig.services.reconciler.tick()
    assert rig.site.present.maintenances == {window.id: on}
    rig.clock.time += 1
    rig.services.reconciler.tick()
    assert rig.site.present.maintenances == {}
    over = rig.services.maintenances.maintenance(ANN, window.id)
    assert over.state is MaintenanceState.OVER
    kinds = [e.kind for e in events(rig, "maintenance.")]
    assert kinds == ["maintenance.planned", "maintenance.begun", "maintenance.over"]
    assert all(e.node == node.id and e.data["reason"] == "new disks" for e in events(rig, "maintenance."))


def test_a_window_that_passed_while_nobody_looked_is_recorded_whole(rig):
    (node,) = rig.enroll("n1")
    plan(rig, node)
    rig.clock.time += 3 * HOUR
    rig.restart()
    rig.services.reconciler.tick()
    assert [e.kind for e in events(rig, "maintenance.b", "maintenance.o")] == ["maintenance.begun", "maintenance.over"]


def test_a_window_may_begin_now_and_end_early(rig):
    (node,) = rig.enroll("n1")
    window = plan(rig, node, start=None)
    assert (window.state, window.start) == (MaintenanceState.ON, int(rig.clock.time))
    rig.clock.time += 60
    removed = rig.services.maintenances.remove(ADMIN, window.id)
    assert removed.state is MaintenanceState.REMOVED
    with pytest.raises(NotFound):
        rig.services.maintenances.remove(ADMIN, window.id)
    where = Filter(live=True, node=node.id)
    assert rig.services.maintenances.maintenances(ANN, where, after=None, limit=9).items == ()
    late = plan(rig, node)
    rig.clock.time = late.end + 5
    assert rig.services.maintenances.remove(ADMIN, late.id).state is MaintenanceState.REMOVED


def test_who_plans_a_window_is_told_what_is_in_its_way(rig):
    (node,) = rig.enroll("n1")
    anns = rig.request(duration_s=HOUR + 60)
    rig.request(duration_s=HOUR, caller=BOB)
    window = plan(rig, node)
    tell = rig.services.maintenances.in_the_way
    assert tell(ADMIN, window) == [rig.leases.lease(ANN, anns.id)]
    assert tell(BOB, window) == []
    assert tell(ADMIN, rig.services.maintenances.remove(ADMIN, window.id)) == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"start": 0}, "start"),
        ({"start": 1 << 60}, "start"),
        ({"duration_s": 0}, "duration_s"),
        ({"start": 1_800_000_000 - 2 * HOUR}, "start"),
        ({"reason": " "}, "reason"),
        ({"reason": "a\nb"}, "reason"),
        ({"reason": "x" * 201}, "reason"),
    ],
)
def test_a_window_that_cannot_be(rig, fields, named):
    (node,) = rig.enroll("n1")
    with pytest.raises(InvalidRequest) as refused:
        plan(rig, node, **fields)
    assert refused.value.field == named
    assert rig.site.present.maintenances == {}


def test_only_administrators_plan_and_a_removed_node_needs_none(rig):
    (node,) = rig.enroll("n1")
    window = plan(rig, node)
    with pytest.raises(Forbidden):
        rig.services.maintenances.plan(ANN, "n1", start=None, duration_s=60, reason="so")
    with pytest.raises(Forbidden):
        rig.services.maintenances.remove(ANN, window.id)
    rig.nodes.remove(ADMIN, node.id)
    assert rig.site.present.maintenances == {}
    assert rig.store.get(Maintenance, window.id).state is MaintenanceState.REMOVED
    with pytest.raises(NotFound):
        plan(rig, node)


def test_nothing_is_placed_or_extended_into_a_window(rig):
    one, two = rig.enroll("n1", "n2")
    window = plan(rig, one)
    (on_two,) = rig.leases.members(rig.request(duration_s=HOUR + 1).id)
    assert on_two.node == two.id
    fits = rig.request(2, duration_s=HOUR, cpus=8)
    assert {w.node for w in rig.leases.members(fits.id)} == {one.id, two.id}
    with pytest.raises(CannotFit) as refused:
        rig.request(3, duration_s=HOUR + 1, cpus=8)
    assert refused.value.details["nodes"][0]["reason"] == "a maintenance (new disks) begins in 1h"
    with pytest.raises(CannotFit, match="cannot go on for 1s more on n1: a maintenance"):
        rig.leases.extend(ANN, fits.id, 1)
    rig.services.maintenances.remove(ADMIN, window.id)
    assert rig.leases.extend(ANN, fits.id, 1).end == fits.end + 1


def test_what_runs_into_a_window_can_still_be_made_smaller(rig):
    (node,) = rig.enroll("n1")
    lease = rig.request(duration_s=2 * HOUR, memory_mib=512)
    rig.obey()
    plan(rig, node)
    assert rig.leases.resize(ANN, lease.id, group=None, memory_mib=256, cpus=None).groups[0].memory_mib == 256
