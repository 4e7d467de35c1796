"""What a run took: raw samples, per depth, with the conditions they were taken under."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.architecture import Architecture
from domain.record import (
    Count,
    Executor,
    Identifier,
    NonNegative,
    Positive,
    PositiveCount,
    Precision,
    Record,
    Runtime,
    Sentence,
    Unknown,
)
from domain.workload import Workload

Status = Literal["ok", "unstable", "oom", "throttled", "contended", "timeout", "failed"]
RoutingSource = Literal["real-images", "replayed-trace", "forced-distribution", "none"]
# Seconds and joules outside these come from a clock or meter gone mad, and overflow in a sum.
LEAST_SAMPLE, LARGEST_SAMPLE = 1e-12, 1e12
Samples = tuple[Annotated[float, Field(ge=LEAST_SAMPLE, le=LARGEST_SAMPLE)], ...]
Subject = Annotated[str, Field(pattern=r"^(network|recursion-[1-9][0-9]*)$")]
_BEFORE_FORMAT_2 = Unknown(reason="records of format 1 did not keep it")


# What a CPU has that computes in bf16 (as `profiler` records them: x86 AVX-512 and AMX, Arm).
HALF_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


class Environment(Record):
    """The machine and software of a measurement. Records of different keys are never merged.

    Rates are measured at the start of every session with fixed kernels, so that an efficiency means
    the same on every machine.
    """

    device_id: Identifier
    device_name: Sentence
    kind: Literal["cpu", "cuda"]
    threads: PositiveCount
    cores: PositiveCount
    memory_bytes: PositiveCount
    operating_system: Sentence
    python: Sentence
    torch: Sentence
    flags: tuple[tuple[str, str], ...] = ()

    @property
    def machine_id(self) -> str:
        """The id of a measured machine: two CPUs that call themselves alike may not compute alike.

        Two cores of "AMD EPYC" with AVX-512 and two without are different machines. A GPU is the
        one of the catalogue, whatever its host.
        """
        if self.kind != "cpu":
            return self.device_id
        capability = dict(self.flags).get("cpu_capability", "")
        plain = re.sub(r"[^a-z0-9]+", "", capability.casefold())
        return f"{self.device_id}-{plain}" if plain else self.device_id

    def emulates(self, precision: Precision) -> bool:
        """Whether this is a CPU that has no instructions for half precision, as far as it says.

        torch computes bf16 there by way of fp32, several times slower than fp32 itself.
        """
        known = dict(self.flags).get("cpu_flags")
        if self.kind != "cpu" or known is None or precision in ("fp32", "tf32"):
            return False
        return not HALF_INSTRUCTIONS & set(known.split())


class Rates(Record):
    """What fixed kernels reach on this machine, today: the peaks of a device without data sheet.

    `gemm_flop_per_s` is of an fp32 product, `gemm_bf16_flop_per_s` of one in bf16.
    """

    gemm_flop_per_s: Positive
    copy_bytes_per_s: Positive
    gemm_bf16_flop_per_s: Positive | Unknown = Unknown(
        reason="this session did not measure a bf16 product"
    )

    def peak_flop_per_s(self, precision: Precision) -> float | Unknown:
        """What a large product of that precision reaches, in FLOP/s; unknown where none was run."""
        peaks: dict[Precision, float | Unknown] = {
            "fp32": self.gemm_flop_per_s,
            "bf16": self.gemm_bf16_flop_per_s,
            "amp_bf16": self.gemm_bf16_flop_per_s,
        }
        return peaks.get(precision, Unknown(reason=f"no fixed kernel measures {precision}"))


class PlannedPoint(Record):
    """One point to measure. `survival` is imposed where the routing is a forced distribution.

    `spread` is the relative half-width of the counts from image to image around that survival.
    `subject` is the whole network or one of its recursions alone; `separates` says which cost the
    point is there to tell from which.
    """

    id: Identifier
    architecture: Architecture
    weights: Literal["shipped", "random"]
    batch: PositiveCount
    precision: Precision = "fp32"
    runtime: Runtime = "eager"
    executor: Executor = "packed"
    routing_source: RoutingSource
    survival: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    spread: Annotated[float, Field(ge=0, le=1)] = 0.0
    subject: Subject = "network"
    separates: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _survival_where_it_is_forced(self) -> Self:
        if (self.routing_source == "forced-distribution") != (self.survival is not None):
            raise ValueError("wanted a survival for forced-distribution, and only there")
        if self.survival is not None and len(self.survival) != self.architecture.recursions:
            raise ValueError(
                f"wanted {self.architecture.recursions} survival shares, got {self.survival}"
            )
        if self.subject != "network":
            recursion = int(self.subject.removeprefix("recursion-"))
            if recursion > self.architecture.recursions:
                raise ValueError(
                    f"wanted one of {self.architecture.recursions} recursions, got {self.subject}"
                )
        return self


class MeasuringPlan(Record):
    """Points to measure and how often; what the cost model hands to the profiler."""

    format: Literal[1] = 1
    name: Identifier
    runs: PositiveCount
    points: tuple[PlannedPoint, ...]

    @model_validator(mode="after")
    def _each_point_once(self) -> Self:
        ids = [point.id for point in self.points]
        if not ids or len(set(ids)) != len(ids):
            raise ValueError(f"wanted points with different ids, got {ids}")
        return self


class DepthRecord(Record):
    """One stage of the network: prologue, one recursion, or epilogue.

    `counts` are the tokens of each image of the batch that entered it. Samples are seconds for the
    whole batch, one per pass. `peak_bytes` are those that tensors held; `reserved_bytes` what the
    allocator kept for them, `device_bytes` all that was in use on the device, by anyone.
    """

    stage: Annotated[str, Field(pattern=r"^(prologue|recursion-[1-9][0-9]*|epilogue)$")]
    counts: tuple[Count, ...]
    samples_s: Samples
    routed_flop: NonNegative
    executed_flop: NonNegative
    peak_bytes: PositiveCount | Unknown
    reserved_bytes: PositiveCount | Unknown = _BEFORE_FORMAT_2
    device_bytes: PositiveCount | Unknown = _BEFORE_FORMAT_2
    energy_j: Positive | Unknown


class Conditions(Record):
    """What the machine did beside the timed passes of one record, in seconds of one core's time.

    `own_cpu_s` is the measuring process with all its threads, `parent_cpu_s` the process that waits
    for it, `others_cpu_s` everything else on the cores that it may use, `steal_s` what the host took
    away. `beside_cpu_s` is what was used of cores that were left to others where the measuring
    process was pinned, `suspended_s` time that the machine slept.
    """

    wall_s: Positive
    own_cpu_s: NonNegative
    parent_cpu_s: NonNegative | Unknown
    others_cpu_s: NonNegative | Unknown
    steal_s: NonNegative | Unknown
    suspended_s: NonNegative | Unknown
    beside_cpu_s: NonNegative | Unknown = Unknown(reason="other cores were not looked at")


class Energy(Record):
    """Windows of one energy pass, in joules of ONE batch, idle draw included.

    `idle_w` is the draw of the idle device; `integrated_j` the same windows by summing power
    readings, `disagreement` how far that lies from the counter (0.05 is 5 %). `sensor` names the
    meter, `scope` what it sees.
    """

    windows_j: Samples
    window_s: Positive
    idle_w: NonNegative | Unknown
    mean_w: Positive | Unknown
    peak_w: Positive | Unknown
    integrated_j: Positive | Unknown
    disagreement: NonNegative | Unknown
    sensor: Literal["nvml.energy", "nvml.power", "rapl"]
    scope: Literal["gpu-board", "package"]


class Measurement(Record):
    """One run of one point: everything that was seen, nothing summarised.

    `samples_s` are wall seconds per batch of the clean pass, `cpu_samples_s` the thread CPU seconds
    beside them, `host_samples_s` the seconds until the calls returned (on a CPU the same),
    `switches` the involuntary context switches in each (of all its `passes_per_sample` passes, of
    which the seconds are the mean), `calibration_s` a fixed kernel interleaved
    with them, `instrumented_s` the wall seconds of the pass that was split by depth. `warmup_s[0]` is
    the cold start as far as a run has one: the first timed pass of the point, in a process that ran
    the network to check its routing and logits, and may have measured other points before.

    Format 2 added the subject, conditions, host seconds, switches, memory levels and energy windows.
    """

    format: Literal[1, 2] = 2
    point: Identifier
    run: PositiveCount
    session: Identifier
    taken_at: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    workload: Workload
    subject: Subject = "network"
    weights: Sentence
    routing_source: RoutingSource
    environment: Environment
    rates: Rates
    status: Status
    reason: str = ""
    samples_s: Samples = ()
    cpu_samples_s: Samples = ()
    host_samples_s: Samples = ()
    switches: tuple[Count, ...] = ()
    passes_per_sample: PositiveCount | Unknown = _BEFORE_FORMAT_2
    calibration_s: Samples = ()
    instrumented_s: Samples = ()
    warmup_s: Samples = ()
    depths: tuple[DepthRecord, ...] = ()
    peak_bytes: PositiveCount | Unknown = Unknown(reason="no memory pass was run")
    resident_bytes: PositiveCount | Unknown = Unknown(reason="no memory pass was run")
    reserved_bytes: PositiveCount | Unknown = _BEFORE_FORMAT_2
    context_bytes: PositiveCount | Unknown = _BEFORE_FORMAT_2
    energy_j: Positive | Unknown = Unknown(reason="no energy pass was run")
    energy: Energy | Unknown = Unknown(reason="no energy pass was run")
    conditions: Conditions | Unknown = _BEFORE_FORMAT_2
    precision_met: bool = False
    relaxed: bool = False
    involuntary_switches: Count = 0
    seed: int = 0

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.status in ("ok", "unstable") and not self.samples_s:
            raise ValueError(f"status {self.status} wants samples, got none")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} wants a reason, got none")
        return self

    @property
    def has_kernels(self) -> bool:
        """Whether the calibration kernel ran beside every sample."""
        return len(self.calibration_s) == len(self.samples_s)

    @property
    def is_usable(self) -> bool:
        """Whether the samples may be fitted or compared."""
        return self.status in ("ok", "unstable")

    @property
    def paired_s(self) -> Samples:
        """The clean sample before each pass of `instrumented_s`, on the same batch."""
        return self.samples_s[len(self.samples_s) - len(self.instrumented_s) :]
