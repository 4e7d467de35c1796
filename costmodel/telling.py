"""The sections of `predict --explain` and the table of `--compare`, as text of the asked shape."""

import json
from collections.abc import Sequence
from pathlib import Path

from costmodel.explaining import (
    batch_percentiles,
    bound_shares,
    break_even_share,
    by_stage_and_operator,
    executors_compared,
    ranked,
    ridge_flop_per_byte,
    what_ifs,
)
from costmodel.reach import reach_of
from costmodel.transfer import forecast
from domain.complaint import Complaint
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.prediction import Prediction, Refusal
from domain.store import save
from domain.tables import Cell, Format, rendered
from domain.units import MILLI
from domain.workload import Workload


def explanation(workload: Workload, device: DeviceSpec, fits: Sequence[Fit], shape: Format) -> str:
    """Time by depth and operator, what bounds it, and what would change it. Raises Complaint."""
    answer = forecast(workload, device, fits)
    reach = reach_of(workload, device, fits)
    if isinstance(answer, Refusal) or isinstance(reach, Refusal):
        raise Complaint(answer.reason if isinstance(answer, Refusal) else "no fit speaks for it")
    operators = by_stage_and_operator(answer)
    if shape == "csv":
        return rendered(operators, shape)
    stages: list[dict[str, Cell]] = [
        {"stage": stage, "latency_ms": seconds / MILLI, "share": seconds / answer.latency_s.value}
        for stage, seconds in answer.stages_s.items()
    ]
    bounds = bound_shares(answer)
    ridge = ridge_flop_per_byte(reach.machine)
    changes, executors = (
        what_ifs(workload, device, fits),
        executors_compared(workload, device, fits),
    )
    even = break_even_share(workload, device, fits)
    tail = batch_percentiles(workload, device, fits)
    if shape == "json":
        whole = {
            "by_stage": stages,
            "by_operator": operators,
            "bounds": dict(bounds),
            "ridge_flop_per_byte": ridge,
            "what_if": changes,
            "executors": executors,
            "packing_break_even_share": even,
            "batch_seconds": tail,
        }
        return json.dumps(whole, indent=1, allow_nan=False) + "\n"
    parts = [
        f"Why {answer.device_name} takes {answer.latency_s.value / MILLI:.3g} ms for a batch of "
        f"{workload.batch} ({answer.tier})",
        rendered(_rounded(stages), shape),
        rendered(_rounded(sorted(operators, key=_longest)[:12]), shape),
        "Bound by " + ", ".join(f"{name} {share:.0%}" for name, share in bounds.items()) + ".",
        f"Arithmetic bounds above {ridge:.3g} FLOP/byte, memory below.",
        rendered(_rounded(changes), shape),
    ]
    if executors:
        parts.append(rendered(_rounded(executors), shape))
        parts.append(_break_even(even))
    if tail:
        said = ", ".join(f"{name} {seconds / MILLI:.3g} ms" for name, seconds in tail.items())
        parts.append(f"Batches as images happen to come together: {said}.")
    return "\n".join(parts) + "\n"


def _longest(row: dict[str, Cell]) -> float:
    value = row["latency_ms"]
    return -float(value) if isinstance(value, int | float) else 0.0


def _break_even(share: float | None) -> str:
    if share is None:
        return "Packing never pays here: computing all tokens is faster whatever is routed away."
    if share >= 1:
        return "Packing pays whatever share of the tokens stays."
    return f"Packing pays while fewer than {share:.0%} of the tokens stay in every recursion."


def _rounded(rows: Sequence[dict[str, Cell]]) -> list[dict[str, Cell]]:
    return [
        {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


def worth_told(
    asked: Workload,
    device: DeviceSpec,
    fits: Sequence[Fit],
    count: int,
    plan: Path | None,
    shape: Format,
) -> str:
    """Timings in the order of their worth, the half-width after each; `plan` is written too."""
    # Needs scipy, as fitting does.
    from costmodel.worth import plan_of, worth_of_timings

    worth = worth_of_timings(asked, device, fits, count)
    if isinstance(worth, Refusal):
        raise Complaint(worth.reason)
    if plan is not None:
        save(plan_of(worth), plan)
    rows: list[dict[str, Cell]] = [
        {"timing": 0, "batch": None, "survival": "before any", "half_width": worth.half_widths[0]}
    ]
    rows += [
        {
            "timing": number,
            "batch": work.batch,
            "survival": ", ".join(f"{share:.2g}" for share in work.routing.survival),
            "half_width": width,
        }
        for number, (work, width) in enumerate(
            zip(worth.timings, worth.half_widths[1:], strict=True), start=1
        )
    ]
    return rendered(_rounded(rows) if shape == "table" else rows, shape)


def comparison(
    workloads: Sequence[tuple[Workload, DeviceSpec]], fits: Sequence[Fit], shape: Format
) -> str:
    """Devices by rank, each with the probability that it beats the next. Raises Complaint."""
    answers = [forecast(workload, device, fits) for workload, device in workloads]
    known = [answer for answer in answers if isinstance(answer, Prediction)]
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    if not known:
        raise Complaint(refused[0].reason)
    rows = ranked(known)
    if shape != "table":
        return rendered(rows, shape)
    lines = [f"- {each.device_id}: {each.reason}" for each in refused]
    said = "beats_next, beats_last: probability of taking less time than the next, than the last."
    return "\n".join([rendered(_rounded(rows), shape), said, *lines]) + "\n"
