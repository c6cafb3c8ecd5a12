"""All workspaces of one node, each brought step by step to what is ordered.

`Workspaces` holds what is ordered, what the last look showed and what is
remembered, asks converge.py what to do, and does it: one step at a time for a
workspace, several workspaces at once. Whatever happens (orders, a look, a timer,
the end of a step) ends in `wake`, and `wake` only ever asks the table again.

What is reported is as careful as what is done. `facts` and `generation` change
together in `take`, for a report that leaves a workspace out is taken as proof
that nothing of it is left: a workspace that is just being made stays in the
report as REMOVING from the moment its orders are gone, though no look has shown
it yet. And while nothing can be seen (until the first look, and from one that failed
to the next that succeeds) nothing is decided: what was begun and never seen would
pass for absent. Facts stand as they were, and nothing is claimed (generation 0).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Protocol, TypeVar

from vws.core.deployment import NodeOrders, WorkspaceFact, WorkspaceKeys, WorkspaceOrder
from vws.core.lifecycle import Desired, Observation
from vws.faultpoints import reach
from vws.node import converge
from vws.node.clock import ServiceClock
from vws.node.converge import Decision, Memory, Step
from vws.node.rounds import Rounds
from vws.node.state import AgentState
from vws.ports import Hypervisor, HypervisorError, ImageRefused, Instance

T = TypeVar("T")
log = logging.getLogger(__name__)

GRACE_S = 10.0
CONSOLE_TAIL_BYTES = 64 * 1024
LAST_WORDS_BYTES = 600
MEMORY_WRITTEN_AFTER_S = 0.2
_SIGHT_EVERY_S = 0.05

# Making a workspace costs the machine much: few at a time. What changes it never queues behind that, and its removal
# behind neither: a guest may take its time to stop, an end may not.
_BUILDING = frozenset({Step.CREATE, Step.START, Step.RESTORE})
_UNHURRIED = frozenset({Step.LOOK, Step.CONSOLE, Step.END})
# After these the memory alone has changed: no need to look.
_UNSEEN = frozenset({Step.LOOK, Step.CONSOLE, Step.END})


class Withdrawn(HypervisorError):
    """Its orders are gone, or its end has come, while it was being made."""

    def __init__(self) -> None:
        super().__init__("it is not wanted any more")


class Blobs(Protocol):
    async def __call__(self, sha256: str, size_bytes: int, target: Path, progress: Callable[[int], None]) -> str:
        """Download a blob, however long the service may be away in between; its sha256 as it came."""
        ...


AskKeys = Callable[[str], Awaitable[WorkspaceKeys]]


class Workspaces:
    """`changed` is called whenever what is to be reported did. ask_keys: gets the keys of an encrypted workspace,
    however long the service may be away. sighted: the last look succeeded, so that the next step may be decided by it.
    Everything runs in one event loop."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        clock: ServiceClock,
        state: AgentState,
        blobs: Blobs,
        changed: Callable[[], None],
        *,
        builds_at_once: int,
        ask_keys: AskKeys | None = None,
    ) -> None:
        self._hypervisor = hypervisor
        self._clock = clock
        self._state = state
        self._blobs = blobs
        self._changed = changed
        self._ask_keys = ask_keys
        self._building = asyncio.Semaphore(builds_at_once)
        self._changing = asyncio.Semaphore(2 * builds_at_once)
        self._removing = asyncio.Semaphore(2 * builds_at_once)
        self._kept = state.orders()
        self._orders = _by_id(self._kept)
        self._memories = state.memories()
        self._memories_due: asyncio.TimerHandle | None = None
        self._memories_durable = False
        self._writes = Rounds(self._write_memories)
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, Step] = {}  # those of them that only wait for their turn
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._looks = Rounds(self._see)
        self._closed = False
        self.sighted = False
        self.before_removal: Callable[[str], Awaitable[None]] = _nothing
        self.instances: dict[str, Instance] = {}
        self.facts: dict[str, WorkspaceFact] = {}

    # -------------------------------------------------------- what is known

    @property
    def orders(self) -> NodeOrders | None:
        return self._kept

    @property
    def generation(self) -> int:
        """Of the orders under which `facts` were made; 0 while nothing can be seen."""
        return self._kept.generation if self._kept and self.sighted else 0

    @property
    def empty(self) -> bool:
        """Nothing is there and nothing is being made, by the last look."""
        return self.sighted and not self.instances and not self._busy

    def order(self, id: str) -> WorkspaceOrder | None:
        return self._orders.get(id)

    def knows(self, id: str) -> bool:
        """It is ordered, or there is something of it, by the last look."""
        return id in self._orders or id in self.instances or id in self._busy

    # -------------------------------------------------------- what happens

    def take(self, orders: NodeOrders) -> None:
        """New orders, already kept on disk; from here on they are obeyed and reported."""
        self._kept = orders
        self._orders = _by_id(orders)
        for id in self._busy.keys() - self._waiting.keys():
            self._admit_removal(id)
        self.wake_all()
        self._forget()

    def _admit_removal(self, id: str) -> None:
        """A step is under way for it, so it is there, whatever the last look showed."""
        if not self._wanted(id):
            self._tell(id, WorkspaceFact(id, Observation.REMOVING, step="finishing a step, then removing it"))

    def wake_all(self) -> None:
        for id in self._orders.keys() | self.instances.keys() | self.facts.keys():
            self.wake(id)

    def wake(self, id: str) -> None:
        """Decide about `id` now, or when the step under way is done, or when there is sight again."""
        if not self.sighted or (id in self._busy and id not in self._waiting):
            return
        step = self._decide(id).step
        if id in self._busy:
            if step is not self._waiting[id]:
                self._busy[id].cancel()
            return
        if step is not Step.NOTHING and not self._closed:
            self._busy[id] = asyncio.create_task(self._work(id), name=f"workspace {id}")

    def lose_sight(self) -> None:
        """Decide nothing and take no further step until a look succeeds again."""
        self.sighted = False

    async def look(self) -> None:
        """See what is there by a look that begins after this call. Raises HypervisorError; see `lose_sight`."""
        await self._looks.join()

    async def _see(self) -> None:
        try:
            seen = await self._hypervisor.instances()
        except BaseException:
            self.lose_sight()
            raise
        self._absorb({instance.id: instance for instance in seen})

    def _absorb(self, instances: dict[str, Instance]) -> None:
        before, self.instances = self.instances, instances
        blind, self.sighted = not self.sighted, True
        now = self._clock.now()
        for id, instance in instances.items():
            self._remember(id, converge.seen(self._memory(id), instance, now))
        for id in before.keys() | instances.keys():
            if before.get(id) != instances.get(id):
                self.wake(id)
        if blind:
            self.wake_all()
            self._changed()
        self._forget()

    # -------------------------------------------------------- decide

    def _decide(self, id: str) -> Decision:
        """Ask the table, make its fact known and set the timer for the next time."""
        now = self._clock.now()
        known = self._kept is not None
        decision = converge.converge(self._orders.get(id), self.instances.get(id), self._memory(id), now, known=known)
        self._tell(id, decision.fact)
        self._set_timer(id, None if decision.again_at is None else decision.again_at - now)
        return decision

    def _set_timer(self, id: str, delay_s: float | None) -> None:
        timer = self._timers.pop(id, None)
        if timer:
            timer.cancel()
        if delay_s is not None and not self._closed:
            loop = asyncio.get_running_loop()
            self._timers[id] = loop.call_later(max(delay_s, 0.001), self.wake, id)

    def _tell(self, id: str, fact: WorkspaceFact | None) -> None:
        if self.facts.get(id) == fact:
            return
        if fact is None:
            del self.facts[id]
        else:
            self.facts[id] = fact
        self._changed()

    def _wanted(self, id: str) -> bool:
        order = self._orders.get(id)
        return order is not None and order.desired is not Desired.REMOVE and self._clock.now() < order.end

    # -------------------------------------------------------- do

    async def _work(self, id: str) -> None:
        """Step after step until there is nothing to do now."""
        try:
            while self.sighted and not self._closed:
                step = self._decide(id).step
                if step is Step.NOTHING:
                    return
                self._waiting[id] = step
                async with self._turn(step):
                    del self._waiting[id]
                    # The turn may have been long in coming.
                    if self.sighted and self._decide(id).step is step:
                        await self._carry_out(id, step)
        except HypervisorError:
            pass  # The look after the step failed; whoever restores sight wakes all.
        finally:
            waited = self._waiting.pop(id, None) is not None
            del self._busy[id]
            self._forget()
            if waited and not self._closed:  # called off by `wake`: something else is to be done
                self.wake(id)

    def _turn(self, step: Step) -> AbstractAsyncContextManager[None]:
        if step in _BUILDING:
            return self._building
        if step is Step.REMOVE:
            return self._removing
        return nullcontext() if step in _UNHURRIED else self._changing

    async def _carry_out(self, id: str, step: Step) -> None:
        order, before, known = self._orders.get(id), self.instances.get(id), self._memory(id)
        try:
            memory = await self._take_step(id, step, order, before)
        except HypervisorError as error:
            if not isinstance(error, Withdrawn):
                log.warning("%s: cannot %s: %s", id, step, error.reason)
                refused = isinstance(error, ImageRefused)
                self._fail(id, step, order, error.reason, final=error.final, refused=refused)
        except Exception as error:
            log.exception("%s: cannot %s", id, step)
            self._fail(id, step, order, f"the node could not {step} it ({error})")
        else:
            self._remember(id, memory)
            if step is Step.END:
                await self._keep_memories()
        if step in _UNSEEN:
            return
        await self.look()
        if self.instances.get(id) == before and self._memory(id) == known and order is self._orders.get(id):
            self._fail(id, step, order, f"{step} had no effect on the node")

    def _fail(
        self, id: str, step: Step, order: WorkspaceOrder | None, reason: str, *, final: bool = False,
        refused: bool = False,
    ) -> None:  # fmt: skip
        now = self._clock.now()
        memory = converge.failed(self._memory(id), step, order, reason, now, final=final, refused=refused)
        self._remember(id, memory)

    async def _take_step(self, id: str, step: Step, order: WorkspaceOrder | None, instance: Instance | None) -> Memory:
        """Carry out `step`; return the memory after it."""
        if step is Step.LOOK:
            assert order is not None
            assert instance is not None
            return await self._ask_guest(order, instance)
        if step is Step.CONSOLE:
            assert instance is not None
            return await self._keep_console(instance)
        if step is not Step.END:
            await self._call(id, step, order)
        return converge.succeeded(self._memory(id), step, order, self._clock.now())

    def _call(self, id: str, step: Step, order: WorkspaceOrder | None) -> Awaitable[None]:
        hypervisor = self._hypervisor
        if step is Step.REMOVE:
            return self._removed(id)
        assert order is not None, step
        match step:
            case Step.CREATE:
                return self._create(order)
            case Step.START:
                return self._with_keys(order, hypervisor.start)
            case Step.STOP:
                return hypervisor.stop(id, grace_s=max(0.0, min(GRACE_S, order.end - self._clock.now())))
            case Step.PAUSE:
                return hypervisor.pause(id)
            case Step.RESUME:
                return hypervisor.resume(id)
            case Step.SUSPEND:
                return self._with_keys(order, lambda order, keys: hypervisor.suspend(order.id, keys))
            case Step.RESTORE:
                return self._with_keys(order, hypervisor.restore)
            case Step.RESIZE:
                return hypervisor.resize(order)
            case Step.UPDATE:
                return hypervisor.update(order)
        raise AssertionError(step)

    async def _with_keys(
        self, order: WorkspaceOrder, act: Callable[[WorkspaceOrder, WorkspaceKeys | None], Awaitable[None]]
    ) -> None:
        await act(order, await self._keys_of(order))

    async def _keys_of(self, order: WorkspaceOrder) -> WorkspaceKeys | None:
        """Asked for each time that they are needed: nothing here keeps them. None for what is not encrypted."""
        if not order.encrypted:
            return None
        if self._ask_keys is None:
            raise HypervisorError("it is encrypted, and its node has nobody to ask for its key")
        return await self._while_wanted(order.id, self._ask_keys(order.id))

    async def _while_wanted(self, id: str, work: Awaitable[T]) -> T:
        """For as long as it takes, while the workspace is wanted: a service that is away is no failure."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=0.5)
                if not self._wanted(id):
                    raise Withdrawn
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _removed(self, id: str) -> None:
        await self.before_removal(id)
        await self._hypervisor.remove(id)

    async def alone(self, id: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something with a workspace while no step is taken with it. Raises what `work` does.

        Not before it was seen: what nothing is known of would be left out of the report, and pass for gone.
        """
        while id in self._busy or not self.sighted:
            await (asyncio.wait([self._busy[id]]) if id in self._busy else asyncio.sleep(_SIGHT_EVERY_S))
        if self._closed:
            raise Withdrawn
        task = self._busy[id] = asyncio.create_task(_done(work), name=f"workspace {id}")
        try:
            await asyncio.shield(task)
        finally:
            # Who called may have been told to stop; what was begun is finished all the same.
            task.add_done_callback(lambda _: self._freed(id))

    def _freed(self, id: str) -> None:
        del self._busy[id]
        self._forget()
        if not self._closed:
            self.wake(id)

    async def _create(self, order: WorkspaceOrder) -> None:
        reach("agent.create.begun")
        loop = asyncio.get_running_loop()

        def step(text: str) -> None:
            """Called between the parts of creation, from any thread; stops it when it is not wanted any more."""
            if not self._wanted(order.id):
                raise Withdrawn
            loop.call_soon_threadsafe(self._tell_step, order.id, text)

        async def fetch(sha256: str, size_bytes: int, target: Path) -> str:
            sent = next((f.sent_bytes for f in order.all_files if f.sha256 == sha256), size_bytes)
            return await self._fetch(order, sha256, size_bytes, target, sent)

        await self._hypervisor.create(order, fetch, step, await self._keys_of(order))

    async def _fetch(self, order: WorkspaceOrder, sha256: str, size_bytes: int, target: Path, sent_bytes: int) -> str:
        """sent_bytes: what of all of it goes over the network. What is told is how far all files are, one after the
        other: a file's own share would run backwards with each."""
        id, said = order.id, -1
        before_bytes, all_bytes = _share(order, sha256)
        left = 1.0 - _length(target) / size_bytes if size_bytes else 0.0

        def progress(have: int) -> None:
            nonlocal said
            twentieths = (before_bytes + have) * 20 // max(all_bytes, size_bytes, 1)
            if twentieths != said:
                said = twentieths
                self._tell_step(id, f"fetching the image, {5 * twentieths} %")

        progress(0)
        fetched = await self._while_wanted(id, self._blobs(sha256, size_bytes, target, progress))
        memory = self._memory(id)
        came_mib = int(max(0.0, left) * sent_bytes) >> 20
        self._remember(id, replace(memory, fetched_mib=memory.fetched_mib + came_mib))
        return fetched

    def _tell_step(self, id: str, text: str) -> None:
        fact = self.facts.get(id)
        if fact is not None and fact.state is Observation.STAGING and id in self._busy:
            self._tell(id, replace(fact, step=text, reason=""))

    async def _ask_guest(self, order: WorkspaceOrder, instance: Instance) -> Memory:
        try:
            up = await self._hypervisor.guest_up(order)
        except HypervisorError as error:
            log.info("%s: cannot ask the guest: %s", order.id, error.reason)
            up = False
        if up:
            reach("agent.guest.up")
        return converge.looked(self._memory(order.id), instance, up, self._clock.now())

    async def _keep_console(self, instance: Instance) -> Memory:
        """Best effort: what cannot be read is not waited for."""
        tail = b""
        try:
            tail = await self._hypervisor.console(instance.id, tail_bytes=CONSOLE_TAIL_BYTES)
            if tail:
                self._state.spool_console(instance.id, tail)
        except (HypervisorError, OSError) as error:
            log.warning("%s: the end of its console's log is not kept: %s", instance.id, error)
        return converge.heard_out(self._memory(instance.id), instance, last_words(tail))

    # -------------------------------------------------------- memory

    def _memory(self, id: str) -> Memory:
        return self._memories.get(id) or Memory()

    def _remember(self, id: str, memory: Memory) -> None:
        before = self._memory(id)
        if memory == before:
            return
        self._memories[id] = memory
        if _kept_part(memory) != _kept_part(before):
            self._keep_memories_soon()

    def _keep_memories_soon(self) -> None:
        if self._memories_due is None:
            loop = asyncio.get_running_loop()
            self._memories_due = loop.call_later(MEMORY_WRITTEN_AFTER_S, self._writes.begin)

    async def _keep_memories(self) -> None:
        """Returns when all that is remembered now would survive a power cut, or cannot be kept."""
        self._memories_durable = True
        await self._writes.join()

    async def _write_memories(self) -> None:
        """A full disk must stop no removal: what cannot be written is only remembered less well."""
        if self._memories_due:
            self._memories_due.cancel()
            self._memories_due = None
        durable, self._memories_durable = self._memories_durable, False
        try:
            await asyncio.to_thread(self._state.keep_memories, dict(self._memories), durable=durable)
        except OSError as error:
            log.error("what is remembered of the workspaces cannot be kept: %s", error)

    def _forget(self) -> None:
        """Drop what is neither ordered nor there; only once orders are known, for an end enforced must be told."""
        if self._kept is None or not self.sighted:
            return
        for id in self._memories.keys() - self._orders.keys() - self.instances.keys() - self._busy.keys():
            del self._memories[id]
            self._set_timer(id, None)
            self._keep_memories_soon()

    # -------------------------------------------------------- end

    async def close(self, *, within_s: float) -> None:
        """Begin nothing more; give the steps under way so long to finish, then leave them (a repeat is harmless)."""
        self._closed = True
        for id in list(self._timers):
            self._set_timer(id, None)
        tasks = list(self._busy.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._writes.join()


async def _nothing(_: str) -> None:
    return None


def _share(order: WorkspaceOrder, sha256: str) -> tuple[int, int]:
    """How many bytes of its files come before the one of that sha256, and how many there are in all."""
    sizes = {file.sha256: file.size_bytes for file in order.all_files}
    before = list(takewhile(lambda id: id != sha256, sizes))
    return sum(sizes[id] for id in before), sum(sizes.values())


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def _done(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _by_id(orders: NodeOrders | None) -> dict[str, WorkspaceOrder]:
    return {order.id: order for order in orders.workspaces} if orders else {}


def _kept_part(memory: Memory) -> tuple[int, float, int, bool]:
    return memory.boot, memory.booted_at, memory.up, memory.ended


def last_words(tail: bytes) -> str:
    """The last lines of a console's log, in one line of readable text."""
    text = tail[-LAST_WORDS_BYTES:].decode("utf-8", "replace")
    lines = ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
    return " | ".join([line for line in lines if line][-4:])
