"""On which cores the worker runs: as many physical cores as it has threads, of one memory node."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Cores = frozenset[int]


def allowed_cores(process: int = 0) -> Cores:
    """Logical cores that a process (0: this one) may use.

    Those of this process where nothing is said of the other; all where nothing is said at all.
    """
    if not hasattr(os, "sched_getaffinity"):
        return frozenset(range(os.cpu_count() or 1))
    with suppress(OSError):
        return frozenset(os.sched_getaffinity(process))
    return frozenset(os.sched_getaffinity(0))


def physical_cores(allowed: Iterable[int], root: Path = Path("/")) -> tuple[Cores, ...]:
    """`allowed` by physical core, lowest first; each alone where the machine does not say."""
    siblings: dict[Cores, set[int]] = defaultdict(set)
    for core in sorted(allowed):
        siblings[_siblings_of(core, root)].add(core)
    return tuple(sorted(map(frozenset, siblings.values()), key=min))


def chosen_cores(allowed: Iterable[int], threads: int, root: Path = Path("/")) -> Cores:
    """One logical core on each of `threads` physical ones; all allowed where there are no more.

    Of the memory node with the most of them, where it has enough; the last ones, for the first
    core of a machine serves most interrupts.
    """
    everything = frozenset(allowed)
    physical = physical_cores(everything, root)
    if threads >= len(physical):
        return everything
    nodes: dict[int, list[Cores]] = defaultdict(list)
    for core in physical:
        nodes[_node_of(min(core), root)].append(core)
    largest = max(nodes.values(), key=len)
    among = largest if len(largest) >= threads else list(physical)
    return frozenset(min(core) for core in among[-threads:])


def pin(threads: int, cores: int) -> str:
    """Keep this process on `threads` of its `cores`, if they are fewer; which, as text, or empty.

    Call it before torch starts its threads: they inherit it. Where the system does not allow it,
    nothing changes.
    """
    if threads >= cores or not hasattr(os, "sched_setaffinity"):
        return ""
    mine = chosen_cores(allowed_cores(), threads)
    if mine == allowed_cores():
        return ""
    # Libraries that are loaded already may have threads; each has an affinity of its own.
    for thread in [0, *_threads_of_this_process()]:
        try:
            os.sched_setaffinity(thread, mine)
        except OSError:
            if thread == 0:
                return ""
    return shown(mine)


def shown(cores: Iterable[int]) -> str:
    """Numbers of cores as Linux writes them.

    >>> shown({0, 1, 2, 5})
    '0-2,5'
    """
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def named(text: str) -> Cores:
    """Cores that a list such as `0-2,5` names; none where it is no such list.

    >>> sorted(named("0-2,5")), sorted(named("none"))
    ([0, 1, 2, 5], [])
    """
    if not re.fullmatch(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", text):
        return frozenset()
    ends = [part.partition("-") for part in text.split(",")]
    return frozenset(
        core for low, _, high in ends for core in range(int(low), int(high or low) + 1)
    )


def _siblings_of(core: int, root: Path) -> Cores:
    path = root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
    try:
        return named(path.read_text().strip()) or frozenset({core})
    except OSError:
        return frozenset({core})


def _node_of(core: int, root: Path) -> int:
    found = (root / f"sys/devices/system/cpu/cpu{core}").glob("node[0-9]*")
    return min((int(path.name.removeprefix("node")) for path in found), default=0)


def _threads_of_this_process() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc/self/task").iterdir()]
    except OSError:
        return []
