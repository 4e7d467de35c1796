"""The head of the report and its end: what stands out, what is missing, what the data are worth."""

from collections import Counter
from collections.abc import Iterator, Sequence

from domain.fit import ValidationRow
from domain.measurement import Environment, Measurement, Rates
from domain.prediction import Prediction
from domain.scenario import Ownership
from domain.statistics import median
from domain.units import shown, shown_money, significant
from reports.blocks import Block, Paragraph, Section, Sentences, Sheet, absent_parts
from reports.cells import Cell, Table, percent
from reports.contents import Absent, ReportContents, Say, sentence_of
from reports.points import has_trained_weights, points_of, savings_of
from reports.tables import environment_table, quantity_name

MOST_FINDINGS_OF_A_KIND = 3


def facts_of(contents: ReportContents, say: Say) -> tuple[tuple[str, str], ...]:
    """Which machine, model and time, how certain, what is missing: terms and plain words."""
    missing = [say(f"part.{name}") for name in absent_parts(contents)]
    return (
        (say("head.machine"), _machine(contents, say)),
        (say("head.model"), _model(contents, say)),
        (say("head.when"), _when(contents, say)),
        (say("head.tiers"), _tiers(contents, say)),
        (say("head.missing"), ", ".join(missing) or say("head.nothing_missing")),
    )


def findings_of(contents: ReportContents, say: Say) -> tuple[str, ...]:
    """What a hurried reader should know."""
    return (*_of_plan(contents, say), *_of_savings(contents, say), *_of_accuracy(contents, say))


def quality_of(contents: ReportContents, say: Say) -> Section:
    """What the data are worth: statuses, relaxations, conditions, files."""
    return Section(
        id="quality", heading=say("quality.heading"), blocks=tuple(_quality(contents, say))
    )


def _machine(contents: ReportContents, say: Say) -> str:
    if isinstance(contents.measurements, Absent):
        return say("head.unknown")
    environment = contents.measurements.value[0].environment
    return say(
        "head.machine_is",
        name=environment.device_name,
        id=environment.machine_id,
        threads=str(environment.threads),
        cores=str(environment.cores),
        memory=shown(environment.memory_bytes, "B"),
        system=environment.operating_system,
        torch=environment.torch,
    )


def _model(contents: ReportContents, say: Say) -> str:
    if not isinstance(contents.measurements, Absent):
        measured = contents.measurements.value
        shipped = next((each for each in measured if has_trained_weights(each)), measured[0])
        architecture = shipped.workload.architecture
        return say(
            "head.model_is",
            name=architecture.name,
            image=str(architecture.image_size),
            tokens=str(architecture.tokens),
            recursions=str(architecture.recursions),
            parameters=shown(architecture.parameters, ""),
            weights=shipped.weights,
        )
    if not isinstance(contents.offers, Absent):
        return contents.offers.value.model
    return say("head.unknown")


def _when(contents: ReportContents, say: Say) -> str:
    if isinstance(contents.measurements, Absent):
        return say("head.unknown")
    measured = contents.measurements.value
    times = sorted(each.taken_at for each in measured)
    return say(
        "head.when_is",
        first=times[0],
        last=times[-1],
        runs=str(len(measured)),
        points=str(len({each.point for each in measured})),
    )


def _tiers(contents: ReportContents, say: Say) -> str:
    if isinstance(contents.offers, Absent):
        return say("page.not_offered")
    tiers = Counter(
        offer.prediction.tier if isinstance(offer.prediction, Prediction) else "refused"
        for offer in contents.offers.value.offers
    )
    return ", ".join(
        say("head.tier_count", tier=say(f"tier.{tier}"), count=str(count))
        for tier, count in tiers.items()
    )


def _of_plan(contents: ReportContents, say: Say) -> Iterator[str]:
    if isinstance(contents.plan, Absent):
        return
    plan = contents.plan.value
    chosen = plan.chosen
    if chosen is None or not isinstance(chosen.ownership, Ownership):
        yield say("head.found_no_fleet", title=plan.scenario.title)
        return
    cost = chosen.ownership
    yield say(
        "head.found_fleet",
        title=plan.scenario.title,
        count=str(chosen.devices),
        device=chosen.device_name,
        years=str(cost.horizon_years),
        total=shown_money(cost.total, cost.currency),
        low=shown_money(cost.low, cost.currency),
        high=shown_money(cost.high, cost.currency),
    )


