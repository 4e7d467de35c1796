"""Kills (R2): kill -9 of the parent, its process group, or the worker, anywhere in a sweep.

After each, the next start goes on in the same folder. Nothing acknowledged may be gone, one point at
most is begun again, nobody is left over, and the rows of before stay as they are, byte for byte.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random

from domain.complaint import NO_DEVICE
from profiler.session import JOURNAL, Session
from tests.faults.running import Sweep, orphans_of, pause, problems_of, seeded, toy_session
from tests.faults.sweep import DEATH_VARIABLE, PLACES, REAL_VARIABLE
from tests.faults.tally import Fault, Tally

AT_ONCE, FEWEST_IN_A_CHAIN = 3, 4
FIXED_SHARE, EARLY_SHARE = 0.3, 0.1
LONGEST_PAUSE_S = 0.6
POINTS, RUNS = 20, 2
VICTIMS = ("parent", "group", "worker")


def kills(tries: int, seed: int) -> Iterator[Fault]:
    """So many kills, a third of each victim; some at a fixed place in the code."""
    tallies = {victim: Tally(f"kill -9 of the {victim}") for victim in VICTIMS}
    at_once = min(AT_ONCE, max(1, tries // FEWEST_IN_A_CHAIN))
    shares = [tries // at_once + (number < tries % at_once) for number in range(at_once)]
    with ThreadPoolExecutor(at_once) as pool:
        chains = [
            pool.submit(_chain, share, seeded(seed, number), tallies)
            for number, share in enumerate(shares)
        ]
        begun = [chain.result() for chain in chains]
    for victim in VICTIMS:
        yield tallies[victim].result(f"{sum(begun)} points begun again in all")


def _chain(tries: int, random: Random, tallies: dict[str, Tally]) -> int:
    """Kills one after the other, in a new folder once a session is whole; points begun again."""
    done = again = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        number = 0
        while done < tries:
            sweep = Sweep(Path(name) / str(number), toy_session(POINTS, RUNS))
            number += 1
            while done < tries:
                victim = random.choice(VICTIMS)
                died, problems = _one_kill(sweep, victim, random)
                if died:
                    done += 1
                    tallies[victim].count(*problems, lost=len(sweep.lost()))
                if len(sweep.pairs) == POINTS * RUNS:
                    break
            problems = _finished(sweep)
            if any(problems):
                tallies["parent"].count(*problems, lost=len(sweep.lost()))
            again += len(sweep.asked) - len(sweep.pairs)
            shutil.rmtree(sweep.folder)
    return again


def _one_kill(sweep: Sweep, victim: str, random: Random) -> tuple[bool, list[str]]:
    """Whether it died of the kill, and what was wrong then."""
    rows, asked, before = len(sweep.pairs), len(sweep.asked), sweep.journal()
    death = ""
    if victim == "parent" and random.random() < FIXED_SHARE * len(VICTIMS):
        death = _place_of(random, sweep)
    process = sweep.start({DEATH_VARIABLE: death} if death else {})
    if not death:
        if random.random() > EARLY_SHARE:
            sweep.wait_for(len(sweep.acknowledged) + 1)
        pause(random, LONGEST_PAUSE_S)
        if process.poll() is None:
            _strike(victim, sweep)
    code = process.wait(120)
    died = code == -signal.SIGKILL or (victim == "worker" and "SIGKILL" in sweep.said)
    # A worker's death costs a row that says so; its parent goes on, and nothing is begun again. The
    # first worker says whether there is a device at all: without it nothing is begun.
    is_first = len(sweep.asked) == asked and code == NO_DEVICE
    redone = len(sweep.asked) - asked - (len(sweep.pairs) - rows)
    return died, [
        orphans_of(sweep),
        *problems_of(sweep),
        f"{redone} points were begun and not kept" if redone > 1 else "",
        "" if sweep.journal().startswith(before) else "rows of before were changed",
        f"exit status {code}" if victim == "worker" and code != 0 and not is_first else "",
    ]


def _strike(victim: str, sweep: Sweep) -> None:
    assert sweep.process is not None
    own = sweep.process.pid
    # The parent leads its group.
    targets = {"parent": [own], "group": [-own], "worker": sweep.workers()}[victim]
    with suppress(ProcessLookupError):
        for target in targets:
            os.kill(target, signal.SIGKILL)


def _place_of(random: Random, sweep: Sweep) -> str:
    """A place in the code to die at; there is a torn tail to set aside for the place that does so."""
    place = random.choice(PLACES)
    if place == "set-aside":
        with (sweep.folder / JOURNAL).open("ab") as file:
            file.write(b'{"line":99,"crc32":1,"rec')
    number = 1 if place in ("starting", "set-aside") else random.randint(1, 20)
    return f"{place}:{number}"


def _finished(sweep: Sweep) -> list[str]:
    """What is wrong with a session that was gone on with until it was whole."""
    before = sweep.journal()
    code = sweep.start().wait(120)
    wanted = {(point.id, run) for point in sweep.session.plan.points for run in range(1, RUNS + 1)}
    return [
        f"the last resume ended with status {code}" if code else "",
        "" if set(sweep.pairs) == wanted else f"{len(wanted - set(sweep.pairs))} rows are missing",
        "" if sweep.journal().startswith(before) else "rows of before were changed",
        "" if (sweep.folder / JOURNAL).read_bytes() == sweep.journal() else "a torn tail is left",
        orphans_of(sweep),
        *problems_of(sweep),
    ]


def real_kills(tries: int, seed: int) -> Iterator[Fault]:
    """Kills of sweeps with the real worker, torch and all."""
    random = seeded(seed, "real")
    tally = Tally("kill -9 with the real worker")
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        sweep = Sweep(Path(name) / "real", _here(toy_session(8, 3)))
        for number in range(tries):
            victim = ("parent", "group")[number % 2]
            rows = len(sweep.pairs)
            before = sweep.journal()
            process = sweep.start({REAL_VARIABLE: "1"})
            sweep.wait_for(len(sweep.acknowledged) + 1, within_s=120.0)
            pause(random, 2.0)
            _strike(victim, sweep)
            process.wait(120)
            tally.count(
                orphans_of(sweep),
                *problems_of(sweep),
                "" if len(sweep.pairs) > rows else "nothing was measured before the kill",
                "" if sweep.journal().startswith(before) else "rows of before were changed",
                lost=len(sweep.lost()),
            )
    yield tally.result()


def _here(toy: Session) -> Session:
    """The same session on this machine, as a real worker finds it."""
    from profiler.session import prepared_worker

    worker, environment, rates = prepared_worker(toy.preparation)
    worker.end()
    assert rates is not None
    return Session(**{**dict(toy), "environment": environment, "rates": rates})
