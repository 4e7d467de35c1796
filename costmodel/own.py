"""What users know of their own device: a data sheet in TOML, and timings. Files and words are hostile input."""

import csv
import io
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from costmodel.reach import reach_of
from costmodel.transfer import forecast
from domain.architecture import Architecture
from domain.catalogue import check_precision, check_runtime, devices, model_named
from domain.complaint import Complaint, CorruptFile, first_error
from domain.device import DeviceClass, DeviceSpec
from domain.fit import Fit
from domain.prediction import Refusal
from domain.record import Figure, Identifier, Precision, Record, Runtime, Sentence, Unknown
from domain.routing import RoutingDistribution
from domain.store import read_limited, write_whole
from domain.units import GIGA, MILLI, SECONDS_PER_HOUR
from domain.workload import Attention, Workload, attention_of_torch, timm_states

LARGEST_FILE_BYTES = 2**20
MOST_TIMINGS = 1000
MEGA, TERA = 1e6, 1e12
# A timing this many spreads from what its class allows is of something else, or in another unit.
MOST_SPREADS = 5.0

SKELETON = """\
# A device of your own. Peaks are DENSE: half of what is advertised "with sparsity".
id = "my-device"
name = "My device"
# dc_gpu, consumer_gpu, pro_gpu, edge or cpu
device_class = "dc_gpu"
# Chip family, such as "Ada AD102"; a family that the fits have seen is known better.
family = "Ada AD102"
# Streaming multiprocessors of a GPU, cores of a CPU.
parallel_units = 142
memory_gb_per_s = 864
# What follows may be left out; the answers that need it then say so.
boost_mhz = 2520
memory_gb = 48
cache_mb = 96
power_limit_w = 350
idle_w = 35
price_usd = 8000

# Dense peaks in TFLOP/s (TOP/s for int8); fp32 is needed, the others where you ask for them.
[peak_tflops]
fp32 = 91.6
fp16 = 362
bf16 = 362
int8 = 733
"""

