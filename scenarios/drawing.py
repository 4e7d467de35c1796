"""Who draws the parts of a sweep: this process, processes of its own, or a Dask cluster.

All give the same bytes; a lost worker's part is drawn again.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any

from domain.complaint import Complaint
from scenarios.partition import Axes, Cell, Part, drawn

# Parts under way for each worker: enough to keep it busy, few enough for flat memory.
AHEAD = 2

Task = tuple[Cell, Part]
Drawing = Callable[[Sequence[Task], Axes], Iterator[tuple[Part, bytes]]]


def content_of(cell: Cell, axes: Axes, part: Part) -> bytes:
    """The Parquet of one part; a function of its own, so that another process can find it."""
    return drawn(cell, axes, part)[0]


def on_this_machine(workers: int) -> Drawing:
    """Parts drawn in this process, or in so many of their own."""

    def alone(tasks: Sequence[Task], axes: Axes) -> Iterator[tuple[Part, bytes]]:
        for cell, part in tasks:
            yield part, content_of(cell, axes, part)

    def together(tasks: Sequence[Task], axes: Axes) -> Iterator[tuple[Part, bytes]]:
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
            waiting = iter(tasks)
            under_way: dict[Future[bytes], Part] = {}
            while True:
                while len(under_way) < AHEAD * workers and (task := next(waiting, None)):
                    under_way[pool.submit(content_of, task[0], axes, task[1])] = task[1]
                if not under_way:
                    return
                finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield under_way.pop(future), future.result()

    return alone if workers == 1 else together


def on_cluster(address: str) -> Drawing:
    """Parts drawn by the workers of a Dask cluster; those of a lost worker are drawn again.

    Raises Complaint where dask is not installed or no scheduler answers.
    """
    if not address.startswith(("tcp://", "tls://")):
        raise Complaint(f"wanted --cluster tcp://host:port, got {address[:60]!r}")
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise Complaint(
            "--cluster needs dask, which is not installed: pip install 'morsizer[scale]'"
        ) from None

    def together(tasks: Sequence[Task], axes: Axes) -> Iterator[tuple[Part, bytes]]:
        try:
            client = Client(address, timeout=10)
        except (OSError, TimeoutError) as error:
            raise Complaint(f"no Dask scheduler answers at {address}: {error}") from error
        with client:
            by_name: Mapping[str, Part] = {part.name: part for _, part in tasks}
            waiting = iter(tasks)
            ahead = AHEAD * max(1, len(client.scheduler_info()["workers"]))

            def sent(task: Task) -> Any:
                cell, part = task
                return client.submit(
                    content_of, cell, axes, part, key=f"sweep-{part.name}", pure=True
                )

            some = [sent(task) for task in islice(waiting, ahead)]
            arriving = as_completed(some, with_results=True)
            for future, content in arriving:
                yield by_name[future.key.removeprefix("sweep-")], content
                future.release()
                if task := next(waiting, None):
                    arriving.add(sent(task))

    return together
