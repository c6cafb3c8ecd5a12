"""The site's pools of addresses, and what is reserved of them or held."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Response

from vws.core.site import Address
from vws.frontends.rest import address_models as models
from vws.frontends.rest.call import LIMIT_DEFAULT, After, CallHere, Change, ChangeHere, Limit, Live, text
from vws.frontends.rest.operation import CHANGING, READING, router
from vws.ports import Filter
from vws.service.addresses import PoolView

routes = router("addresses")


@routes.get("/v1/pools", operation_id="list_pools", response_model=models.Pools, responses=READING)
def list_pools(call: CallHere) -> Response:
    """The pools of addresses that the site has set aside, and how much of each is free."""
    return call.answer({"items": [_pool(view) for view in call.services.addresses.pools(call.caller)]})


@routes.post(
    "/v1/addresses",
    operation_id="reserve_address",
    status_code=201,
    response_model=models.Address,
    responses=CHANGING,
)
def reserve_address(body: models.AddressRequest, call: ChangeHere) -> Response:
    """Reserve an address of a pool under a name. It stays yours, held or not, until you release it."""
    return call.mutate(
        lambda once: call.services.addresses.reserve(
            call.caller, body.name, pool=body.pool, address=body.address, owner=body.owner, once=once
        ),
        lambda address: _shown(call, address),
        status=201,
    )


@routes.get("/v1/addresses", operation_id="list_addresses", response_model=models.AddressPage, responses=READING)
def list_addresses(
    call: CallHere,
    after: After = None,
    limit: Limit = LIMIT_DEFAULT,
    live: Live = False,
    owner: Annotated[str | None, text("Only this user's.")] = None,
    pool: Annotated[str | None, text("Only of this pool.")] = None,
) -> Response:
    """Addresses that are reserved or held; a user sees his own."""
    where = Filter(owner=owner, pool=pool, live=live)
    page = call.services.addresses.addresses(call.caller, where, after=after, limit=limit)
    return call.page(page, lambda address: _shown(call, address))


@routes.get("/v1/addresses/{id}", operation_id="show_address", response_model=models.Address, responses=READING)
def show_address(id: str, call: CallHere) -> Response:
    """An address by its id, its name or itself."""
    return call.answer(_shown(call, call.services.addresses.address(call.caller, id)))


@routes.delete("/v1/addresses/{id}", operation_id="release_address", response_model=models.Address, responses=CHANGING)
def release_address(id: str, call: ChangeHere) -> Response:
    """Give a reserved address back to its pool; not while a member of a cluster holds it."""
    return call.mutate(
        lambda once: call.services.addresses.release(call.caller, id, once), lambda address: _shown(call, address)
    )


def _shown(call: CallHere | Change, address: Address) -> dict[str, Any]:
    return {
        "id": address.id,
        "pool": address.pool,
        "address": address.address,
        "owner": address.owner,
        "name": address.name,
        "cluster": address.cluster,
        "cluster_name": call.services.addresses.cluster_name(address),
        "member": address.member,
        "created_at": address.created_at,
        "released_at": address.released_at,
    }


def _pool(view: PoolView) -> dict[str, Any]:
    pool = view.pool
    return {
        "name": pool.name,
        "range": pool.cidr,
        "gateway": pool.gateway,
        "default": view.default,
        "require": pool.require,
        "size": pool.size,
        "free": view.free,
        "held": view.held,
        "reserved": view.reserved,
        "reserved_max": pool.reserved_max,
    }
