"""Pools of addresses, as users and administrators ask for them: what there is, and what is kept for whom."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vws.core import addresses as decisions
from vws.core.draft import Draft
from vws.core.errors import Forbidden, InvalidRequest, NotFound
from vws.core.pools import Pool, default_of
from vws.core.site import Address, Answer, Cluster, Role
from vws.ports import Filter, Page
from vws.service.access import Caller
from vws.service.once import Once
from vws.service.site import Site


@dataclass(frozen=True, slots=True)
class PoolView:
    """free, held, reserved: numbers of addresses; what is both held and reserved counts for both."""

    pool: Pool
    default: bool
    free: int
    held: int
    reserved: int


class Addresses:
    def __init__(self, site: Site) -> None:
        self._site = site

    def pools(self, caller: Caller) -> list[PoolView]:
        caller.must_be(Role.ADMIN, Role.USER)
        with self._site.lock:
            present = self._site.present
            default = default_of(present.pools)
            return [
                _seen(pool, pool is default, present.addresses_of_pool(pool.name)) for pool in present.pools.values()
            ]

    def reserve(
        self,
        caller: Caller,
        name: str,
        *,
        pool: str | None = None,
        address: str = "",
        owner: str | None = None,
        once: Once | None = None,
    ) -> Address | Answer:
        """An address of a pool (None: the default) for `owner` (None: who asks; another only for administrators, whom
        no limit binds). Raises InvalidRequest, NameTaken, InUse, LimitReached, CannotFit, Forbidden."""
        caller.must_be(Role.ADMIN, Role.USER)
        if owner is not None and owner != caller.subject and not caller.is_admin:
            raise Forbidden("only an administrator reserves for others", field="owner", asked=owner)

        def decide(draft: Draft) -> Address:
            return decisions.reserve(
                draft,
                decisions.pool_named(draft, pool) if pool is not None else _default(draft),
                name,
                owner=owner or caller.subject,
                id=self._site.ids.new("adr"),
                address=address,
                unlimited=caller.is_admin,
            )

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def release(self, caller: Caller, reference: str, once: Once | None = None) -> Address | Answer:
        """Give a reserved address (by its id, name or itself) back. Raises InUse while a member holds it."""
        found = self.address(caller, reference)

        def decide(draft: Draft) -> Address:
            present = draft.present.addresses.get(found.id)
            if present is None:
                return found if found.released_at is not None else self._found(found.id)
            if not present.name:
                raise InvalidRequest(
                    f"the address {present.address} is not reserved: it goes back when its member has ended",
                    field="id",
                    asked=reference[:60],
                    possible="a reserved address (vws address list)",
                )
            return decisions.release(draft, present)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def address(self, caller: Caller, reference: str) -> Address:
        """By its id, released ones too, or by the name or the address of one that is not; NotFound or Forbidden."""
        found = self._found(reference)
        caller.must_own(found.owner, f"the address {found.name or found.address}")
        return found

    def _found(self, reference: str) -> Address:
        with self._site.lock:
            live = list(self._site.present.addresses.values())
        named = next((a for a in live if reference in (a.name, a.address)), None)
        found: Address | None = named or self._site.store.get(Address, reference)
        if found is None:
            raise NotFound(
                f"there is no address {reference[:60]!r}",
                field="id",
                asked=reference[:60],
                possible="vws address list",
            )
        return found

    def addresses(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        """Of a user, his own."""
        caller.must_be(Role.ADMIN, Role.USER)
        own = where if caller.is_admin else replace(where, owner=caller.subject)
        return self._site.store.page(Address, own, after=after, limit=limit)

    def cluster_name(self, address: Address) -> str:
        """Of the cluster that holds it; "" if none does."""
        with self._site.lock:
            cluster = self._site.present.clusters.get(address.cluster)
        if cluster is None and address.cluster:
            cluster = self._site.store.get(Cluster, address.cluster)
        return cluster.name if cluster is not None else ""


def _seen(pool: Pool, default: bool, taken: list[Address]) -> PoolView:
    free = pool.size - sum(address.address in pool for address in taken)
    held, reserved = sum(bool(a.cluster) for a in taken), sum(bool(a.name) for a in taken)
    return PoolView(pool, default, free, held, reserved)


def _default(draft: Draft) -> Pool:
    pool = default_of(draft.present.pools)
    if pool is None:
        names = ", ".join(draft.present.pools)
        raise InvalidRequest(
            "the site has several pools" if names else "this site has set no addresses aside",
            field="pool",
            possible=f"one of: {names}" if names else "an administrator makes a pool in site.toml",
        )
    return pool
