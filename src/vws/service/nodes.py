"""Nodes: how they join, what they are told, how they are taken out, and which agent speaks for them."""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vws.core.cache_tasks import forget_cache
from vws.core.deployment import ContextOf, NodeOrders, NodeReport, VouchedOf, orders_for
from vws.core.draft import Draft
from vws.core.errors import Conflict, DuplicateNode, InUse, NameTaken, NotFound
from vws.core.lifecycle import UNORDERED, State
from vws.core.maintenance import forget_maintenances
from vws.core.saves import forsake_saves
from vws.core.site import Answer, Image, LeaseState, Node, Role, Token, Workspace
from vws.core.standing import forsake
from vws.core.terms import Size, check_name
from vws.core.traits import Relabelling, relabelled
from vws.faultpoints import reach
from vws.ports import Blobs, Filter, Page
from vws.service.access import Caller, issue, revoke
from vws.service.once import Once
from vws.service.site import Site

# While an agent was heard within this time, another one with the same credentials is refused.
RIVAL_AFTER_S = 15.0
CONSOLE_BYTES_MAX = 128 * 1024


@dataclass
class Link:
    """What is known of the agent behind a node; in memory, for it changes with every message."""

    instance: str
    heard_at: float
    newest: tuple[int, int] = (0, 0)


@dataclass
class Vacancies:
    """What a new node may have: `named`, the names in use; `subnets`, those that are free, to be taken in turn."""

    named: dict[str, Node]
    subnets: Iterator[str]


