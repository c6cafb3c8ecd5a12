"""What users have outstanding: what is counted is what a look at every lease would find."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.core.builders import World, node
from vws.core.outstanding import OVER, Outstanding
from vws.core.site import LeaseState

LEASE = World(node(1)).grant()
CHANGES = st.lists(
    st.builds(
        lambda id, count, state: replace(
            LEASE,
            id=f"lse-{id}",
            owner=("ann", "bob", "cid")[id % 3],
            groups=(replace(LEASE.groups[0], count=count),),
            state=state,
        ),
        st.integers(0, 8),
        st.integers(1, 5),
        st.sampled_from(list(LeaseState)),
    ),
    max_size=40,
)


@given(CHANGES, st.sets(st.sampled_from(["ann", "bob", "dan"])), st.sets(st.sampled_from(["lse-0", "lse-1", "lse-9"])))
def test_workspaces_are_counted_as_leases_come_change_and_go(changes, users, but):
    outstanding, leases = Outstanding(), {}
    for lease in changes:
        outstanding.put(lease)
        leases[lease.id] = lease
    looked_at = [
        lease for lease in leases.values() if lease.owner in users and lease.id not in but and lease.state not in OVER
    ]
    assert sorted(outstanding.of(users, but), key=lambda each: each.id) == sorted(looked_at, key=lambda each: each.id)
    assert outstanding.nodes(users, but) == sum(lease.groups[0].count for lease in looked_at)