Amount = Annotated[float, Field(gt=0, le=1e9)]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One timing of a user: seconds of a whole batch."""

    workload: Workload
    seconds: float


class OwnDevice(Record):
    """A data sheet as its file gives it."""

    id: Identifier
    name: Sentence
    device_class: DeviceClass
    family: Sentence
    parallel_units: Annotated[int, Field(ge=1, le=100_000)]
    memory_gb_per_s: Amount
    boost_mhz: Amount | None = None
    memory_gb: Amount | None = None
    cache_mb: Amount | None = None
    power_limit_w: Amount | None = None
    idle_w: Amount | None = None
    price_usd: Amount | None = None
    peak_tflops: dict[Precision, Amount]


def device_from(path: Path) -> DeviceSpec:
    """The device that a TOML file describes. Raises CorruptFile with the field that is wrong."""
    try:
        said = tomllib.loads(read_limited(path, LARGEST_FILE_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptFile(f"{path} is no TOML: {error}") from None
    try:
        # TOML tells 864 from 864.0; a data sheet does not.
        own = OwnDevice.model_validate(
            {name: _as_number(name, value) for name, value in said.items()}
        )
    except (ValidationError, TypeError) as error:
        reason = first_error(error) if isinstance(error, ValidationError) else str(error)
        raise CorruptFile(f"{path}: {reason}; --write-device-skeleton shows the form") from None
    if own.id in devices():
        raise CorruptFile(f"{path}: {own.id} is in the catalogue already; choose another id")
    if "fp32" not in own.peak_tflops:
        raise CorruptFile(f"{path}: wanted peak_tflops.fp32, got {', '.join(own.peak_tflops)}")

    def figure(value: float) -> Figure:
        today = datetime.now(UTC).date().isoformat()
        return Figure(
            value=value, source=f"--device-file {path.name}"[:2000], read_on=today, confidence="B"
        )

    def or_unknown(value: float | None, unit: float) -> Figure | Unknown:
        return Unknown(reason=f"not in {path.name}") if value is None else figure(value * unit)

    return DeviceSpec(
        id=own.id,
        name=own.name,
        device_class=own.device_class,
        family=own.family,
        parallel_units=own.parallel_units,
        boost_hz=None if own.boost_mhz is None else figure(own.boost_mhz * MEGA),
        peak_flop_per_s={name: figure(peak * TERA) for name, peak in own.peak_tflops.items()},
        memory_bytes=or_unknown(own.memory_gb, GIGA),
        memory_bytes_per_s=figure(own.memory_gb_per_s * GIGA),
        cache_bytes=or_unknown(own.cache_mb, MEGA),
        power_limit_w=or_unknown(own.power_limit_w, 1.0),
        idle_w=or_unknown(own.idle_w, 1.0),
        price_usd=or_unknown(own.price_usd, 1.0),
        price_basis="given by the user" if own.price_usd else "",
    )


def _as_number(name: str, value: object) -> object:
    if isinstance(value, dict):
        return {key: _as_number(key, each) for key, each in value.items()}
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_whole and name != "parallel_units" else value  # type: ignore[arg-type]


def write_skeleton(path: Path) -> None:
    """A data sheet to fill in. Raises Complaint where a file is there already."""
    if path.exists():
        raise Complaint(f"{path} is there already; name another file for the skeleton")
    write_whole(path, SKELETON.encode())


_ANCHOR = re.compile(
    r"(?P<model>[^:=]{1,200}):bs(?P<batch>[0-9]{1,7})"
    r"(?::img(?P<size>[0-9]{1,5}))?(?::kept(?P<kept>[0-9./]{1,100}))?:(?P<precision>[^:=]{1,20}):(?P<runtime>[^:=]{1,20})"
    r"=(?P<value>[0-9]{1,12}(?:\.[0-9]{1,12})?)(?P<unit>ms)?"
)
ANCHOR_FORM = (
    "MODEL:bs32:fp16:engine=559 (images/s; or =57.2ms a batch; :img384 after the batch, then "
    ":kept1/0.6/0.3 where a packed network kept so much in its recursions; else it kept all)"
)


def checked_torch(version: str | None) -> str:
    """A version of torch as it was typed; nothing where none was. Raises Complaint."""
    said = (version or "").strip()
    if said and _VERSION.fullmatch(said) is None:
        raise Complaint(f"wanted a version of torch such as 1.13.1, got {said[:200]!r}")
    return said


_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}([.+a-z][.+a-z0-9]{0,40})?")


def timing_from(text: str, torch: str = "") -> Timing:
    """The timing that `--anchor` says, of that torch. Raises Complaint with the form that was wanted."""
    found = _ANCHOR.fullmatch(text.strip())
    if found is None:
        raise Complaint(f"wanted --anchor {ANCHOR_FORM}, got {text[:200]!r}")
    return _timing(
        model=found["model"],
        batch=int(found["batch"]),
        size=int(found["size"]) if found["size"] else None,
        precision=found["precision"],
        runtime=found["runtime"],
        rate=None if found["unit"] else float(found["value"]),
        latency_ms=float(found["value"]) if found["unit"] else None,
        kept=found["kept"],
        torch=torch,
        where=f"--anchor {text[:200]}",
    )


# A column of timings, and of tables to predict, that may be left out.
TORCH = "torch_version"
ANCHOR_COLUMNS = ("model", "batch_size", "precision_id", "runtime_id", "throughput_img_per_s")


def timings_from(path: Path, torch: str = "") -> list[Timing]:
    """The timings of a CSV with `ANCHOR_COLUMNS`; img_size and kept, as in `--anchor`, if need be.

    `torch` is the version where a column `torch_version` does not say.
    """
    try:
        text = read_limited(path, LARGEST_FILE_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns, rows = list(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptFile(f"{path} is no CSV: {error}") from None
    lacking = [name for name in ANCHOR_COLUMNS if name not in columns]
    if lacking or not rows:
        wanted = ", ".join(ANCHOR_COLUMNS)
        raise CorruptFile(
            f"{path} has {len(rows)} rows and lacks {lacking or 'none'}; wanted {wanted}"
        )
    if len(rows) > MOST_TIMINGS:
        raise CorruptFile(f"{path} has {len(rows)} rows; {MOST_TIMINGS} is the most")
    timings = []
    for number, row in enumerate(rows, start=2):
        cells = {
            name: (row.get(name) or "").strip()
            for name in (*ANCHOR_COLUMNS, "img_size", "kept", TORCH)
        }
        try:
            rate, batch = float(cells["throughput_img_per_s"]), int(cells["batch_size"])
            size = int(cells["img_size"]) if cells["img_size"] else None
        except ValueError as error:
            raise CorruptFile(f"{path}: row {number}: {error}") from None
        timings.append(
            _timing(
                model=cells["model"], batch=batch, size=size, precision=cells["precision_id"],
                runtime=cells["runtime_id"], rate=rate, latency_ms=None,
                kept=cells["kept"] or None, torch=checked_torch(cells[TORCH]) or torch,
                where=f"{path}: row {number}",
            )
        )  # fmt: skip
    return timings


def _timing(
    *, model: str, batch: int, size: int | None, precision: str, runtime: str,
    rate: float | None, latency_ms: float | None, where: str, torch: str, kept: str | None = None,
) -> Timing:  # fmt: skip
    if not 1 <= batch <= 1_000_000:
        raise Complaint(f"{where}: wanted a batch from 1 to 1,000,000, got {batch}")
    seconds = batch / rate if rate else (latency_ms or 0.0) * MILLI
    # NaN fails both comparisons.
    if not 1e-7 < seconds < SECONDS_PER_HOUR:
        raise Complaint(
            f"{where}: wanted a batch to take from 0.1 µs to an hour, got {seconds:.3g} s"
        )
    net = model_named(model, size)
    return Timing(
        workload=Workload(
            architecture=net,
            batch=batch,
            precision=check_precision(precision),
            runtime=check_runtime(runtime),
            executor="masked" if kept is None else "packed",
            states=timm_states(net),
            attention=attention_of_torch(torch, check_runtime(runtime)),
            routing=_routing_kept(net, kept, where),
        ),
        seconds=seconds,
    )


def _routing_kept(net: Architecture, kept: str | None, where: str) -> RoutingDistribution:
    if kept is None:
        return RoutingDistribution.full(net.tokens, net.recursions)
    said = kept.split("/")
    if len(said) != net.recursions or not net.is_routed:
        raise Complaint(
            f"{where}: {net.name} has {net.recursions} recursions; wanted as many shares after kept, "
            f"got {len(said)}"
        )
    try:
        shares = [float(share) for share in said]
        return RoutingDistribution.from_survival(shares, net.tokens, net.prefix_tokens)
    except ValueError as error:
        raise Complaint(f"{where}: {error}") from None


def fits_with(
    timings: Sequence[Timing], device: DeviceSpec, fits: Sequence[Fit]
) -> tuple[Fit, ...]:
    """`fits` with those that the timings on `device` give, for each runtime and torch that was timed.

    Raises Complaint where a timing lies outside what is known of such devices: it is then of
    another thing, or in another unit.
    """
    # Fitting needs scipy, which takes longer to load than most predictions.
    from costmodel.anchoring import fit_with_timings

    own: list[Fit] = []
    for kind in dict.fromkeys(map(_kind, timings)):
        alike = [timing for timing in timings if _kind(timing) == kind]
        reach = reach_of(alike[0].workload, device, fits)
        if isinstance(reach, Refusal):
            raise Complaint(f"--anchor cannot be used: {reach.reason}")
        for timing in alike:
            _check_plausible(timing, device, fits)
        own.append(fit_with_timings(reach.fit, device, alike))
    return (*own, *fits)


def _kind(timing: Timing) -> tuple[Runtime, Attention]:
    """What timings must have in common to be fitted together."""
    return timing.workload.runtime, timing.workload.attention


def _check_plausible(timing: Timing, device: DeviceSpec, fits: Sequence[Fit]) -> None:
    guess = forecast(timing.workload, device, fits)
    work = timing.workload
    what = f"{work.architecture.name} at batch {work.batch} on {device.name}"
    if isinstance(guess, Refusal):
        raise Complaint(f"--anchor of {what} is outside what is known: {guess.reason}")
    width = guess.latency_s.high / guess.latency_s.value
    if not 1 / width**MOST_SPREADS < timing.seconds / guess.latency_s.value < width**MOST_SPREADS:
        raise Complaint(
            f"--anchor of {what} takes {timing.seconds:.3g} s a batch, {guess.latency_s.low:.3g} to "
            f"{guess.latency_s.high:.3g} s were expected: check its unit (images/s), precision and "
            "runtime"
        )
