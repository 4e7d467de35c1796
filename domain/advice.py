"""A plan in words, in the reader's language: what to buy, what it rests on, what to do first."""

from collections.abc import Callable, Iterator
from decimal import Decimal

from domain.record import Unknown
from domain.scenario import FleetOption, Ownership, Plan
from domain.units import shown, shown_chance, shown_money, significant

# Defaults that a reader should hear of, as far as a plan rests on them; `hosts` of each class.
WORTH_SAYING = (
    "price_usd", "finance.staff_per_year", "site.energy_price_per_kwh", "demand.peak_factor",
    "demand.hours_per_day", "promise.device_availability", "finance.tax_rate",
)  # fmt: skip
# What the acceptance kit measures with.
KIT_RUNTIME = "eager"


# `domain.locale.text` with the language already chosen.
Say = Callable[..., str]


def advice_of(plan: Plan, say: Say) -> tuple[str, ...]:
    """Sentences in their order; where nothing keeps the promise, why, and what might."""
    return tuple(_sentences(plan, say))


def _sentences(plan: Plan, say: Say) -> Iterator[str]:
    chosen, scenario = plan.chosen, plan.scenario
    if chosen is None or not isinstance(chosen.ownership, Ownership):
        yield say("advice.nothing", promise=shown(scenario.promise.p99_latency_s, "s"))
        for option in plan.options[:2]:
            reason = option.reason or _reason(option)
            yield say("advice.why_not", device=option.device_name, reason=reason.rstrip("."))
        return
    cost, currency = chosen.ownership, scenario.site.currency
    yield say(
        "advice.buy",
        count=str(chosen.devices),
        device=chosen.device_name,
        sites=str(chosen.sites),
        spares=str(chosen.spares),
        batch=str(chosen.batch),
    )
    yield say(
        "advice.cost",
        total=shown_money(cost.total, currency),
        low=shown_money(cost.low, currency),
        high=shown_money(cost.high, currency),
        years=str(cost.horizon_years),
        yearly=shown_money(cost.equivalent_per_year or Decimal(0), currency),
    )
    if not isinstance(chosen.promise_probability, Unknown):
        yield say(
            "advice.sure",
            chance=shown_chance(chosen.promise_probability),
            p99=shown(_p99_s(chosen), "s"),
            promise=shown(scenario.promise.p99_latency_s, "s"),
            tier=say(f"tier.{chosen.tier}"),
        )
    yield say("advice.full_kept" if chosen.meets_full_depth else "advice.full_broken")
    yield from _assumed(plan, say)
    yield from _what_would_change(plan, chosen, cost, say)
    if chosen.batch_limit_s:
        yield say(
            "advice.first_step",
            device=chosen.device_name,
            batch=str(chosen.batch),
            limit=shown(chosen.batch_limit_s, "s"),
            runtime=f"{scenario.precision}, {scenario.runtime}",
            command=f"python -m scenarios.accept results/plans/{scenario.name}.json",
        )
        if scenario.runtime != KIT_RUNTIME:
            yield say("advice.kit_runtime", runtime=scenario.runtime)


def _reason(option: FleetOption) -> str:
    return option.ownership.reason if isinstance(option.ownership, Unknown) else ""


def _p99_s(option: FleetOption) -> float:
    seen = option.replayed_p99_s
    return option.p99_latency_s if isinstance(seen, Unknown) else seen.value


def _assumed(plan: Plan, say: Say) -> Iterator[str]:
    site = plan.scenario.site
    if plan.assumptions:
        named = [
            say(
                f"assumed.{field.rpartition('.')[2]}",
                value=each.value,
                currency=site.currency,
                device_class=each.field.split(".")[1],
            )
            for field in WORTH_SAYING
            for each in plan.defaults
            if each.field == field
            or (each.field.startswith("hosts.") and each.field.endswith(f".{field}"))
        ]
        yield say(
            "advice.assumes",
            count=str(len(plan.defaults)),
            all=str(len(plan.assumptions)),
            named="; ".join(named) or "–",
        )
    if site.currency != "USD":
        yield say(
            "advice.exchange",
            rate=f"{site.currency_per_usd.normalize():f}",
            currency=site.currency,
            date=site.currency_date[:80],
        )


def _what_would_change(plan: Plan, chosen: FleetOption, cost: Ownership, say: Say) -> Iterator[str]:
    currency = cost.currency
    rivals = [
        (option, option.ownership)
        for option in plan.options
        if option != chosen and isinstance(option.ownership, Ownership) and not option.reason
    ]
    if rivals:
        rival, its_cost = rivals[0]
        more = its_cost.total - cost.total
        is_close = its_cost.low < cost.high
        yield say(
            "advice.rival_close" if is_close else "advice.rival_far",
            device=rival.device_name,
            count=str(rival.devices),
            more=shown_money(more, currency),
        )
    for each in chosen.against:
        if each.contract == "on-demand":
            if isinstance(each.utilisation, Unknown):
                yield say("advice.rent_never", instance=each.instance)
            else:
                yield say(
                    "advice.rent_below",
                    instance=each.instance,
                    share=f"{significant(float(each.utilisation) * 100)} %",
                    date=each.as_of,
                )
