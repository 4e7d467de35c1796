"""Signals (R12): Ctrl-C once and twice, SIGTERM, SIGHUP, a parent that dies, a terminal that is closed.

Once finishes the point and says how to go on; all else stops now. The journal is whole after each.
"""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from domain.complaint import INTERRUPTED
from profiler.session import JOURNAL, Session
from tests.faults.running import Sweep, orphans_of, pause, problems_of, seeded, toy_session
from tests.faults.sweep import TERMINAL_VARIABLE
from tests.faults.tally import Fault, Tally

AT_ONCE = 3
LONGEST_PAUSE_S = 0.4
# A session of minutes stops within seconds, on a busy machine too.
NOW_S = 5.0
RESUME = "go on with: python -m profiler resume"


def signals(tries: int, seed: int) -> Iterator[Fault]:
    """So many of each."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name, ThreadPoolExecutor(AT_ONCE) as pool:
        for fault, strike in STRIKES.items():
            tally = Tally(fault)
            places = [Path(name) / f"{fault}-{number}".replace(" ", "-") for number in range(tries)]
            randoms = [seeded(seed, fault, number) for number in range(tries)]
            for problems, lost in pool.map(strike, places, randoms):
                tally.count(*problems, lost=lost)
            yield tally.result()


Strike = Callable[[Path, Random], tuple[list[str], int]]


def _once(folder: Path, random: Random) -> tuple[list[str], int]:
    # So many points that none is the last: the signal always comes while there is more to do.
    sweep = Sweep(folder, toy_session(300, 2))
    _began(sweep, random)
    code = _sent(sweep, signal.SIGINT)
    return [
        *_ended(sweep, code),
        "" if len(sweep.asked) == len(sweep.pairs) else "the point at hand was not finished",
        "" if "stopping after this point" in sweep.said else "nothing said that it will stop",
        "" if f"{RESUME} {folder}" in sweep.said else "nothing says how to go on",
    ], len(sweep.lost())


def _twice(folder: Path, random: Random) -> tuple[list[str], int]:
    sweep = Sweep(folder, _long())
    _began(sweep, random)
    assert sweep.process is not None
    sweep.process.send_signal(signal.SIGINT)
    _wait_until(lambda: "stopping after this point" in sweep.said)
    return _stopped_now(sweep, signal.SIGINT)


def _at_once(number: signal.Signals) -> Strike:
    def strike(folder: Path, random: Random) -> tuple[list[str], int]:
        sweep = Sweep(folder, _long())
        _began(sweep, random)
        return _stopped_now(sweep, number)

    return strike


def _parent_dies(folder: Path, random: Random) -> tuple[list[str], int]:
    sweep = Sweep(folder, _long())
    _began(sweep, random)
    code = _sent(sweep, signal.SIGKILL)
    return [
        orphans_of(sweep),
        *problems_of(sweep),
        "" if code == -signal.SIGKILL else f"exit status {code}",
        _torn(sweep),
    ], len(sweep.lost())


def _terminal_closes(folder: Path, random: Random) -> tuple[list[str], int]:
    sweep = Sweep(folder, _long())
    ours, theirs = os.openpty()
    process = sweep.start({TERMINAL_VARIABLE: "1"}, terminal=theirs)
    os.close(theirs)
    shown = _read_until(ours, sweep)
    pause(random, LONGEST_PAUSE_S)
    began_s = time.monotonic()
    os.close(ours)
    code = process.wait(180)
    return [
        *_ended(sweep, code),
        _torn(sweep),
        "" if time.monotonic() - began_s < NOW_S else "it did not stop now",
        "a traceback" if "Traceback" in shown else "",
    ], len(sweep.lost())


STRIKES: dict[str, Strike] = {
    "Ctrl-C once": _once,
    "Ctrl-C twice": _twice,
    "SIGTERM": _at_once(signal.SIGTERM),
    "SIGHUP": _at_once(signal.SIGHUP),
    "parent dies": _parent_dies,
    "terminal closes": _terminal_closes,
}


def _long() -> Session:
    """Points that take half a second each, and so many that none of them is the last."""
    return toy_session(300, 2, kind="long")


def _began(sweep: Sweep, random: Random) -> None:
    sweep.start()
    assert sweep.wait_for(1), sweep.said
    pause(random, LONGEST_PAUSE_S)


def _sent(sweep: Sweep, number: signal.Signals) -> int:
    assert sweep.process is not None
    sweep.process.send_signal(number)
    return sweep.process.wait(180)


def _stopped_now(sweep: Sweep, number: signal.Signals) -> tuple[list[str], int]:
    began_s = time.monotonic()
    code = _sent(sweep, number)
    return [
        *_ended(sweep, code),
        _torn(sweep),
        "" if time.monotonic() - began_s < NOW_S else "it did not stop now",
        "" if RESUME in sweep.said else "nothing says how to go on",
    ], len(sweep.lost())


def _ended(sweep: Sweep, code: int) -> list[str]:
    begun = len(sweep.asked) - len(sweep.pairs)
    return [
        "" if code == INTERRUPTED else f"exit status {code}, wanted {INTERRUPTED}",
        f"{begun} points were begun and not kept" if begun > 1 else "",
        orphans_of(sweep),
        *problems_of(sweep),
    ]


def _torn(sweep: Sweep) -> str:
    whole = (sweep.folder / JOURNAL).read_bytes() == sweep.journal()
    return "" if whole else "the journal ends in half a line"


def _wait_until(is_so: Callable[[], bool], within_s: float = 30.0) -> None:
    until_s = time.monotonic() + within_s
    while not is_so() and time.monotonic() < until_s:
        time.sleep(0.005)


def _read_until(terminal: int, sweep: Sweep) -> str:
    """What a terminal shows until the first row was acknowledged."""
    shown = b""
    until_s = time.monotonic() + 60.0
    while not sweep.acknowledged and time.monotonic() < until_s:
        shown += os.read(terminal, 65536)
    return shown.decode(errors="replace")