class Nodes:
    def __init__(
        self,
        site: Site,
        blobs: Blobs,
        consoles: Path,
        context_of: ContextOf = lambda w, c: None,
        vouched_of: VouchedOf = lambda *_: None,
    ) -> None:
        self._site = site
        self._context_of = context_of
        self._vouched_of = vouched_of
        self._blobs = blobs
        self._consoles = consoles
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()
        self._heard_before = site.store.heard_at()
        # A node that was heard by an earlier service process gets the full grace time anew.
        self._started_at = site.clock.now()

    # ------------------------------------------------------------ joining

    def invite(self, caller: Caller, lifetime_s: int, once: Once | None = None) -> tuple[Token, str] | Answer:
        """A token with which one host may join, once, within `lifetime_s`."""
        caller.must_be(Role.ADMIN)
        return self._site.change(
            caller.subject,
            lambda draft: issue(self._site, draft, "new node", Role.JOIN, lifetime_s),
            once=once,
            subject=caller.subject,
        )

    def join(
        self, caller: Caller, name: str, instance: str, version: str, once: Once | None = None
    ) -> tuple[Node, str] | Answer:
        """The new node and its token's text; the join token is spent by it."""
        caller.must_be(Role.JOIN)

        def decide(draft: Draft) -> tuple[Node, str]:
            node, token = self._enter(draft, name, instance, self._vacancies(draft))
            spent = draft.present.tokens.get(caller.token)
            if spent is None:
                raise Conflict("this join token was used a moment ago", possible="a new one: vws node token")
            revoke(draft, spent)
            return node, token

        return self._site.change(caller.subject, decide, once=once, subject=caller.token)

    def enroll(self, names: Iterable[str], *, replacing: Iterable[str] = ()) -> list[tuple[Node, str]]:
        """New nodes with their tokens' texts, as the site's own start makes them, instead of the nodes `replacing`.

        All in one commit. A start may have been killed before it kept what this returned: nodes for which nobody has
        ever spoken are given anew or taken out, and a replaced one may be gone already.
        """
        wanted, old = list(names), set(replacing)

        def decide(draft: Draft) -> list[tuple[Node, str]]:
            for node in list(draft.present.nodes.values()):
                if node.id in old or (_is_unclaimed(node) and node.name not in wanted):
                    self._take_out(draft, node, force=False)
            vacancies = self._vacancies(draft)
            return [self._enter(draft, name, "", vacancies) for name in wanted]

        result = self._site.change("site", decide)
        assert isinstance(result, list)
        return result

    def _vacancies(self, draft: Draft) -> Vacancies:
        nodes = [node for node in map(draft.node, draft.present.nodes) if node.removed_at is None]
        used, settings = {node.subnet for node in nodes}, self._site.settings
        networks = ipaddress.ip_network(settings.guest_network).subnets(new_prefix=settings.node_prefix)
        return Vacancies({node.name: node for node in nodes}, (s for s in map(str, networks) if s not in used))

    def _enter(self, draft: Draft, name: str, instance: str, vacancies: Vacancies) -> tuple[Node, str]:
        check_name(name)
        node = vacancies.named.get(name)
        if node is None:
            node = Node(self._site.ids.new("nod"), name, self._subnet(vacancies), draft.now, instance=instance)
            vacancies.named[name] = draft.put_node(node)
            draft.say("node.joined", node=node.id, name=name, subnet=node.subnet)
        elif instance or not _is_unclaimed(node) or node.id not in draft.present.nodes:
            raise NameTaken(
                f"a node is already called {name}",
                field="name",
                asked=name,
                possible="another name (--name); or remove the old node first (vws node remove)",
            )
        else:
            _revoke_all(draft, node)
        _, token = issue(self._site, draft, node.id, Role.NODE, None)
        return node, token

    def _subnet(self, vacancies: Vacancies) -> str:
        subnet = next(vacancies.subnets, None)
        if subnet is None:
            raise Conflict(
                f"all of {self._site.settings.guest_network} is given to nodes",
                possible="a larger guest_network or a longer node_prefix in site.toml",
            )
        return subnet

    # ------------------------------------------------------------ the link

    def heard(self, caller: Caller, node_id: str, instance: str) -> Node:
        """The node, now known to be alive; raises Forbidden, NotFound, or DuplicateNode for a second agent."""
        caller.must_be(Role.NODE)
        if caller.subject != node_id:
            caller.must_own("", f"the node {node_id}")
        node = self._site.present.nodes.get(node_id)
        if node is None:
            raise NotFound(f"the node {node_id} was removed from this site", field="id", asked=node_id)
        self._accept(node, instance)
        return node

    def _accept(self, node: Node, instance: str) -> None:
        now = self._site.clock.now()
        with self._lock:
            link = self._links.get(node.id)
            if link is None:
                link = self._links[node.id] = Link(node.instance or instance, self._heard_before.get(node.id, 0.0))
            if link.instance != instance:
                if now - link.heard_at < RIVAL_AFTER_S:
                    raise DuplicateNode(
                        f"another agent already serves as node {node.name}",
                        field="instance",
                        asked=instance,
                        possible="stop the other agent, or join this host with a token of its own (vws node token)",
                    )
                link.instance, link.newest = instance, (0, 0)
            link.heard_at = now

    def is_news(self, report: NodeReport) -> bool:
        """False for a report that is no newer than one already taken: a repeat, or one that was overtaken."""
        with self._lock:
            link = self._links[report.node]
            if (report.incarnation, report.sequence) <= link.newest:
                return False
            link.newest = (report.incarnation, report.sequence)
            return True

    def generation(self, node_id: str) -> int:
        """The number of a node's present orders; 0 if there is no such node."""
        node = self._site.present.nodes.get(node_id)
        return node.generation if node else 0

    def orders(self, caller: Caller, node_id: str, instance: str) -> NodeOrders:
        node = self.heard(caller, node_id, instance)
        with self._site.lock:
            present = self._site.present
            node, now = present.nodes.get(node_id, node), self._site.clock.now()
            orders = orders_for(
                node, present.on_node(node_id), present.leases, self._images(node_id), now=now,
                clusters=present.clusters, context_of=self._context_of, vouched_of=self._vouched_of,
                saves=present.saves_on(node_id), prefetch=present.prefetches.wanted(node_id, now),
                tasks=present.cache_of(node_id).due,
            )  # fmt: skip
        reach("service.orders.sent")
        return orders

    def _images(self, node_id: str) -> dict[str, Any]:
        """The images that a node's workspaces use; a removed one is kept in the store for those who have it."""
        present = self._site.present
        here = present.on_node(node_id)
        groups = (group for w in here for group in present.leases[w.lease].groups if group.name == w.group)
        wanted = {w.image for w in here} | {disk.image for group in groups for disk in group.disks if disk.image}
        wanted |= {save.base for save in present.saves_on(node_id)}
        return {id: present.images.get(id) or self._site.store.get(Image, id) for id in wanted}

    def silent_for_s(self) -> dict[str, float]:
        """For each node the seconds since it was last heard from, at most the time since this service started."""
        now = self._site.clock.now()
        with self._lock:
            heard = {id: link.heard_at for id, link in self._links.items()}
        return {id: now - max(heard.get(id, 0.0), self._started_at) for id in list(self._site.present.nodes)}

    def flush_heard(self) -> None:
        """Write down when nodes were heard, for the process after this one."""
        with self._lock:
            heard = {id: link.heard_at for id, link in self._links.items()}
        if heard:
            with self._site.writing():
                self._site.store.heard(heard)

    def heard_at(self, node_id: str) -> float | None:
        with self._lock:
            link = self._links.get(node_id)
        return (link.heard_at if link else self._heard_before.get(node_id)) or None

    # ------------------------------------------------------------ files and logs

    def blob(self, caller: Caller, sha256: str) -> Blobs:
        """Where the file with that content is, for nodes and administrators."""
        caller.must_be(Role.NODE, Role.ADMIN)
        if self._blobs.size(sha256) is None:
            raise NotFound("there is no file with this sha256", field="sha256", asked=sha256[:64])
        return self._blobs

    def keep_console(self, caller: Caller, node_id: str, workspace_id: str, data: bytes) -> None:
        """Keep the end of a console's log beyond the life of its workspace and node."""
        caller.must_be(Role.NODE)
        workspace = self._site.store.get(Workspace, workspace_id)
        if workspace is None or caller.subject != node_id or workspace.node != node_id:
            raise NotFound(f"the node {node_id} has no workspace {workspace_id[:60]}", field="workspace")
        self._consoles.mkdir(parents=True, exist_ok=True)
        temporary = self._consoles / f".{workspace.id}"
        temporary.write_bytes(data[-CONSOLE_BYTES_MAX:])
        os.replace(temporary, self._consoles / workspace.id)

    def kept_console(self, workspace_id: str) -> bytes | None:
        """The kept log of a workspace that exists; the caller has checked who asks."""
        path = self._consoles / workspace_id
        return path.read_bytes() if path.is_file() else None

    # ------------------------------------------------------------ administration

    def node(self, caller: Caller, id_or_name: str) -> Node:
        caller.must_be(Role.ADMIN, Role.USER)
        nodes = self._site.present.nodes
        found = nodes.get(id_or_name) or next((n for n in list(nodes.values()) if n.name == id_or_name), None)
        found = found or self._site.store.get(Node, id_or_name)
        if found is None:
            raise NotFound(
                f"there is no node {id_or_name[:60]!r}", field="id", asked=id_or_name[:60], possible="vws node list"
            )
        return found

    def nodes(self, caller: Caller, where: Filter, *, after: str | None, limit: int) -> Page:
        caller.must_be(Role.ADMIN, Role.USER)
        return self._site.store.page(Node, where, after=after, limit=limit)

    def usage(self, node: Node) -> dict[str, int]:
        """What is held of a node, and by how many workspaces."""
        with self._site.lock:
            leases = self._site.present.leases
            # What the plan has suspended keeps its disk; its CPUs and memory are others' meanwhile.
            here = [
                Size(0, 0, w.disk_mib)
                if w.state is State.SUSPENDED and leases[w.lease].state is LeaseState.SUSPENDED
                else node.capacity.taken_by(w.held)
                for w in self._site.present.on_node(node.id)
            ]
        held = {field: sum(getattr(size, field) for size in here) for field in ("cpus", "memory_mib", "disk_mib")}
        return held | {"workspaces": len(here)}

    def drain(self, caller: Caller, id: str, once: Once | None = None) -> Node | Answer:
        """Place nothing new on a node; what runs there stays to its end."""
        return self._mark(caller, id, True, once)

    def undrain(self, caller: Caller, id: str, once: Once | None = None) -> Node | Answer:
        return self._mark(caller, id, False, once)

    def _mark(self, caller: Caller, id: str, drained: bool, once: Once | None) -> Node | Answer:
        caller.must_be(Role.ADMIN)
        found = self.node(caller, id)

        def decide(draft: Draft) -> Node:
            node = self._alive(draft, found.id)
            if node.drained == drained:
                return node
            draft.say("node.drained" if drained else "node.undrained", node=node.id, name=node.name)
            return draft.put_node(replace(node, drained=drained))

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def label(self, caller: Caller, id: str, change: Relabelling, once: Once | None = None) -> Node | Answer:
        """Change what the administrator says of a node. Raises InvalidRequest, Conflict (`relabelled`)."""
        caller.must_be(Role.ADMIN)
        found = self.node(caller, id)

        def decide(draft: Draft) -> Node:
            node = self._alive(draft, found.id)
            labels, attributes = relabelled(node.labels, node.attributes, change, node.traits)
            after = replace(node, labels=labels, attributes=attributes)
            if after == node:
                return node
            draft.say(
                "node.labelled",
                node=node.id,
                name=node.name,
                labels=after.every_label,
                attributes=after.every_attribute,
            )
            return draft.put_node(after)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    def remove(self, caller: Caller, id: str, *, force: bool = False, once: Once | None = None) -> Node | Answer:
        """Take a node out of the site; InUse while workspaces are there, unless `force` says that the host is gone."""
        caller.must_be(Role.ADMIN)
        found = self.node(caller, id)

        def decide(draft: Draft) -> Node:
            return self._take_out(draft, self._alive(draft, found.id), force=force)

        return self._site.change(caller.subject, decide, once=once, subject=caller.subject)

    @staticmethod
    def _take_out(draft: Draft, node: Node, *, force: bool) -> Node:
        held = draft.present.on_node(node.id)
        if held and not force:
            live = [w for w in held if w.state not in UNORDERED]
            raise InUse(
                f"{len(held)} workspaces are on {node.name} ({len(live)} of them leased)",
                field="id",
                asked=node.name,
                possible="drain it and wait, or end their leases; --force only if the host is gone for good",
            )
        forsake(draft, node)
        forsake_saves(draft, node)
        forget_cache(draft, node)
        forget_maintenances(draft, node)
        _revoke_all(draft, node)
        draft.say("node.removed", node=node.id, name=node.name, forced=force)
        return draft.put_node(replace(draft.node(node.id), removed_at=draft.now))

    @staticmethod
    def _alive(draft: Draft, id: str) -> Node:
        node = draft.present.nodes.get(id)
        if node is None:
            raise NotFound("the node was removed", field="id", asked=id, possible="vws node list")
        return node


def _is_unclaimed(node: Node) -> bool:
    """Whether it was entered by a site's start and no agent has spoken for it yet."""
    return not node.instance and not node.sequence


def _revoke_all(draft: Draft, node: Node) -> None:
    for token in draft.present.tokens.values():
        if token.subject == node.id:
            revoke(draft, token)