def _of_savings(contents: ReportContents, say: Say) -> Iterator[str]:
    """The largest batch of each executor: the load that routing is made for."""
    if isinstance(contents.measurements, Absent):
        return
    savings = savings_of(points_of(contents.measurements.value, say))
    largest = {
        saving.other.executor: saving
        for saving in sorted(savings, key=lambda saving: saving.other.batch)
    }
    for saving in list(largest.values())[:MOST_FINDINGS_OF_A_KIND]:
        yield say(
            "head.found_ratio",
            batch=str(saving.other.batch),
            executor=saving.other.executor,
            time=shown(saving.other.time_s.value / saving.other.batch, "s"),
            masked=shown(saving.masked.time_s.value / saving.masked.batch, "s"),
            ratio=significant(saving.time_ratio.value),
            low=significant(saving.time_ratio.low),
            high=significant(saving.time_ratio.high),
        )


def _of_accuracy(contents: ReportContents, say: Say) -> Iterator[str]:
    if isinstance(contents.validation, Absent):
        return
    tiers: dict[str, list[ValidationRow]] = {}
    for row in contents.validation.value.rows:
        tiers.setdefault(row.tier, []).append(row)
    for rows in tiers.values():
        # Whole latencies before parts of them, a measured machine (its noise is known) before what
        # others published, then what rests on the most points.
        row = max(
            rows, key=lambda row: (row.quantity == "latency", row.noise_floor is not None, row.n)
        )
        yield say(
            "head.found_accuracy",
            quantity=quantity_name(row.quantity, say),
            split=row.split,
            error=percent(row.median_abs_error),
            coverage=percent(row.coverage_90),
        )


def _quality(contents: ReportContents, say: Say) -> Iterator[Block]:
    if not isinstance(contents.measurements, Absent):
        yield from _measurement_quality(contents.measurements.value, say)
    yield Sheet(_files_table(contents, say))


def _measurement_quality(measurements: Sequence[Measurement], say: Say) -> Iterator[Block]:
    statuses = Counter(each.status for each in measurements)
    yield Sheet(
        Table(
            id="table-statuses",
            caption=say("quality.statuses"),
            columns=(say("quality.status"), say("quality.count")),
            rows=tuple((Cell(status), Cell(str(n))) for status, n in statuses.most_common()),
        )
    )
    troubled = [each for each in measurements if each.status != "ok"]
    if troubled:
        yield Sheet(_troubles_table(troubled, say))
    yield Sentences(say("quality.conditions"), tuple(_conditions(measurements, say)))
    first_of = {each.environment: each.rates for each in reversed(measurements)}
    if len(first_of) > 1:
        yield Paragraph(say("quality.environments", count=str(len(first_of))), tone="warning")
    for environment, rates in first_of.items():
        yield Sheet(_with_rates(environment, rates, say))


def _troubles_table(measurements: Sequence[Measurement], say: Say) -> Table:
    return Table(
        id="table-troubles",
        caption=say("quality.troubles"),
        columns=tuple(say(f"quality.{name}") for name in ("point", "run", "status", "reason")),
        rows=tuple(
            (Cell(each.point), Cell(str(each.run)), Cell(each.status), Cell(each.reason))
            for each in measurements
        ),
    )


def _conditions(measurements: Sequence[Measurement], say: Say) -> Iterator[str]:
    everything = str(len(measurements))
    usable = [each for each in measurements if each.is_usable]
    relaxed = sum(each.relaxed for each in measurements)
    imprecise = sum(not each.precision_met for each in usable)
    yield say("quality.relaxed", count=str(relaxed), all=everything)
    yield say("quality.imprecise", count=str(imprecise), all=str(len(usable)))
    yield say(
        "quality.switches", count=f"{sum(each.involuntary_switches for each in measurements):,}"
    )
    overheads = [
        median(each.instrumented_s) / median(each.samples_s) - 1
        for each in usable
        if each.instrumented_s
    ]
    if overheads:
        yield say("quality.overhead", least=percent(min(overheads)), most=percent(max(overheads)))


def _with_rates(environment: Environment, rates: Rates, say: Say) -> Table:
    table = environment_table(environment, say)
    facts = (
        ("gemm", shown(rates.gemm_flop_per_s, "FLOP/s")),
        ("copy", shown(rates.copy_bytes_per_s, "B/s")),
    )
    rows = tuple((Cell(say(f"quality.{name}")), Cell(value)) for name, value in facts)
    return Table(
        id=table.id, caption=table.caption, columns=table.columns, rows=(*table.rows, *rows)
    )


def _files_table(contents: ReportContents, say: Say) -> Table:
    return Table(
        id="table-files",
        caption=say("quality.files"),
        columns=tuple(say(f"quality.{name}") for name in ("part", "file", "origin")),
        rows=tuple(
            (Cell(say(f"part.{name}")), Cell(sentence_of(part, say)), Cell(""))
            if isinstance(part, Absent)
            else (
                Cell(say(f"part.{name}")),
                Cell(part.source),
                Cell(say("quality.reference" if part.is_reference else "quality.here")),
            )
            for name, part in contents.parts.items()
        ),
    )
