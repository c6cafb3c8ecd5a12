"""A grid of replays side by side, so that a policy is chosen before it is used.

Every cell runs in a process of its own. A pool of processes would be lost as a
whole when one of them is killed for want of memory, and what it says of memory
would be the most that any of its cells had needed; a process a cell loses that
cell alone, and starting one costs little beside a replay. Cells carry their jobs
with them: the workers of a Dask cluster need not see the traces.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from vws.core.errors import InvalidRequest
from vws.sim.grid import Cell
from vws.sim.report import numbers, with_refused

CONNECT_S = 10

Row = dict[str, Any]
Outcome = tuple[int, Row, str | None]  # the cell's number, its numbers, what failed
Outcomes = Generator[Outcome]


def run_cell(cell: Cell) -> Row:
    """The numbers of one replay."""
    from vws.sim.world import simulate

    run = simulate(cell.jobs.jobs, cell.site, cell.rules)
    return numbers(with_refused(run, cell.jobs.oversized), cell.site)


def run_grid(
    cells: Sequence[Cell],
    *,
    processes: int,
    dask: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
    replay: Callable[[Cell], Row] = run_cell,
) -> list[Row]:
    """A row for each cell, in their order: its names, its numbers, and `error`, which is None or says what failed.

    processes: how many at a time; with `dask`, the address of a scheduler, its
    workers run them instead. progress: told how many cells are done. replay: what
    is done with a cell, importable by the other processes.
    """
    outcomes = _in_cluster(cells, replay, dask) if dask else _in_processes(cells, replay, processes)
    rows: dict[int, Row] = {}
    try:
        for number, outcome, error in outcomes:
            cell = cells[number]
            rows[number] = {"workload": cell.workload, "policy": cell.policy, **outcome, "error": error}
            progress(len(rows))
    finally:
        outcomes.close()
    return [rows[number] for number in range(len(cells))]


def _in_processes(cells: Sequence[Cell], replay: Callable[[Cell], Row], processes: int) -> Outcomes:
    """Outcomes as they come. What still runs when nobody wants more is ended."""
    spawn = multiprocessing.get_context("spawn")
    waiting = list(enumerate(cells))[::-1]
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                number, cell = waiting.pop()
                ours, theirs = spawn.Pipe(duplex=False)
                process: BaseProcess = spawn.Process(target=_replayed, args=(replay, cell, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = number, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, process = running.pop(ready)
                yield number, *_received(ready, process)
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _replayed(replay: Callable[[Cell], Row], cell: Cell, answer: Connection) -> None:
    """In a cell's own process. Ctrl-C is for the process that started it, which ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer.send((replay(cell), None))
    except Exception as error:
        answer.send(({}, _told(error)))


def _received(answer: Connection, process: BaseProcess) -> tuple[Row, str | None]:
    try:
        outcome: tuple[Row, str | None] = answer.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"killed by signal {-code}; did memory run out?" if code < 0 else f"ended with status {code}"
        return {}, f"its process was {how}" if code < 0 else f"its process {how}"
    process.join()
    answer.close()
    return outcome


def _in_cluster(cells: Sequence[Cell], replay: Callable[[Cell], Row], address: str) -> Outcomes:
    """Outcomes as the workers of a Dask cluster give them, which must have VWS installed."""
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        problem = f"no Dask scheduler answers at {address}: {error}"
        raise InvalidRequest(problem, field="--dask", asked=address, possible="such as tcp://127.0.0.1:8786") from error
    with client:
        futures = client.map(replay, cells, pure=False)
        number_of = {future.key: number for number, future in enumerate(futures)}
        try:
            for future in distributed.as_completed(futures):
                number, failed = number_of[future.key], future.status != "finished"
                yield (number, {}, _told(future.exception())) if failed else (number, future.result(), None)
        finally:
            client.cancel(futures)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        problem = "this installation of VWS cannot use a Dask cluster"
        raise InvalidRequest(problem, field="--dask", possible="pip install 'vws[dask]'") from error
    return distributed


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
