"""What the machine did beside the timed passes: counters read before and after, and a verdict.

    counters ─ clean samples ─ clean/split pairs ─ counters

The median pass of a network on two threads of two cores took 6 % longer where another process asked
for 0.05 of a core, 4 to 10 % at 0.1, 14 to 32 % at 0.2, and twice as long or more from 0.5 on; with a
login and an agent on it the idle machine itself used 0.002 to 0.012. So the gates: a note at 0.03 of
a core, `contended` at 0.1. Of the host, which takes from all cores alike, a note at 2 % and
`contended` at 5 % of their time.

No sample is thrown away. Whether the calibration kernel beside a sample was slow decides nothing
here: it says that the machine was restless (status `unstable`), not who was to blame.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from domain.measurement import Conditions
from domain.record import NonNegative, Unknown
from profiler.affinity import Cores, allowed_cores, physical_cores, shown
from profiler.clock import DIGITS, DeviceKind

# Of one core, for the parent and for others; of the watched cores, for the host.
NOTED, LARGEST_TAKEN = 0.03, 0.10
NOTED_STEAL, LARGEST_STEAL = 0.02, 0.05
# Other cores share cache and memory with ours, but take no time from them.
NOTED_BESIDE = 0.10
LONGEST_SLEEP_S = 0.01

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
# Below it, the rounding of a few ticks is as large as the gates.
SHORTEST_WINDOW_S = 20 * TICK_S
# What /proc/stat may lack of this process's own time before it is not believed: ticks are samples.
LARGEST_LACK = 0.1


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Counters at one moment, in seconds since some start; by logical core where they are so kept."""

    wall_s: float
    own_s: float
    parent_s: float | Unknown
    asleep_s: float | Unknown
    busy_s: Mapping[int, float] | Unknown
    stolen_s: Mapping[int, float] | Unknown


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Why the samples are not to be trusted, and what is worth a note."""

    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Watch:
    """Looks at the counters when it is made, and again when asked what passed."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._parent = os.getppid()
        self.cores = allowed_cores()
        # A worker inherits what its parent may use; what it left of that is beside it.
        self.beside = allowed_cores(self._parent) - self.cores if self._parent else Cores()
        self._before = reading(self._parent, root)

    def seen(self) -> Conditions:
        """What passed since then."""
        return conditions_between(
            self._before, reading(self._parent, self._root), self.cores, self.beside
        )


def reading(parent: int, root: Path = Path("/")) -> Reading:
    """The counters now; `parent` is the process that waits for this one."""
    busy_s, stolen_s = _cores_in(root / "proc/stat")
    return Reading(
        parent_s=_process_s(parent, root),
        own_s=time.process_time(),
        wall_s=time.perf_counter(),
        asleep_s=_asleep_s(),
        busy_s=busy_s,
        stolen_s=stolen_s,
    )


def conditions_between(
    before: Reading, after: Reading, cores: Cores, beside: Cores = frozenset()
) -> Conditions:
    """What passed between two readings, on the cores of this process and on those beside it.

    The time of a parent counts as its own wherever it ran: on our cores, as far as they were busy.
    """
    wall_s = round(after.wall_s - before.wall_s, DIGITS)
    own_s = round(after.own_s - before.own_s, DIGITS)
    parent_s = _resolved(_passed(before.parent_s, after.parent_s), wall_s)
    ours_s = _resolved(_on(cores, before.busy_s, after.busy_s), wall_s)
    elsewhere_s = _resolved(_on(beside, before.busy_s, after.busy_s), wall_s)
    return Conditions(
        wall_s=wall_s,
        own_cpu_s=own_s,
        parent_cpu_s=parent_s,
        others_cpu_s=_others_s(ours_s, own_s, parent_s, len(cores)),
        beside_cpu_s=_beside_s(elsewhere_s, ours_s, own_s, parent_s),
        steal_s=_resolved(_on(cores, before.stolen_s, after.stolen_s), wall_s),
        suspended_s=_slept_s(before.asleep_s, after.asleep_s),
    )


def judged(seen: Conditions, cores: int, spare: int = 0) -> Judgement:
    """The verdict on conditions seen on `cores`, of which the work leaves `spare` idle.

    Counters that tick every 10 ms are doubted by two standard deviations of their rounding: what is
    left of a figure without them has to pass the gate.
    """
    causes, notes = [], []
    for used, gate, worth_a_note, sentence in _figures(seen, cores, spare):
        if gate is not None and used >= gate:
            causes.append(sentence)
        elif used >= worth_a_note:
            notes.append(sentence)
    return Judgement(causes=tuple(causes), notes=tuple(notes))


def spare_cores(kind: DeviceKind, threads: int, root: Path = Path("/")) -> int:
    """Physical cores of this process that its work leaves idle; a GPU wants one, to be launched."""
    wanted = threads if kind == "cpu" else 1
    return max(0, len(physical_cores(allowed_cores(), root)) - wanted)


def _figures(
    seen: Conditions, cores: int, spare: int
) -> Iterator[tuple[float, float | None, float, str]]:
    """What is certain of each figure, its gate (None: only noted), when to note it, how to say it."""
    doubt = 2 * TICK_S * (cores + 1) ** 0.5 / seen.wall_s
    parent = _rate(seen.parent_cpu_s, seen.wall_s)
    yield (
        parent - 2 * TICK_S / seen.wall_s,
        LARGEST_TAKEN,
        NOTED,
        f"the parent process used {parent:.2f} of a core while it should wait",
    )
    others = _rate(seen.others_cpu_s, seen.wall_s)
    yield (
        others - spare - doubt,
        LARGEST_TAKEN,
        NOTED,
        f"other processes used {others:.2f} of a core",
    )
    beside = _rate(seen.beside_cpu_s, seen.wall_s)
    yield (
        beside - doubt,
        None,
        NOTED_BESIDE,
        f"other processes used {beside:.2f} of a core beside ours, which share cache and memory",
    )
    steal = _rate(seen.steal_s, seen.wall_s * cores)
    yield steal - doubt / cores, LARGEST_STEAL, NOTED_STEAL, f"the host took {steal:.0%}"
    slept_s = _rate(seen.suspended_s, 1.0)
    yield slept_s, LONGEST_SLEEP_S, LONGEST_SLEEP_S, f"the machine slept for {slept_s:.2g} s"


