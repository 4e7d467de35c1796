"""Clocks of a GPU locked for as long as a session measures, and set free again whatever happens.

    lease file ─ lock ─ measure ─ unlock ─ file removed
         └── process killed ──► the next `run`, or `doctor --repair`, finds the file and unlocks

The default is as deployed: unlocked. NVML does not tell which clocks were locked before, so what is
restored is the driver's own choice of clocks. The file is written before the clocks are touched.
"""

import atexit
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from domain.complaint import Complaint, CorruptFile, StorageFailed
from domain.record import PositiveCount, Record, Sentence
from domain.store import load, results_root, save
from profiler.messages import Preparation
from profiler.presence import SLOWEST_DRIVER_S, Choice

LEASES = "clocks-*.json"
HIGHEST_MHZ = 10_000
NO_PERMISSION = 4


class Lease(Record):
    """Who locked which clocks. `process_start` tells a process from a later one of the same number."""

    format: Literal[1] = 1
    pid: PositiveCount
    process_start: str
    uuid: Sentence
    clocks: Sentence


class Clocks:
    """Locks the clocks of a GPU when told to; leaving the `with` block unlocks them.

    Entering it unlocks what a killed process left locked.

    `wanted` is base, max, or megahertz; empty leaves them as deployed. `say` hears what was
    unlocked, and what could not be.
    """

    def __init__(
        self,
        wanted: str = "",
        say: Callable[[str], None] = lambda _: None,
        folder: Path | None = None,
    ) -> None:
        self._wanted = _checked(wanted)
        self._say = say
        self._folder = folder or leases_folder()
        self._path: Path | None = None
        self._uuid = ""

    def __enter__(self) -> Self:
        for sentence in restore_abandoned(self._folder):
            self._say(sentence)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.unlock()

    def lock(self, choice: Choice) -> str:
        """Lock them; gives what they were locked to, empty for as deployed.

        Raises Complaint where there is nothing to lock, no permission, or another run holds them.
        """
        if not self._wanted:
            return ""
        if choice.gpu is None:
            raise Complaint("--lock-clocks wants a GPU, and this measures the CPU; leave it away")
        self._uuid, pid = choice.gpu.uuid, os.getpid()
        path = self._folder / f"clocks-{self._uuid}.json"
        with _alone(self._folder):
            _refuse_second(path)
            lease = Lease(
                pid=pid, process_start=start_of(pid), uuid=self._uuid, clocks=self._wanted
            )
            save(lease, path)
            self._path = path
            atexit.register(self.unlock)
            problem = _in_time(lambda: _locked(self._uuid, self._wanted))
        if problem:
            self.unlock()
            raise Complaint(f"cannot lock the clocks of {choice.gpu.name}: {problem}")
        return self._wanted

    def lock_again(self, preparation: Preparation) -> str:
        """Lock them as a session began with."""
        self._wanted = preparation.locked_clocks
        return self.lock(preparation.choice)

    def unlock(self) -> None:
        """Unlock what was locked here. A driver that refuses leaves the lease to `restore_abandoned`."""
        path, self._path = self._path, None
        if path is None:
            return
        atexit.unregister(self.unlock)
        problem = _in_time(lambda: _unlocked(self._uuid))
        if problem:
            self._say(f"cannot unlock the clocks of {self._uuid}: {problem}")
        else:
            path.unlink(missing_ok=True)


def restore_abandoned(folder: Path | None = None) -> list[str]:
    """Unlock the clocks that a process left locked which is no more; a sentence for each.

    The lease of a process that still runs is left alone and not spoken of.
    """
    folder = folder or leases_folder()
    if not any(folder.glob(LEASES)):
        return []
    try:
        with _alone(folder):
            return [said for path in sorted(folder.glob(LEASES)) for said in _restored(path)]
    except StorageFailed as error:
        return [str(error)]


