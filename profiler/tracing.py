"""The trace pass: what every operator of a few passes did and when, for a person to look at.

A Chrome trace (chrome://tracing, ui.perfetto.dev) as gzipped JSON, one file for each point, with a
range around every stage. Tracing slows each call down, so nothing in it is ever a latency.
"""

import gzip
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from domain.complaint import Complaint
from domain.store import write_whole
from profiler.clock import DeviceKind, finished
from profiler.messages import Preparation
from profiler.subjects import Subject, subject_of
from profiler.traces import Traced, TraceTask
from profiler.worker import answering, failure_of

MOST_PASSES = 3
# An operator is about three events (with its launch and its kernel on a GPU), 400 bytes each: some
# 50 MB of text at most, a twentieth of it on the disk.
MOST_OPERATORS, LARGEST_TRACE_BYTES = 40_000, 100_000_000


class StageRanges:
    """Puts a named range around each stage of a pass; give its `mark` to the pass."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._left = list(stages)
        self._open: torch.profiler.record_function | None = None
        self._begin()

    def mark(self, stage: str) -> None:
        """`stage` has ended; the next one begins."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._begin()

    def _begin(self) -> None:
        self._open = torch.profiler.record_function(self._left.pop(0)) if self._left else None
        if self._open is not None:
            self._open.__enter__()  # type: ignore[no-untyped-call]


class OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that a pass calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def trace_of(subject: Subject, kind: DeviceKind) -> bytes:
    """A few passes as a Chrome trace in JSON: three, or fewer where a pass has very many operators.

    Raises Complaint where even one pass has too many.
    """
    with torch.no_grad(), subject.quietly(), OperatorCount() as counted:
        subject.run(0)
    passes = min(MOST_PASSES, MOST_OPERATORS // max(1, counted.calls))
    if passes == 0:
        raise Complaint(
            f"a pass of {subject.point.id} calls {counted.calls} operators; a trace holds "
            f"{MOST_OPERATORS}: trace a smaller batch"
        )

    def run() -> None:
        for number in range(passes):
            subject.run(number, StageRanges(subject.stages).mark)
        finished(kind)

    with torch.inference_mode(), subject.quietly():
        subject.run(0)
        return _traced(run, kind)


def _traced(run: Callable[[], None], kind: DeviceKind) -> bytes:
    seen = [torch.profiler.ProfilerActivity.CPU]
    if kind == "cuda":
        seen.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=seen) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        if path.stat().st_size > LARGEST_TRACE_BYTES:
            raise Complaint(
                f"the trace has {path.stat().st_size} bytes, {LARGEST_TRACE_BYTES} are the most: "
                "trace a smaller batch"
            )
        content = path.read_bytes()
    json.loads(content)  # what is stored can be read
    return content


def _answer(line: str, preparation: Preparation) -> Traced:
    task = TraceTask.model_validate_json(line)
    try:
        subject = subject_of(task.point, preparation.kind, task.seed, preparation.source)
        write_whole(Path(task.file), gzip.compress(trace_of(subject, preparation.kind)))
    except Exception as error:  # the measurement stands without its trace
        _, reason = failure_of(error)
        return Traced(complaint=" ".join(reason.split()))
    return Traced()


if __name__ == "__main__":
    sys.exit(answering(_answer))
