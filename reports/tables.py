"""Tables of what was measured, decided and fitted: each record as rows of cells."""

import math
from collections.abc import Sequence

from domain.fit import Coefficient, Fit, Validation
from domain.measurement import Environment
from domain.record import Estimate
from domain.routing import RoutingDistribution
from domain.units import shown, significant
from reports.cells import Cell, Table, counted, estimate, figure, percent, reasons
from reports.contents import Say
from reports.points import Point, Saving, stage_name

# Units of the quantities that held-out points are given in.
_UNIT_OF = {"latency": "s", "stage-latency": "s"}


def points_table(points: Sequence[Point], say: Say) -> Table:
    """End-to-end time, memory and work of each point."""
    return Table(
        id="table-points",
        caption=say("measured.table_points"),
        columns=tuple(
            say(f"measured.{name}")
            for name in (
                "configuration", "end_to_end", "per_image", "peak_memory", "resident_memory",
                "routed", "executed", "energy", "runs",
            )
        ),
        rows=tuple(
            (
                Cell(point.label),
                estimate(point.time_s, "s", say),
                estimate(point.time_s.scaled(1 / point.batch), "s", say),
                figure(point.peak_bytes, "B", say),
                figure(point.resident_bytes, "B", say),
                Cell(shown(point.routed_flop, "FLOP")),
                Cell(shown(point.executed_flop, "FLOP")),
                figure(point.energy_j, "J", say),
                Cell(str(len(point.runs))),
            )
            for point in points
        ),
        notes=(
            *reasons("measured.no_energy", [point.energy_j for point in points], say),
            *reasons("measured.no_memory", [point.peak_bytes for point in points], say),
        ),
    )  # fmt: skip


def stages_table(points: Sequence[Point], say: Say) -> Table:
    """Tokens, time, memory and work of each stage of each point."""
    held = [(point, stage) for point in points for stage in point.stages]
    return Table(
        id="table-stages",
        caption=say("measured.table_stages"),
        columns=tuple(
            say(f"measured.{name}")
            for name in (
                "configuration", "stage", "tokens", "time", "share", "peak_memory", "routed",
                "executed", "energy",
            )
        ),
        rows=tuple(
            (
                Cell(point.label),
                Cell(stage_name(stage.name, say)),
                counted(stage.tokens, say),
                estimate(stage.time_s, "s", say),
                Cell(percent(stage.share)),
                figure(stage.peak_bytes, "B", say),
                Cell(shown(stage.routed_flop, "FLOP")),
                Cell(shown(stage.executed_flop, "FLOP")),
                figure(stage.energy_j, "J", say),
            )
            for point, stage in held
        ),
        notes=(
            *reasons("measured.no_energy", [stage.energy_j for _, stage in held], say),
            *reasons("measured.no_memory", [stage.peak_bytes for _, stage in held], say),
        ),
    )  # fmt: skip


def savings_table(savings: Sequence[Saving], say: Say) -> Table:
    """Masked over routed, in time and in work."""
    return Table(
        id="table-ratios",
        caption=say("measured.table_ratios"),
        columns=tuple(
            say(f"measured.{name}")
            for name in ("configuration", "ratio_pair", "ratio_time", "ratio_work")
        ),
        rows=tuple(
            (
                Cell(saving.other.label),
                Cell(say("measured.ratio_of", executor=saving.other.executor)),
                estimate(saving.time_ratio, "", say),
                Cell(
                    say("page.not_offered")
                    if saving.work_ratio is None
                    else significant(saving.work_ratio)
                ),
            )
            for saving in savings
        ),
        notes=(say("measured.ratio_note"),),
    )


def survival_table(routing: RoutingDistribution, say: Say) -> Table:
    """Tokens that enter each recursion: over all images, and in the images with fewest and most."""
    columns = tuple(zip(*routing.counts, strict=True))
    return Table(
        id="table-survival",
        caption=say("router.table_survival"),
        columns=tuple(
            say(f"router.{name}") for name in ("recursion", "survival", "fewest", "most")
        ),
        rows=tuple(
            (
                Cell(str(r + 1)),
                Cell(percent(share)),
                Cell(percent(min(columns[r]) / routing.tokens)),
                Cell(percent(max(columns[r]) / routing.tokens)),
            )
            for r, share in enumerate(routing.survival)
        ),
    )


def accuracy_table(validation: Validation, say: Say) -> Table:
    """Errors and coverage of each split."""
    names = (
        "split", "quantity", "tier", "n", "median_error", "p90_error", "signed_error", "coverage",
        "half_width", "noise",
    )  # fmt: skip
    return Table(
        id="table-accuracy",
        caption=say("accuracy.table"),
        columns=tuple(say(f"accuracy.{name}") for name in names),
        rows=tuple(
            (
                Cell(row.split),
                Cell(quantity_name(row.quantity, say)),
                Cell(say(f"tier.{row.tier}"), badge=row.tier),
                Cell(str(row.n)),
                Cell(percent(row.median_abs_error)),
                Cell(percent(row.p90_abs_error)),
                Cell(percent(row.signed_error)),
                Cell(percent(row.coverage_90)),
                Cell(percent(row.half_width)),
                Cell(
                    say("accuracy.no_noise")
                    if row.noise_floor is None
                    else percent(row.noise_floor)
                ),
            )
            for row in validation.rows
        ),
    )


def coefficients_table(fit: Fit, say: Say) -> Table:
    """Each coefficient of a fit, and whether data or the prior decided it."""
    return Table(
        id="table-coefficients",
        caption=say(
            "accuracy.fit_is",
            name=fit.name,
            points=str(fit.points),
            provenance=fit.provenance.rstrip("."),
            made_by=fit.made_by,
        ),
        columns=tuple(say(f"accuracy.{name}") for name in ("coefficient", "value", "identified")),
        rows=tuple(
            (
                Cell(each.name),
                _coefficient(each, say),
                Cell(say("accuracy.yes" if each.is_identified else "accuracy.no")),
            )
            for each in fit.coefficients
        ),
    )


def environment_table(environment: Environment, say: Say) -> Table:
    """The conditions of a measurement."""
    facts = (
        ("device", f"{environment.device_name} ({environment.machine_id})"),
        ("kind", environment.kind),
        ("threads", str(environment.threads)),
        ("cores", str(environment.cores)),
        ("memory", shown(environment.memory_bytes, "B")),
        ("system", environment.operating_system),
        ("python", environment.python),
        ("torch", environment.torch),
    )
    return Table(
        id=f"table-environment-{environment.key()}",
        caption=say("quality.environment", key=environment.key()),
        columns=(say("quality.fact"), say("quality.value")),
        rows=(
            *((Cell(say(f"quality.{name}")), Cell(value)) for name, value in facts),
            *((Cell(name), Cell(value)) for name, value in environment.flags),
        ),
    )


def unit_of(quantity: str) -> str:
    """The unit of a quantity that was predicted, or nothing where it is not one of ours."""
    return _UNIT_OF.get(quantity, "")


def quantity_name(quantity: str, say: Say) -> str:
    """The name of a quantity for people; one that is not ours keeps the name it came with."""
    return say(f"quantity.{quantity}") if quantity in _UNIT_OF else quantity


def _coefficient(coefficient: Coefficient, say: Say) -> Cell:
    # The posterior is normal in the logarithm; 1.645 spreads hold 90 % of it.
    spread = math.exp(1.645 * coefficient.log_sd)
    return estimate(
        Estimate(
            value=coefficient.value,
            low=coefficient.value / spread,
            high=coefficient.value * spread,
        ),
        coefficient.unit,
        say,
    )
