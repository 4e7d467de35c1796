"""A plan in words, in the reader's language: what to buy, what it rests on, what to do first."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal

from domain.defaults import USD_A_MODULE
from domain.record import Unknown
from domain.scenario import Assumption, FleetOption, Ownership, Plan
from domain.units import shown, shown_chance, shown_money, significant

# Defaults that a reader should hear of, as far as a plan rests on them; `hosts` of each class.
WORTH_SAYING = (
    "price_usd", "finance.staff_per_year", "site.energy_price_per_kwh", "demand.peak_factor",
    "demand.hours_per_day", "promise.device_availability", "finance.tax_rate",
)  # fmt: skip
# Defaults of money and shares that say nothing where they are zero.
SILENT_AT_ZERO = frozenset({"price_usd", "staff_per_year", "tax_rate"})
PERCENT = frozenset({"device_availability", "tax_rate"})
# Currencies that readers have a word for; others go by their code.
CURRENCIES = frozenset({"JPY", "USD", "EUR"})
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
    if chosen.host_places > 1:
        yield say(
            "advice.hosts",
            hosts=str(chosen.hosts),
            per_host=str(chosen.devices_per_host),
            failures=str(scenario.promise.spare_devices),
            availability=f"{significant(scenario.promise.availability * 100, 5)}%",
        )
    yield say(
        "advice.cost",
        total=_money(cost.total, currency, say),
        low=_money(cost.low, currency, say),
        high=_money(cost.high, currency, say),
        years=str(cost.horizon_years),
        yearly=_money(cost.equivalent_per_year or Decimal(0), currency, say),
    )
    if not isinstance(chosen.promise_probability, Unknown):
        seen = chosen.seen_p99_s
        yield say(
            "advice.sure_offline" if isinstance(seen, Unknown) else "advice.sure",
            chance=_chance(chosen.promise_probability, say),
            p99="" if isinstance(seen, Unknown) else shown(seen, "s"),
            promise=shown(scenario.promise.p99_latency_s, "s"),
            tier=say(f"tier.{chosen.tier}"),
        )
    yield say("advice.full_kept" if chosen.meets_full_depth else "advice.full_broken")
    yield from _assumed(plan, chosen, say)
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


def _money(amount: Decimal, currency: str, say: Say) -> str:
    return f"{shown_money(amount, currency).removesuffix(currency)}{_named(currency, say)}"


def _chance(probability: float, say: Say) -> str:
    shown_as = shown_chance(probability)
    for sign, key in ((">", "advice.above"), ("<", "advice.below")):
        if shown_as.startswith(sign):
            return say(key, chance=shown_as.removeprefix(sign))
    return shown_as


def _named(currency: str, say: Say) -> str:
    return say(f"currency.{currency}") if currency in CURRENCIES else currency


def _assumed(plan: Plan, chosen: FleetOption, say: Say) -> Iterator[str]:
    site = plan.scenario.site
    if plan.assumptions:
        own_price = f"devices.{chosen.device_id}.price_usd"
        named = [_priced(each, chosen, say) for each in plan.defaults if each.field == own_price]
        named += [
            _default(each, field.rpartition(".")[2], site.currency, say)
            for field in WORTH_SAYING
            for each in plan.defaults
            if each.field == field
            or (_is_of_its_host(each, chosen) and each.field.endswith(f".{field}"))
            if not (field.rpartition(".")[2] in SILENT_AT_ZERO and each.value == "0")
        ]
        yield say(
            "advice.assumes",
            count=str(len(plan.defaults)),
            all=str(len(plan.assumptions)),
            named=say("advice.separator").join(named) or "–",
        )
    if site.currency != "USD":
        day = re.search(r"\d{4}-\d{2}-\d{2}", site.currency_date)
        yield say(
            "advice.exchange",
            rate=f"{site.currency_per_usd.normalize():f}",
            currency=_named(site.currency, say),
            date=day.group() if day else site.currency_date[:80],
        )


def _is_of_its_host(each: Assumption, chosen: FleetOption) -> bool:
    """Whether it says something of the host that the chosen device sits in."""
    part, _, rest = each.field.partition(".")
    return part == "hosts" and rest.partition(".")[0] == chosen.device_class


def _priced(each: Assumption, chosen: FleetOption, say: Say) -> str:
    key = "assumed.module_price" if each.unit == USD_A_MODULE else "assumed.device_price"
    return say(key, device=chosen.device_name, value=_counted(each.value), date=each.as_of)


def _default(each: Assumption, name: str, currency: str, say: Say) -> str:
    is_host = each.field.startswith("hosts.")
    return say(
        f"assumed.{name}",
        value=f"{float(each.value) * 100:.4g}%" if name in PERCENT else _counted(each.value),
        currency=_named(currency, say),
        host=say(f"host.{each.field.split('.')[1]}") if is_host else "",
    )


def _counted(value: str) -> str:
    """A number with thousands separators, as the assumptions have it."""
    try:
        return f"{Decimal(value):,f}"
    except ArithmeticError:
        return value


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
            more=_money(more, currency, say),
        )
    for each in chosen.against:
        if each.contract == "on-demand":
            if isinstance(each.utilisation, Unknown):
                yield say("advice.rent_never", instance=each.instance)
            else:
                yield say(
                    "advice.rent_below",
                    instance=each.instance,
                    share=f"{significant(float(each.utilisation) * 100)}%",
                    date=each.as_of,
                )
