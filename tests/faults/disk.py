"""A disk that refuses (R3): full, limited, or read-only. Nothing is ever half written.

Exit status 8 and one sentence with the path and the bytes; what was there before is there after, byte
for byte, and nothing else is; a journal is as it was and goes on when there is room.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from domain.complaint import STORAGE, StorageFailed
from domain.measurement import Measurement
from domain.routing import RoutingDistribution
from domain.store import Journal, read_journal, save, write_trace, write_whole
from profiler.export import exported
from profiler.session import JOURNAL
from tests.domain.strategies import toy_measurement
from tests.faults.running import seeded
from tests.faults.tally import Fault, Tally
from tests.profiler.conftest import ROOT
from tests.profiler.networks import session

SMALL_DISK = "1m"
MOUNT = shutil.which("mount") or "/bin/mount"
Write = Callable[[Path, Random], None]


@dataclass(frozen=True, kw_only=True)
class Writer:
    """One way that a file comes to be; `begin` makes what is there before."""

    name: str
    begin: Write
    write: Write


def _whole(folder: Path, random: Random) -> None:
    write_whole(folder / "a.bin", random.randbytes(200_000))


def _record(folder: Path, random: Random) -> None:
    points = (f"p{number}" for number in range(random.randint(60, 80)))
    save(session(*points), folder / "session.json")


def _trace(folder: Path, random: Random) -> None:
    counts = tuple((197, random.randint(20, 197), random.randint(0, 19)) for _ in range(40_000))
    write_trace(RoutingDistribution(tokens=197, counts=counts), folder / "routing.parquet")


def _rows(folder: Path, random: Random) -> None:
    """Rows until the disk refuses, of about 30 kB each."""
    samples = tuple(random.uniform(0.1, 0.2) for _ in range(1500))
    with Journal(folder / JOURNAL, Measurement) as journal:
        first = len(read_journal(folder / JOURNAL)) + 1 if (folder / JOURNAL).stat().st_size else 1
        for run in range(first, first + 60):
            journal.append(Measurement(**{**dict(toy_measurement(run)), "samples_s": samples}))


def _some_rows(folder: Path, random: Random) -> None:
    with Journal(folder / JOURNAL, Measurement) as journal:
        for run in range(1, 4):
            journal.append(toy_measurement(run))


def _export(folder: Path, random: Random) -> None:
    exported(folder)


def _exported_some(folder: Path, random: Random) -> None:
    _some_rows(folder, random)
    exported(folder)


WRITERS = (
    Writer(name="write_whole", begin=_whole, write=_whole),
    Writer(name="save", begin=_record, write=_record),
    Writer(name="write_trace", begin=_trace, write=_trace),
    Writer(name="journal", begin=_some_rows, write=_rows),
    Writer(name="export", begin=_exported_some, write=_export),
)


def disk(tries: int, seed: int) -> Iterator[Fault]:
    """So many of each kind of refusal, over all writers."""
    for fault, refusal in REFUSALS.items():
        tally = Tally(f"disk: {fault}")
        note = ""
        for number in range(tries):
            writer = WRITERS[number % len(WRITERS)]
            random = seeded(seed, fault, number)
            try:
                with tempfile.TemporaryDirectory(prefix="faults-") as name:
                    problems = _one(writer, refusal, Path(name), random)
            except _CannotTry as reason:
                note = f"not tried: {reason}"
                break
            tally.count(*(f"{writer.name}: {each}" for each in problems if each),
                        lost=sum("changed" in each for each in problems))  # fmt: skip
        if tally.tried:
            yield tally.result(note)
    yield _full_device(tries, seed)


class _CannotTry(Exception):
    """This machine does not let us."""


def _one(writer: Writer, refusal: Callable[..., object], place: Path, random: Random) -> list[str]:
    problems: list[str] = []
    folder = place / "disk"
    folder.mkdir()
    with _mounted(folder) if refusal is not _limited else _as_it_is():
        writer.begin(folder, random)
        before = _contents(folder)
        said = ""
        with refusal(folder, random):  # type: ignore[attr-defined]
            try:
                writer.write(folder, random)
            except StorageFailed as error:
                said = str(error)
            after = _contents(folder)
        problems = [
            "" if said else "no complaint",
            "" if str(folder) in said else f"no path in: {said}",
            "" if "bytes" in said or "open journal" in said else f"no bytes in: {said}",
            *_differences(before, after, is_journal=writer.write is _rows),
        ]
        if writer.write is _rows:
            records = read_journal(folder / JOURNAL)
            with Journal(folder / JOURNAL, Measurement) as journal:
                journal.append(toy_measurement(99))
            grown = read_journal(folder / JOURNAL)
            problems.append("" if len(grown) == len(records) + 1 else "it did not go on")
    return problems


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "filler"}


def _differences(
    before: dict[str, bytes], after: dict[str, bytes], *, is_journal: bool
) -> list[str]:
    if is_journal:
        # It grew by whole rows until the disk was full.
        grown = after[JOURNAL]
        is_whole = grown.startswith(before[JOURNAL]) and grown.endswith(b"}\n")
        return ["" if is_whole else "the journal was changed or is torn"]
    litter = set(after) - set(before)
    changed = [name for name, content in before.items() if after.get(name) != content]
    return [f"litter: {litter}" if litter else "", f"changed: {changed}" if changed else ""]


@contextmanager
def _limited(folder: Path, random: Random) -> Iterator[None]:
    """No file grows beyond a few bytes more than the largest."""
    largest = max(path.stat().st_size for path in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = random.randrange(1, 2000) if largest < 100_000 else random.randrange(1, 100_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def _full(folder: Path, random: Random) -> Iterator[None]:
    """A disk of a mebibyte that is filled but for some kilobytes."""
    filler = folder / "filler"
    left = 4096 * random.randrange(0, 3)
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    os.truncate(filler, max(0, filler.stat().st_size - left))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _read_only(folder: Path, random: Random) -> Iterator[None]:
    _mount("-o", "remount,ro", str(folder))
    try:
        yield
    finally:
        _mount("-o", "remount,rw", str(folder))


REFUSALS = {"file size limited": _limited, "1 MiB disk full": _full, "read-only": _read_only}


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    _mount("-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run([MOUNT.replace("mount", "umount"), str(folder)], check=True)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def _mount(*arguments: str) -> None:
    done = subprocess.run([MOUNT, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _CannotTry(done.stderr.strip() or "mount failed")


def _full_device(tries: int, seed: int) -> Fault:
    """Commands whose answer goes to /dev/full: there the refusal comes only when it is flushed."""
    tally = Tally("disk: /dev/full")
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        _exported_some(folder, seeded(seed))
        save(session("a").plan, folder / "plan.json")
        commands = (
            ("costmodel.predict", "--list-devices", "--output", "/dev/full"),
            ("costmodel.predict", "--list-devices"),
            ("profiler", "export", name),
            ("scenarios.size", "--init", "/dev/full/x.toml"),
        )
        for number in range(min(tries, 12)):
            with Path("/dev/full").open("w") as full:
                before = _contents(folder)
                done = subprocess.run(
                    [sys.executable, "-m", *commands[number % len(commands)]],
                    cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
                )  # fmt: skip
            is_said = done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
            tally.count(
                "" if done.returncode == STORAGE else f"exit status {done.returncode}",
                "" if is_said and len(done.stderr.splitlines()) <= 2 else done.stderr[-200:],
                "" if _contents(folder).keys() == before.keys() else "litter",
            )
    return tally.result()