def _rate(amount_s: NonNegative | Unknown, wall_s: float) -> float:
    """Nothing is held against what nobody could read: the record says that it is unknown."""
    return 0.0 if isinstance(amount_s, Unknown) else amount_s / wall_s


def _others_s(
    ours_s: float | Unknown, own_s: float, parent_s: float | Unknown, cores: int
) -> float | Unknown:
    """What is left of our cores' busy time when we and our parent are taken out."""
    if isinstance(ours_s, Unknown):
        return ours_s
    rounding_s = 2 * TICK_S * (cores + 1) ** 0.5
    if ours_s - own_s < -rounding_s - LARGEST_LACK * own_s:
        return Unknown(
            reason=f"/proc/stat shows {ours_s:.2f} s on our cores, this process alone used "
            f"{own_s:.2f} s: it is not of this machine"
        )
    return max(0.0, round(ours_s - own_s - _or_nothing(parent_s), 4))


def _beside_s(
    elsewhere_s: float | Unknown, ours_s: float | Unknown, own_s: float, parent_s: float | Unknown
) -> float | Unknown:
    if isinstance(elsewhere_s, Unknown):
        return elsewhere_s
    parent_here_s = max(0.0, _or_nothing(ours_s) - own_s)
    parent_there_s = max(0.0, _or_nothing(parent_s) - parent_here_s)
    return max(0.0, round(elsewhere_s - parent_there_s, 4))


def _or_nothing(seconds: float | Unknown) -> float:
    return 0.0 if isinstance(seconds, Unknown) else seconds


def _resolved(amount_s: float | Unknown, wall_s: float) -> float | Unknown:
    if wall_s < SHORTEST_WINDOW_S:
        return Unknown(
            reason=f"{wall_s:.3f} s are too short for counters that tick every {TICK_S:.3f} s"
        )
    return amount_s


def _passed(before_s: float | Unknown, after_s: float | Unknown) -> float | Unknown:
    if isinstance(before_s, Unknown):
        return before_s
    if isinstance(after_s, Unknown):
        return after_s
    if after_s < before_s:
        return Unknown(reason=f"a counter went backwards, from {before_s:g} s to {after_s:g} s")
    return round(after_s - before_s, 4)


def _on(
    cores: Cores, before_s: Mapping[int, float] | Unknown, after_s: Mapping[int, float] | Unknown
) -> float | Unknown:
    """Seconds that passed on `cores` together."""
    if isinstance(before_s, Unknown):
        return before_s
    if isinstance(after_s, Unknown):
        return after_s
    lacking = cores - (before_s.keys() & after_s.keys())
    if lacking:
        return Unknown(reason=f"/proc/stat has no line for core {shown(lacking)}")
    return _passed(sum(before_s[core] for core in cores), sum(after_s[core] for core in cores))


def _slept_s(before_s: float | Unknown, after_s: float | Unknown) -> float | Unknown:
    if isinstance(before_s, Unknown) or isinstance(after_s, Unknown):
        return before_s if isinstance(before_s, Unknown) else after_s
    # The two clocks are read one after the other: a millisecond is no sleep.
    return max(0.0, round(after_s - before_s, 3))


def _cores_in(
    counters: Path,
) -> tuple[Mapping[int, float] | Unknown, Mapping[int, float] | Unknown]:
    """Busy and stolen seconds of each logical core since the machine started."""
    try:
        lines = [line.split() for line in counters.read_text().splitlines()]
        ticks = {
            int(line[0][3:]): [int(part) for part in line[1:9]]
            for line in lines
            if line and line[0].startswith("cpu") and line[0] != "cpu"
        }
    except (OSError, ValueError) as error:
        unknown = Unknown(reason=f"cannot read /proc/stat: {error}")
        return unknown, unknown
    if any(len(each) < 7 for each in ticks.values()) or not ticks:
        unknown = Unknown(reason="/proc/stat has no seven columns for each core")
        return unknown, unknown
    # user nice system idle iowait irq softirq steal; what guests use is in user already.
    busy_s = {core: TICK_S * sum((*each[:3], *each[5:7])) for core, each in ticks.items()}
    if any(len(each) < 8 for each in ticks.values()):
        return busy_s, Unknown(reason="/proc/stat does not say what the host took")
    return busy_s, {core: TICK_S * each[7] for core, each in ticks.items()}


def _process_s(process: int, root: Path) -> float | Unknown:
    """User and system seconds of another process."""
    if process <= 0:
        return Unknown(reason="the parent process is outside this container")
    try:
        # Its name stands in brackets and may hold any letter; utime and stime are fields 14 and 15.
        fields = (root / f"proc/{process}/stat").read_text().rpartition(")")[2].split()
        return TICK_S * (int(fields[11]) + int(fields[12]))
    except (OSError, ValueError, IndexError) as error:
        return Unknown(reason=f"cannot read the time of the parent process: {error}")


def _asleep_s() -> float | Unknown:
    """Seconds that the machine has slept since it started."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return Unknown(reason="this system has no clock that runs on while it sleeps")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
