"""What the driver says of a board before anything is measured: one table of questions to NVML."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from domain.units import MILLI
from profiler.preflight import HOTTEST_C, Fact, on_off, torch_facts
from profiler.presence import Gpu

LONGEST_ANSWER_S = 10.0
SM_CLOCK, GPU_SENSOR = 1, 0
COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}


def lasting_gpu_flags(gpu: Gpu) -> dict[str, str]:
    """Settings of a board that change the speed of the same code and do not come and go."""
    lasting = ("ECC", "MIG", "compute mode", "power limit", "cuDNN", "VBIOS")
    return {
        fact.subject.lower().replace(" ", "_"): fact.found
        for fact in (*driver_facts(gpu), *torch_facts())
        if fact.subject in lasting
    }


def driver_facts(gpu: Gpu) -> tuple[Fact, ...]:
    """What the driver says of one board; a driver that hangs is given up after ten seconds."""
    answers: list[tuple[Fact, ...]] = []
    asking = threading.Thread(target=lambda: answers.append(_through_nvml(gpu)), daemon=True)
    asking.start()
    asking.join(LONGEST_ANSWER_S)
    if answers:
        return answers[0]
    return (Fact(subject="driver", found=f"no answer in {LONGEST_ANSWER_S:.0f} s"),)


def _through_nvml(gpu: Gpu) -> tuple[Fact, ...]:
    try:
        import pynvml

        pynvml.nvmlInit()
        return board_facts(pynvml, pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid))
    except Exception as error:  # whatever NVML dies of is worth a note, not a failure
        return (Fact(subject="driver", found=f"n/a (NVML: {error})"),)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to ask NVML about a board: functions with their further arguments, and what they mean.

    `meaning` gives what was found, and the cure where one is needed.
    """

    subject: str
    asked: tuple[tuple[str, tuple[int, ...]], ...]
    meaning: Callable[..., tuple[str, str]]


def board_facts(nvml: Any, handle: Any) -> tuple[Fact, ...]:
    """Every question of the table, answered through `nvml` or with why it was not."""
    return tuple(_answer(nvml, handle, question) for question in QUESTIONS)


def _answer(nvml: Any, handle: Any, question: Question) -> Fact:
    try:
        values = []
        for function, more in question.asked:
            of_board = function.startswith("nvmlDevice")
            arguments = (handle, *more) if of_board else more
            values.append(getattr(nvml, function)(*arguments))
        found, cure = question.meaning(*values)
    except Exception as error:  # each driver lacks other functions; none may stop the others
        return Fact(subject=question.subject, found=f"n/a (NVML: {error})")
    return Fact(subject=question.subject, found=found, cure=cure)


def _power(enforced_mw: int, default_mw: int) -> tuple[str, str]:
    is_lowered = enforced_mw < default_mw
    return (
        f"{enforced_mw * MILLI:g} W enforced, {default_mw * MILLI:g} W by default",
        "the board is held below its own limit: as deployed is fine, it is recorded"
        if is_lowered
        else "",
    )


def _link(generation: int, width: int, most_generation: int, most_width: int) -> tuple[str, str]:
    # The generation drops while a board idles; the width does not come back by itself.
    return (
        f"gen {generation} × {width} now, gen {most_generation} × {most_width} at most",
        "seat the board again or try another slot" if width < most_width else "",
    )


def _others(processes: Sequence[Any]) -> tuple[str, str]:
    others = [process.pid for process in processes if process.pid != os.getpid()]
    if not others:
        return "none", ""
    named = ", ".join(map(str, others[:8]))
    return f"{len(others)} ({named})", "end them, or wait: they share the device"


def _mode(mode: int) -> tuple[str, str]:
    name = COMPUTE_MODES.get(mode, str(mode))
    return name, "nvidia-smi -c DEFAULT" if name == "prohibited" else ""


def _now_and_pending(modes: Sequence[int]) -> tuple[str, str]:
    now, pending = (on_off(bool(mode)) for mode in modes)
    return now, "" if now == pending else f"{pending} after the next reset: reset before measuring"


def _clocks(now: int, most: int) -> tuple[str, str]:
    return f"{now} MHz now, {most} MHz at most", ""


QUESTIONS = (
    Question(
        subject="driver",
        asked=(("nvmlSystemGetDriverVersion", ()),),
        meaning=lambda version: (str(version), ""),
    ),
    Question(
        subject="CUDA of the driver",
        asked=(("nvmlSystemGetCudaDriverVersion_v2", ()),),
        meaning=lambda version: (f"{version // 1000}.{version % 1000 // 10}", ""),
    ),
    Question(
        subject="UUID",
        asked=(("nvmlDeviceGetUUID", ()),),
        meaning=lambda uuid: (str(uuid), ""),
    ),
    Question(
        subject="VBIOS",
        asked=(("nvmlDeviceGetVbiosVersion", ()),),
        meaning=lambda version: (str(version), ""),
    ),
    Question(subject="ECC", asked=(("nvmlDeviceGetEccMode", ()),), meaning=_now_and_pending),
    Question(subject="MIG", asked=(("nvmlDeviceGetMigMode", ()),), meaning=_now_and_pending),
    Question(
        subject="persistence",
        asked=(("nvmlDeviceGetPersistenceMode", ()),),
        meaning=lambda mode: (
            on_off(bool(mode)),
            "" if mode else "nvidia-smi -pm 1: else the driver loads anew for every process",
        ),
    ),
    Question(subject="compute mode", asked=(("nvmlDeviceGetComputeMode", ()),), meaning=_mode),
    Question(
        subject="power limit",
        asked=(
            ("nvmlDeviceGetEnforcedPowerLimit", ()),
            ("nvmlDeviceGetPowerManagementDefaultLimit", ()),
        ),
        meaning=_power,
    ),
    Question(
        subject="SM clock",
        asked=(
            ("nvmlDeviceGetClockInfo", (SM_CLOCK,)),
            ("nvmlDeviceGetMaxClockInfo", (SM_CLOCK,)),
        ),
        meaning=_clocks,
    ),
    Question(
        subject="application clock",
        asked=(("nvmlDeviceGetApplicationsClock", (SM_CLOCK,)),),
        meaning=lambda clock: (f"{clock} MHz", ""),
    ),
    Question(
        subject="PCIe",
        asked=(
            ("nvmlDeviceGetCurrPcieLinkGeneration", ()),
            ("nvmlDeviceGetCurrPcieLinkWidth", ()),
            ("nvmlDeviceGetMaxPcieLinkGeneration", ()),
            ("nvmlDeviceGetMaxPcieLinkWidth", ()),
        ),
        meaning=_link,
    ),
    Question(
        subject="GPU temperature",
        asked=(("nvmlDeviceGetTemperature", (GPU_SENSOR,)),),
        meaning=lambda celsius: (
            f"{celsius} °C",
            "let it cool: a hot board slows down" if celsius > HOTTEST_C else "",
        ),
    ),
    Question(
        subject="other compute processes",
        asked=(("nvmlDeviceGetComputeRunningProcesses", ()),),
        meaning=_others,
    ),
)
