"""What is asked of nodes' caches, and what they say: prefetched and cleared by administrators, told by the node.

A task is due until the node's word on its cache shows that it is done (core/caches.py), and what is due is in the
node's orders. Clearing an image calls off its prefetching: the two would undo each other for ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vws.core.caches import CacheContents, CacheTask, NodeCache, TaskKind, TaskState, reported, with_task
from vws.core.draft import Draft
from vws.core.errors import Conflict
from vws.core.quantities import show_bytes
from vws.core.site import Image, Node

EVENTS = {
    (TaskKind.PREFETCH, TaskState.DONE): "node.prefetched",
    (TaskKind.PREFETCH, TaskState.FAILED): "node.prefetch-failed",
    (TaskKind.CLEAR, TaskState.DONE): "node.cache-cleared",
}


def ask_prefetch(draft: Draft, id: str, node: Node, image: Image, name: str) -> CacheTask:
    """Have an image in a node's cache. The task that is due for it already, if there is one. Raises Conflict for what
    can never be there."""
    cache = draft.cache(node.id)
    for due in cache.due:
        if due.kind is TaskKind.PREFETCH and due.image == image.id:
            return due
    _check_fits(cache, node, image, name)
    files = tuple(file.sha256 for file in image.files)
    task = CacheTask(id, TaskKind.PREFETCH, image.id, name, files, draft.actor, draft.now)
    if cache.held.issuperset(files):
        task = replace(task, state=TaskState.DONE, ended_at=draft.now)
    return _put(draft, cache, node, task)


def _check_fits(cache: NodeCache, node: Node, image: Image, name: str) -> None:
    if not image.files:
        raise Conflict(f"{name} is a simulated image: there is nothing to fetch", field="image", asked=name)
    needed = sum({file.sha256: file.sent_bytes for file in image.files}.values())
    if cache.limit_bytes and needed > cache.limit_bytes:
        raise Conflict(
            f"{name} takes {show_bytes(needed)}, and the cache of {node.name} holds "
            f"{show_bytes(cache.limit_bytes)} at most; nothing was changed",
            field="image", asked=name, possible="a larger cache in [node] of that node's site.toml; or a smaller image",
        )  # fmt: skip


def ask_clear(draft: Draft, id: str, node: Node, image: Image | None, name: str) -> CacheTask:
    """Have an image, or all that is unused (None), dropped from a node's cache."""
    cache = draft.cache(node.id)
    files = tuple(file.sha256 for file in image.files) if image else ()
    if image is not None and not files:
        raise Conflict(f"{name} is a simulated image: no cache has anything of it", field="image", asked=name)
    tasks = tuple(_called_off(draft, task, image) for task in cache.tasks)
    task = CacheTask(id, TaskKind.CLEAR, image.id if image else "", name, files, draft.actor, draft.now)
    return _put(draft, replace(cache, tasks=tasks), node, task)


def _called_off(draft: Draft, task: CacheTask, image: Image | None) -> CacheTask:
    if task.kind is TaskKind.CLEAR or task.state is not TaskState.DUE or (image and task.image != image.id):
        return task
    reason = f"called off: {draft.actor} has the cache cleared"
    return replace(task, state=TaskState.FAILED, ended_at=draft.now, reason=reason)


def _put(draft: Draft, cache: NodeCache, node: Node, task: CacheTask) -> CacheTask:
    draft.say(
        f"node.{task.kind}-asked", node=node.id, image=task.image, name=node.name, task=task.id, called=task.image_name
    )
    draft.put_cache(with_task(cache, task))
    return task


def hear_cache(draft: Draft, node: str, contents: CacheContents) -> None:
    """What a node says that it holds."""
    before = draft.cache(node)
    after = reported(before, contents, draft.now)
    if after is before:
        return
    for old, new in zip(before.tasks, after.tasks, strict=True):
        if old.state is not new.state:
            draft.say(EVENTS[new.kind, new.state], node=node, image=new.image, **_outcome(new))
    _say_altered(draft, before, after)
    draft.put_cache(after)


def _say_altered(draft: Draft, before: NodeCache, after: NodeCache) -> None:
    """Somebody could write there: it was mended, and whose node it is must hear of it."""
    known = {file.sha256: file.altered_at for file in before.files}
    for file in after.files:
        if file.altered_at > known.get(file.sha256, 0):
            draft.say(
                "node.cache-altered", node=after.id, sha256=file.sha256, role=file.role, found_at=file.altered_at,
                reason="it was altered on the node after it had been verified; it was removed and fetched anew",
            )  # fmt: skip


def _outcome(task: CacheTask) -> dict[str, Any]:
    said: dict[str, Any] = {"task": task.id, "called": task.image_name, "by": task.by}
    if task.kind is TaskKind.CLEAR:
        return said | {"freed_bytes": task.freed_bytes, "files": len(task.dropped), "kept": len(task.kept)}
    return said | ({"reason": task.reason} if task.reason else {})


def forget_cache(draft: Draft, node: Node) -> None:
    """A node is taken out: nobody knows any more what it holds."""
    if node.id in draft.present.caches:
        draft.put_cache(replace(draft.cache(node.id), tasks=(), removed_at=draft.now))


def order_prefetches(draft: Draft) -> None:
    """Number the orders anew of nodes that should fetch something else by now."""
    for node in draft.present.prefetches.news(draft.now):
        if node in draft.present.nodes:
            draft.renew_orders(node)