def _restored(path: Path) -> Iterator[str]:
    try:
        lease = load(path, Lease)
    except CorruptFile as error:
        yield f"{error}; unlock with `sudo nvidia-smi -rgc` and remove the file"
        return
    if _is_held(lease):
        return
    problem = _in_time(lambda: _unlocked(lease.uuid))
    whose = f"which process {lease.pid} had locked ({lease.clocks}) and left"
    if problem:
        yield (
            f"cannot unlock the clocks of {lease.uuid}, {whose}: {problem}; run "
            f"`sudo nvidia-smi -i {lease.uuid} -rgc`, then remove {path}"
        )
    else:
        path.unlink(missing_ok=True)
        yield f"unlocked the clocks of {lease.uuid}, {whose}"


def leases_folder() -> Path:
    """Where leases lie: the user's state folder, or the results where there is no home."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(state) if state else Path.home() / ".local" / "state") / "morsizer"
    except RuntimeError:
        return results_root()


def start_of(pid: int, proc: Path = Path("/proc")) -> str:
    """When a process started, with the boot it belongs to; empty for one that is no more."""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        # The name, second, may hold blanks and brackets; the start is the 22nd field.
        after_name = (proc / str(pid) / "stat").read_text().rpartition(")")[2]
        return f"{boot}:{after_name.split()[19]}"
    except (OSError, IndexError):
        return ""


def _is_held(lease: Lease) -> bool:
    return bool(lease.process_start) and start_of(lease.pid) == lease.process_start


def _checked(wanted: str) -> str:
    plain = wanted.strip().lower()
    is_number = plain.isascii() and plain.isdigit() and 0 < int(plain[:9]) <= HIGHEST_MHZ
    if plain in ("", "base", "max") or is_number:
        return plain
    raise Complaint(f"wanted --lock-clocks base, max or a number of MHz, got {wanted!r}")


def _refuse_second(path: Path) -> None:
    """Raise Complaint where another process holds these clocks, or left them locked for good."""
    if not path.exists():
        return
    lease = load(path, Lease)
    if _is_held(lease):
        raise Complaint(
            f"process {lease.pid} holds the clocks of {lease.uuid} at {lease.clocks}; wait for it, "
            f"or leave --lock-clocks away"
        )
    raise Complaint(
        f"process {lease.pid} left the clocks of {lease.uuid} locked; run `python -m profiler doctor "
        f"--repair`"
    )


def _locked(uuid: str, wanted: str) -> str:
    """Lock; gives the problem, or nothing."""

    def lock(nvml: Any, handle: Any) -> None:
        highest = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_GRAPHICS)
        megahertz = {"base": nvml.NVML_CLOCK_LIMIT_ID_TDP, "max": highest}.get(wanted)
        if megahertz is None:
            megahertz = int(wanted)
            if megahertz > highest:
                raise Complaint(f"wanted at most {highest} MHz, got {megahertz}")
        nvml.nvmlDeviceSetGpuLockedClocks(handle, megahertz, megahertz)

    return _asked(uuid, lock)


def _unlocked(uuid: str) -> str:
    """Unlock; gives the problem, or nothing."""
    return _asked(uuid, lambda nvml, handle: nvml.nvmlDeviceResetGpuLockedClocks(handle))


def _asked(uuid: str, ask: Callable[[Any, Any], None]) -> str:
    try:
        import pynvml
    except ImportError as error:
        return f"{error}; run `pip install nvidia-ml-py`"
    try:
        pynvml.nvmlInit()
        ask(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except pynvml.NVMLError as error:
        if error.value == NO_PERMISSION:
            return "the driver lets only root do that; run as root, or leave the clocks as deployed"
        return f"NVML: {error}"
    except Complaint as complaint:
        return str(complaint)
    return ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else locks or unlocks meanwhile. Raises StorageFailed where that cannot be had."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise StorageFailed(f"cannot write to {folder}: {error.strerror}") from error


def _in_time(ask: Callable[[], str]) -> str:
    """The answer, or that there is none: a driver can hang."""
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    try:
        asking.start()
    except RuntimeError:  # too late for threads: the interpreter ends
        return ask()
    asking.join(SLOWEST_DRIVER_S)
    return answers[0] if answers else f"the driver did not answer in {SLOWEST_DRIVER_S:.0f} s"
