"""Clusters: launch, look, grow, shrink, suspend, restore, terminate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Response

from vws.core.members import member_name
from vws.core.site import Answer, Cluster, Workspace
from vws.frontends.rest import cluster_models as models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, Change, ChangeHere, Limit, Live, text
from vws.frontends.rest.operation import CHANGING, READING, body_limit, router
from vws.ports import Filter
from vws.service.clusters import ClusterView
from vws.service.once import Once

routes = router("clusters")
BODY_BYTES_MAX = 8 << 20


@routes.post(
    "/v1/clusters",
    operation_id="launch_cluster",
    status_code=201,
    response_model=models.Cluster,
    responses=CHANGING,
)
@body_limit(BODY_BYTES_MAX)
def launch_cluster(body: models.LaunchRequest, call: ChangeHere) -> Response:
    """Launch what a cluster file describes: all of it, or a refusal that names the line, or what would fit."""
    launch = body.value()
    return _changed(call, lambda once: call.services.clusters.launch(call.caller, launch, once), 201)


@routes.post(
    "/v1/clusters/explain", operation_id="explain_cluster", response_model=models.ClusterFit, responses=CHANGING
)
@body_limit(BODY_BYTES_MAX)
def explain_cluster(body: models.LaunchRequest, call: CallHere) -> Response:
    """What a launch would be answered now, and what the file describes. Nothing is changed."""
    file, fit = call.services.clusters.would_fit(call.caller, body.value())
    return call.answer(fit | {"notes": list(file.notes)})


@routes.get("/v1/clusters", operation_id="list_clusters", response_model=models.ClusterPage, responses=READING)
def list_clusters(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    live: Live = False,
    owner: Annotated[str | None, text("Only this user's.")] = None,
    name: Annotated[str | None, text("Only of this name.")] = None,
) -> Response:
    """Clusters in the order of their launch; a user sees his own."""
    where = Filter(owner=owner, name=name, live=live)
    page = call.services.clusters.clusters(call.caller, where, after=after, limit=limit)
    return call.page(page, lambda cluster: _shown(call, cluster))


@routes.get("/v1/clusters/{id}", operation_id="show_cluster", response_model=models.Cluster, responses=READING)
def show_cluster(id: str, call: CallHere) -> Response:
    """A cluster by its id, or by its name, with its members."""
    return call.answer(_shown(call, call.services.clusters.cluster(call.caller, id)))


@routes.post("/v1/clusters/{id}/grow", operation_id="grow_cluster", response_model=models.Cluster, responses=CHANGING)
def grow_cluster(id: str, body: models.Resized, call: ChangeHere) -> Response:
    """Add members to a group: all of them, or a refusal with what would fit."""
    return _changed(call, lambda once: call.services.clusters.grow(call.caller, id, body.group, body.count, once))


@routes.post(
    "/v1/clusters/{id}/shrink", operation_id="shrink_cluster", response_model=models.Cluster, responses=CHANGING
)
def shrink_cluster(id: str, body: models.Resized, call: ChangeHere) -> Response:
    """Terminate the last members of a group."""
    return _changed(call, lambda once: call.services.clusters.shrink(call.caller, id, body.group, body.count, once))


@routes.post(
    "/v1/clusters/{id}/suspend",
    operation_id="suspend_cluster",
    status_code=202,
    response_model=models.Cluster,
    responses=CHANGING,
)
def suspend_cluster(id: str, call: ChangeHere) -> Response:
    """Save all of its members to disk. Accepted: `state` says when it is done."""
    return _changed(call, lambda once: call.services.clusters.suspend(call.caller, id, once), 202)


@routes.post(
    "/v1/clusters/{id}/restore",
    operation_id="restore_cluster",
    status_code=202,
    response_model=models.Cluster,
    responses=CHANGING,
)
def restore_cluster(id: str, call: ChangeHere) -> Response:
    """Have all of its members go on where they stopped."""
    return _changed(call, lambda once: call.services.clusters.restore(call.caller, id, once), 202)


@routes.delete(
    "/v1/clusters/{id}",
    operation_id="terminate_cluster",
    status_code=202,
    response_model=models.Cluster,
    responses=CHANGING,
)
def terminate_cluster(id: str, call: ChangeHere) -> Response:
    """End all of its leases now. Accepted: it has ended once its node says that nothing is left."""
    return _changed(call, lambda once: call.services.clusters.terminate(call.caller, id, once), 202)


def _changed(call: Change, act: Callable[[Once | None], Cluster | Answer], status: int = 200) -> Response:
    return call.mutate(
        act,
        lambda cluster: _shown(call, cluster),
        in_draft=lambda cluster, draft: _seen(call, call.services.clusters.view_in(cluster, draft)),
        status=status,
    )


def _shown(call: CallHere | Change, cluster: Cluster) -> dict[str, Any]:
    return _seen(call, call.services.clusters.view(cluster))


def _seen(call: CallHere | Change, view: ClusterView) -> dict[str, Any]:
    cluster = view.cluster
    state, reason = view.stands
    record = view.context.record if view.context is not None else None
    ends = [lease.end for lease in view.leases if lease.end is not None]
    return {
        "id": cluster.id,
        "name": cluster.name,
        "owner": cluster.owner,
        "state": state,
        "reason": reason,
        "created_at": cluster.created_at,
        "ready_at": record.ready_at if record is not None else None,
        "ended_at": cluster.ended_at,
        "end": max(ends, default=None),
        "context": cluster.context,
        "context_state": record.state if record is not None else None,
        "networks": [
            {"id": n.id, "name": n.name, "cidr": n.cidr, "outgoing": n.outgoing, "pool": n.pool}
            for n in cluster.networks
        ],
        "groups": [
            {"group": r.group, "provides": r.provides, "requires": r.requires, "on_failure": r.on_failure}
            for r in cluster.roles
        ],
        "members": [_member(call, view, workspace) for workspace in view.members if workspace.released_at is None],
        "leases": [lease.id for lease in view.leases],
    }


def _member(call: CallHere | Change, view: ClusterView, workspace: Workspace) -> dict[str, Any]:
    name = member_name(workspace.group, workspace.number)
    names = {network.id: network.name for network in view.cluster.networks}
    nics = {names.get(nic.network, ""): nic.address for nic in workspace.nics} or {"": workspace.address}
    statuses = {} if view.context is None else {status.member.name: status for status in view.context.members}
    status = statuses.get(name)
    return {
        "name": name,
        "workspace": workspace.name,
        "id": workspace.id,
        "group": workspace.group,
        "state": workspace.state,
        "reason": workspace.reason,
        "node": call.views.node_name(workspace.node),
        "addresses": nics,
        "context": "" if status is None else str(status.state),
    }
