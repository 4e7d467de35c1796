"""A table of workloads in, the same table with predictions out; cells are hostile input."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from costmodel.asking import devices_named, precision_for, routing_named
from costmodel.own import TORCH, checked_torch
from costmodel.transfer import forecast
from domain.catalogue import check_precision, check_runtime, model_named
from domain.complaint import Complaint, CorruptFile, first_error
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Prediction, Refusal
from domain.record import Executor
from domain.store import read_limited
from domain.tables import Cell
from domain.units import MILLI
from domain.workload import Workload, attention_of_torch, timm_states

LARGEST_CSV_BYTES = 64 * 2**20
CSV_COLUMNS = ("model", "device_id", "precision_id", "runtime_id", "batch_size", "img_size")
# May be left out, as torch's version may: how images lie in memory, nchw unless it says nhwc.
LAYOUT, LAYOUTS = "layout", ("", "nchw", "nhwc")


def predicted_rows(
    path: Path,
    fits: Sequence[Fit],
    routing: str | None = None,
    executor: Executor = "packed",
    own: Mapping[str, DeviceSpec] = MappingProxyType({}),
    torch: str = "",
) -> list[dict[str, Cell]]:
    """The rows of `path` in their order, with predictions, tier and the reason for a missing one.

    `own` are devices that the user describes, by the id that rows name them with; `torch` is the version
    of rows that do not say.
    """
    try:
        text = read_limited(path, LARGEST_CSV_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CorruptFile(f"{path} is not UTF-8 text; wanted a CSV file") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = list(reader.fieldnames or ())
        rows = list(reader)
    except csv.Error as error:
        raise CorruptFile(f"{path}:{reader.line_num}: {error}") from None
    lacking = [name for name in CSV_COLUMNS if name not in columns]
    if lacking:
        raise CorruptFile(
            f"{path} lacks the columns {', '.join(lacking)}; wanted {', '.join(CSV_COLUMNS)}"
        )
    if len(set(columns)) < len(columns):
        raise CorruptFile(f"{path} names a column twice: {', '.join(columns)}")
    answers: dict[tuple[str, ...], dict[str, Cell]] = {}
    answered: list[dict[str, Cell]] = []
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise CorruptFile(f"{path}: row {number} has more cells than there are columns")
        if None in row.values():
            raise CorruptFile(f"{path}: row {number} has fewer cells than there are columns")
        asked = tuple((row.get(name) or "").strip() for name in (*CSV_COLUMNS, LAYOUT, TORCH))
        if asked not in answers:
            question = dict(zip((*CSV_COLUMNS, LAYOUT, TORCH), asked, strict=True))
            question[TORCH] = question[TORCH] or torch
            answers[asked] = _answer(question, fits, routing, executor, own)
        kept: dict[str, Cell] = {name: row[name] for name in columns}
        answered.append(kept | answers[asked])
    if not answered:
        raise CorruptFile(f"{path} has no rows")
    return answered


def _answer(
    row: Mapping[str, str],
    fits: Sequence[Fit],
    routing: str | None,
    executor: Executor,
    own: Mapping[str, DeviceSpec],
) -> dict[str, Cell]:
    try:
        outcome: Prediction | Refusal = _forecast_of_row(row, fits, routing, executor, own)
    except Complaint as complaint:
        outcome = Refusal(device_id=row["device_id"], reason=str(complaint))
    except ValidationError as error:
        outcome = Refusal(device_id=row["device_id"], reason=first_error(error))
    names = [
        f"predicted_{quantity}{side}"
        for quantity in ("throughput_img_per_s", "latency_ms")
        for side in ("", "_low", "_high")
    ]
    if isinstance(outcome, Refusal):
        return dict.fromkeys(names) | {"tier": "refused", "reason": outcome.reason}
    rate, seconds = outcome.throughput_img_per_s, outcome.latency_s.scaled(1 / MILLI)
    values = (rate.value, rate.low, rate.high, seconds.value, seconds.low, seconds.high)
    return dict(zip(names, values, strict=True)) | {
        "tier": outcome.tier,
        "reason": "; ".join((outcome.tier_reason, *outcome.assumptions)),
    }


def _forecast_of_row(
    row: Mapping[str, str],
    fits: Sequence[Fit],
    routing: str | None,
    executor: Executor,
    own: Mapping[str, DeviceSpec],
) -> Prediction | Refusal:
    size = _whole(row["img_size"], "img_size") if row["img_size"] else None
    net = model_named(row["model"], size)
    if row["device_id"] == "all":
        raise Complaint("wanted one device in a row, got 'all'")
    layout = row[LAYOUT].casefold()
    if layout not in LAYOUTS:
        raise Complaint(f"wanted layout nchw, nhwc or nothing, got {row[LAYOUT]!r}")
    device = own.get(row["device_id"]) or devices_named(row["device_id"], fits, None)[0][0]
    # A routing of several recursions cannot be of a plain network: there every token goes on.
    travelled, _ = routing_named(routing if net.is_routed else None, net)
    runtime = check_runtime(row["runtime_id"] or "eager")
    torch = checked_torch(row[TORCH]) if runtime in ("eager", "compiled") else ""
    workload = Workload(
        architecture=net,
        batch=_whole(row["batch_size"], "batch_size"),
        precision=check_precision(row["precision_id"])
        if row["precision_id"]
        else precision_for(None, device),
        runtime=runtime,
        executor=executor,
        states=timm_states(net, layout),
        attention=attention_of_torch(torch, runtime),
        routing=travelled,
    )
    return forecast(workload, device, fits)


def _whole(text: str, name: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (1 <= value <= 1_000_000 and value == int(value)):
        raise Complaint(f"wanted {name} as a whole number from 1 to 1,000,000, got {text!r}")
    return int(value)
