"""The sections of the report: measured, routed, predicted, priced, designed."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from domain.advice import advice_of
from domain.fit import HeldOut, Validation
from domain.prediction import Prediction
from domain.record import Unknown
from domain.routing import RouterDecisions, RoutingDistribution
from domain.scenario import Offer, Offers, Ownership, Plan
from domain.units import shown, significant
from reports import figures, purchase, tables
from reports.blocks import (
    Block,
    Drawing,
    Gallery,
    Heading,
    Paragraph,
    Picture,
    Section,
    Sentences,
    Sheet,
    absence_of,
    source_of,
)
from reports.cells import percent
from reports.contents import Absent, ReportContents, Say
from reports.designed import designed
from reports.points import Point, has_trained_weights, points_of, savings_of, stage_name

MOST_PICTURES = 12


def sections_of(contents: ReportContents, say: Say) -> tuple[Section, ...]:
    """The sections in their order."""
    return (
        Section(
            id="measurements",
            heading=say("measured.heading"),
            blocks=tuple(_measured(contents, say)),
        ),
        Section(id="router", heading=say("router.heading"), blocks=tuple(_routed(contents, say))),
        Section(
            id="accuracy", heading=say("accuracy.heading"), blocks=tuple(_predicted(contents, say))
        ),
        Section(
            id="catalogue", heading=say("catalogue.heading"), blocks=tuple(_priced(contents, say))
        ),
        Section(
            id="designs", heading=say("designs.heading"), blocks=tuple(designed(contents, say))
        ),
    )


def _measured(contents: ReportContents, say: Say) -> Iterator[Block]:
    part = contents.measurements
    if isinstance(part, Absent):
        yield absence_of(part, "measurements", say)
        return
    yield source_of(part, say)
    points = points_of(part.value, say)
    if not points:
        yield Paragraph(say("page.nothing_usable", count=str(len(part.value))), tone="absent")
        return
    yield Paragraph(say("measured.intro"))
    if not any(has_trained_weights(each) for each in part.value if each.is_usable):
        yield Paragraph(say("measured.random_weights"), tone="warning")
    with_stages = tuple(point for point in points if point.stages)
    if with_stages:
        yield from _stage_drawings(with_stages, say)
    yield Sheet(tables.points_table(points, say))
    savings = savings_of(points)
    if savings:
        yield Sheet(tables.savings_table(savings, say))
    else:
        yield Paragraph(say("measured.no_ratio"), tone="absent")
    if with_stages:
        yield Sheet(tables.stages_table(with_stages, say))


def _stage_drawings(points: Sequence[Point], say: Say) -> Iterator[Block]:
    by_speed = sorted(points, key=lambda point: point.stages_s / point.batch)
    best, worst = by_speed[0], by_speed[-1]
    yield Drawing(
        "figure-times",
        figures.stage_times(points, say),
        say(
            "measured.caption_times",
            best=best.label,
            best_time=shown(best.stages_s / best.batch, "s"),
            worst=worst.label,
            worst_time=shown(worst.stages_s / worst.batch, "s"),
        ),
    )
    stages = points[0].stages
    deepest = next(
        (stage for stage in reversed(stages) if stage.name.startswith("recursion")), stages[-1]
    )
    yield Drawing(
        "figure-tokens",
        figures.stage_tokens(points, say),
        say(
            "measured.caption_tokens",
            first_stage=stage_name(stages[0].name, say),
            first=significant(stages[0].tokens.value, 4),
            last=significant(deepest.tokens.value, 4),
        ),
    )
    yield Drawing("figure-work", figures.stage_work(points, say), say("measured.caption_work"))


def _routed(contents: ReportContents, say: Say) -> Iterator[Block]:
    decisions, routing = contents.decisions, contents.routing
    if isinstance(decisions, Absent):
        yield absence_of(decisions, "decisions", say)
    else:
        yield source_of(decisions, say)
        yield Paragraph(say("router.intro", weights=decisions.value.weights))
        yield _gallery(decisions.value, say)
    if isinstance(routing, Absent):
        yield absence_of(routing, "routing", say)
    else:
        yield source_of(routing, say)
        yield from _routing_blocks(routing.value, say)


def _gallery(decisions: RouterDecisions, say: Say) -> Gallery:
    colours = figures.depth_colours(decisions.recursions)
    pictures = []
    for number, image in enumerate(decisions.images[:MOST_PICTURES], start=1):
        depths = [depth for row in image.depths for depth in row]
        caption = say(
            "router.caption_image",
            number=str(number),
            label=image.label,
            predicted=image.predicted,
            least=str(min(depths, default=0)),
            most=str(max(depths, default=0)),
        )
        pictures.append(
            Picture(
                Drawing(
                    f"decision-{number}",
                    figures.decided_image(image, decisions.recursions),
                    caption,
                ),
                say("router.label", label=image.label),
                say("router.predicted", predicted=image.predicted),
            )
        )
    return Gallery(
        say("router.legend"),
        tuple((colour, str(depth)) for depth, colour in enumerate(colours)),
        tuple(pictures),
    )


def _routing_blocks(routing: RoutingDistribution, say: Say) -> Iterator[Block]:
    depths = [sum(row) / routing.tokens for row in routing.counts]
    yield Drawing(
        "figure-depths",
        figures.token_depths(routing, say),
        say(
            "router.caption_depths",
            images=f"{routing.images:,}",
            full=percent(routing.survival[-1]),
            recursions=str(routing.recursions),
            mean=percent(routing.mean_depth),
        ),
    )
    yield Drawing(
        "figure-images",
        figures.image_depths(routing, say),
        say("router.caption_images", least=significant(min(depths)), most=significant(max(depths))),
    )
    yield Sheet(tables.survival_table(routing, say))


def _predicted(contents: ReportContents, say: Say) -> Iterator[Block]:
    validation, fit = contents.validation, contents.fit
    if isinstance(validation, Absent):
        yield absence_of(validation, "validation", say)
    else:
        yield source_of(validation, say)
        yield Paragraph(say("accuracy.intro"))
        yield from _scatters(validation.value, say)
        yield Sheet(tables.accuracy_table(validation.value, say))
    yield Heading(say("accuracy.fit_heading"))
    if isinstance(fit, Absent):
        yield absence_of(fit, "fit", say)
    else:
        yield source_of(fit, say)
        yield Sheet(tables.coefficients_table(fit.value, say))


def _scatters(validation: Validation, say: Say) -> Iterator[Block]:
    # One figure a tier: a dozen points of this machine would drown in the published ones.
    tier_of = {(row.split, row.quantity): row.tier for row in validation.rows}
    groups: dict[tuple[str, str], list[HeldOut]] = {}
    for pair in validation.pairs:
        tier = tier_of.get((pair.split, pair.quantity), "")
        groups.setdefault((pair.quantity, tier), []).append(pair)
    for number, ((quantity, _), pairs) in enumerate(groups.items(), start=1):
        yield Drawing(
            f"figure-held-out-{number}",
            figures.predicted_against_measured(pairs, tables.unit_of(quantity), say),
            say(
                "accuracy.caption",
                quantity=tables.quantity_name(quantity, say),
                count=str(len(pairs)),
            ),
        )


def _priced(contents: ReportContents, say: Say) -> Iterator[Block]:
    offers, plan = contents.offers, contents.plan
    if isinstance(offers, Absent):
        yield absence_of(offers, "offers", say)
    else:
        yield source_of(offers, say)
        yield from _offer_blocks(offers.value, say)
    if isinstance(plan, Absent):
        yield absence_of(plan, "plan", say)
    else:
        yield from _plan_blocks(plan.value, source_of(plan, say), say)


def _offer_blocks(offers: Offers, say: Say) -> Iterator[Block]:
    yield Paragraph(say("catalogue.intro", model=offers.model, routing=offers.routing.rstrip(".")))
    priced = sorted(purchase.priced(offers), key=lambda offer: offer.currency)
    by_currency = groupby(priced, key=lambda offer: offer.currency)
    for number, (currency, held) in enumerate(by_currency, start=1):
        yield _cost_drawing(f"figure-cost-{number}", currency, list(held), say)
    if not priced:
        yield Paragraph(say("catalogue.no_chart"), tone="absent")
    yield Sheet(purchase.offers_table(offers, say))
    yield from _assumptions(offers.offers, say)


def _cost_drawing(id: str, currency: str, offers: Sequence[purchase.Priced], say: Say) -> Drawing:
    cheapest = offers[0]
    quickest = min(offers, key=lambda offer: offer.prediction.latency_s.value)
    return Drawing(
        id,
        figures.cost_against_latency(offers, say),
        say(
            "catalogue.caption",
            currency=currency,
            cheapest=cheapest.prediction.device_name,
            cheapest_cost=cheapest.price,
            quickest=quickest.prediction.device_name,
            quickest_time=shown(quickest.prediction.latency_s.value, "s"),
        ),
    )


def _assumptions(offers: Sequence[Offer], say: Say) -> Iterator[Block]:
    """Each assumption once, with how many of the offers rest on it."""
    held = [
        assumption
        for offer in offers
        for assumption in dict.fromkeys((*_of_prediction(offer), *_of_ownership(offer.ownership)))
    ]
    if held:
        yield Sentences(
            say("catalogue.assumptions"),
            tuple(
                say(
                    "catalogue.shared_by",
                    assumption=assumption,
                    count=str(held.count(assumption)),
                    all=str(len(offers)),
                )
                for assumption in dict.fromkeys(held)
            ),
        )


def _of_prediction(offer: Offer) -> Iterable[str]:
    return offer.prediction.assumptions if isinstance(offer.prediction, Prediction) else ()


def _of_ownership(ownership: Ownership | Unknown) -> Iterable[str]:
    return ownership.assumptions if isinstance(ownership, Ownership) else ()


def _plan_blocks(plan: Plan, source: Paragraph, say: Say) -> Iterator[Block]:
    scenario = plan.scenario
    yield Heading(say("plan.heading", title=scenario.title))
    yield source
    yield Paragraph(
        say(
            "plan.demand",
            cameras=str(scenario.demand.cameras),
            period=shown(scenario.demand.period_s, "s"),
            arrivals=say(f"plan.{scenario.demand.arrivals}"),
            hours=significant(scenario.demand.running_hours_per_year),
            sites=str(scenario.demand.sites),
            p99=shown(scenario.promise.p99_latency_s, "s"),
            spares=str(scenario.promise.spare_devices),
            model=scenario.model,
            batch=str(scenario.batch),
            precision=scenario.precision,
            executor=scenario.executor,
            made_by=plan.made_by.rstrip("."),
        )
    )
    yield Sentences(say("advice.heading"), advice_of(plan, say))
    yield Sheet(purchase.fleets_table(plan, say))
    chosen = plan.chosen
    if chosen is None:
        yield Paragraph(say("head.found_no_fleet", title=scenario.title), tone="warning")
    elif isinstance(chosen.ownership, Ownership):
        yield Sheet(purchase.lines_table(chosen, chosen.ownership, say))
        if chosen.ownership.by_year:
            yield Sheet(purchase.cash_table(chosen.ownership, say))
        if chosen.against:
            yield Sheet(purchase.against_table(chosen, chosen.ownership.currency, say))
        if chosen.ownership.assumptions:
            yield Sentences(say("catalogue.assumptions"), chosen.ownership.assumptions)
    if plan.defaults:
        yield Sheet(purchase.defaults_table(plan, say))
