"""What a killed run leaves behind: the doctor says it, `doctor --repair` puts it right.

Nothing measured is removed: a damaged tail is set aside, and what was set aside stays.
"""

import fcntl
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from domain.complaint import Complaint, CorruptFile, StorageFailed
from domain.measurement import Measurement
from domain.store import JOURNAL, Journal, check_free, load, unread_tail
from profiler.lease import LEASES, Lease, leases_folder, restore_abandoned, start_of
from profiler.session import Finding

# As `write_whole` names what it has not finished; what is younger may not be locked yet.
_UNFINISHED = re.compile(r"\..+\.(json|jsonl|xz|torn|parquet|html|txt|csv|md|toml)\.[a-z0-9_]{8}")
YOUNGEST_S = 5.0
REPAIR = "python -m profiler doctor --repair"


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """One thing that was left; `mend` puts it right and says how, None where a person must."""

    subject: str
    found: str
    cure: str
    mend: Callable[[], str] | None = None


def left_behind(folder: Path) -> tuple[Finding, ...]:
    """What killed runs left under `folder` and of clocks, as warnings; a PASS where nothing is."""
    return _or_nothing(
        Finding(level="WARN", subject=each.subject, found=each.found, cure=each.cure)
        for each in _leftovers(folder)
    )


def repaired(folder: Path) -> tuple[Finding, ...]:
    """The same, after what can be put right was; what was done is a PASS."""
    return _or_nothing(_mended(each) for each in _leftovers(folder))


def _mended(left: Leftover) -> Finding:
    if left.mend is None:
        return Finding(level="WARN", subject=left.subject, found=left.found, cure=left.cure)
    try:
        return Finding(level="PASS", subject=left.subject, found=left.mend())
    except (Complaint, OSError) as error:
        said = f"{left.found}; it could not be repaired"
        return Finding(level="WARN", subject=left.subject, found=said, cure=str(error))


def _or_nothing(found: Iterator[Finding]) -> tuple[Finding, ...]:
    nothing = Finding(level="PASS", subject="leftovers", found="none of a killed run")
    return tuple(found) or (nothing,)


def _leftovers(folder: Path) -> Iterator[Leftover]:
    if not folder.is_dir():
        raise Complaint(f"{folder} is no folder; name the one that holds results")
    yield from _unfinished_files(folder)
    yield from _damaged_tails(folder)
    yield from _set_aside(folder)
    yield from _leases(leases_folder())


def _unfinished_files(folder: Path) -> Iterator[Leftover]:
    for path in sorted(folder.rglob(".*")):
        if _UNFINISHED.fullmatch(path.name) and _is_abandoned(path):
            size = path.stat().st_size

            def remove(path: Path = path, size: int = size) -> str:
                path.unlink(missing_ok=True)
                return f"removed {path} ({size} bytes of a file that was never finished)"

            yield Leftover(
                subject="unfinished file",
                found=f"{path} ({size} bytes)",
                cure=f"{REPAIR} removes it: a kill came before it was whole",
                mend=remove,
            )


def _is_abandoned(path: Path) -> bool:
    """Whether a plain file is old enough to be locked by its writer, and nobody has locked it."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if time.time() - path.stat().st_mtime < YOUNGEST_S:
            return False
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is being written, or is gone, or nobody can tell
        return False
    return True


def _damaged_tails(folder: Path) -> Iterator[Leftover]:
    for journal in sorted(folder.rglob(JOURNAL)):
        try:
            check_free(journal)
            damage = unread_tail(journal)
        except StorageFailed:
            continue  # a run writes to it
        except CorruptFile as error:
            yield Leftover(subject="journal", found=str(error), cure="read it with what wrote it")
            continue
        if damage:

            def set_aside(journal: Path = journal) -> str:
                with Journal(journal, Measurement) as opened:
                    return f"set {opened.torn_bytes} bytes aside in {journal}.torn"

            yield Leftover(
                subject="journal",
                found=damage,
                cure=f"{REPAIR} sets them aside, `python -m profiler resume` measures them again",
                mend=set_aside,
            )


def _set_aside(folder: Path) -> Iterator[Leftover]:
    for path in sorted(folder.rglob(f"{JOURNAL}.torn")):
        yield Leftover(
            subject="set aside",
            found=f"{path} keeps {path.stat().st_size} bytes of damaged lines",
            cure=f"`python -m profiler resume {path.parent}` measures them again; then remove it",
        )


def _leases(folder: Path) -> Iterator[Leftover]:
    for path in sorted(folder.glob(LEASES)):
        try:
            lease = load(path, Lease)
        except CorruptFile as error:
            cure = "unlock with `sudo nvidia-smi -rgc` and remove the file"
            yield Leftover(subject="clocks", found=str(error), cure=cure)
            continue
        if not lease.process_start or start_of(lease.pid) != lease.process_start:
            yield Leftover(
                subject="clocks",
                found=f"process {lease.pid} left those of {lease.uuid} locked ({lease.clocks})",
                cure=f"{REPAIR} unlocks them",
                mend=partial(_unlocked, folder, path),
            )


def _unlocked(folder: Path, lease: Path) -> str:
    said = "; ".join(restore_abandoned(folder))
    if lease.exists():
        raise Complaint(said or f"{lease} is still there")
    return said or "they were unlocked meanwhile"
