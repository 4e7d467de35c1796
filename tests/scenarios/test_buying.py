"""What is bought when, in which hosts: growth, stages, shifts, racks, offline work, what is left out."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from costmodel.renting import rates_for
from domain.catalogue import cloud_prices
from domain.demand import WEEKDAYS, Shift, Stage
from domain.record import Unknown
from domain.scenario import Finance, Host, Hosts, Promise, Site
from scenarios.candidates import Forecasts
from scenarios.cloud import rented_by_year
from scenarios.sizing import cheapest_of, plan_of
from tests.scenarios.records import demand, device, planned, prediction, scenario

arrivals = st.sampled_from(["takt", "poisson"])
latencies = st.floats(1e-4, 0.5)


def test_growth_and_stages_buy_when_they_need():
    years = Finance(horizon_years=3)
    grown = planned(
        {"one": prediction("one", 0.01)}, demand=demand(20, growth_per_year=1.0), finance=years
    ).options[0]
    assert "year 1: 1 × 2, year 2: 1 × 4, year 3: 1 × 8" in grown.notes[0]
    hardware = grown.ownership.lines[0]
    assert hardware.by_year == (3000, 2000, 4000, 0)
    stages = (
        Stage(name="poc", from_year=1, cameras=10),
        Stage(name="pilot", from_year=2, cameras=10, sites=2),
        Stage(name="roll-out", from_year=3, cameras=40, sites=10),
    )
    staged = planned({"one": prediction("one", 0.01)}, stages=stages, finance=years).options[0]
    assert (staged.devices, staged.sites) == (50, 10)
    # As many in each year, but more sites: the last stage is what is told.
    wider = (
        Stage(name="pilot", from_year=1, cameras=40),
        Stage(name="roll-out", from_year=2, cameras=40, sites=8),
    )
    rolled = planned({"one": prediction("one", 0.01)}, stages=wider, finance=years).options[0]
    assert (rolled.devices, rolled.sites, rolled.hosts) == (40, 8, 40)
    # The largest site first, many small ones after it: what is bought is for those.
    smaller = (
        Stage(name="largest line", from_year=1, cameras=40),
        Stage(name="roll-out", from_year=2, cameras=10, sites=8),
    )
    spread = planned({"one": prediction("one", 0.01)}, stages=smaller, finance=years).options[0]
    assert (spread.devices, spread.sites, spread.spares, spread.hosts) == (16, 8, 1, 16)
    assert (spread.servers, spread.servers_by_year) == (4, (4, 1, 1))
    assert staged.ownership.lines[0].by_year == (2000, 2000, 46000, 0)
    per_year = 10 / 2.0 * 3600 * 8760
    assert staged.ownership.images == pytest.approx(per_year * (1 + 2 + 40))


def test_what_is_rented_grows_with_the_demand_as_what_is_owned_does():
    years = Finance(horizon_years=3)
    l4 = next(rate for rate in rates_for("l4", cloud_prices(), ()) if rate.price.gpu_count == 1)
    grown = planned(
        {"l4": prediction("l4", 0.01)}, demand=demand(20, growth_per_year=1.0), finance=years
    )
    option = grown.options[0]
    assert option.servers_by_year == (2, 4, 8)
    assert rented_by_year(grown.scenario, l4, option) == [3, 5, 9]
    spot = l4.model_copy(update={"contract": "spot"})
    assert rented_by_year(grown.scenario, spot, option) == [4, 6, 10]
    # Each year as if it were the only one.
    alone = [
        rented_by_year(each.scenario, l4, each.options[0])
        for cameras in (20, 40, 80)
        for each in [
            planned(
                {"l4": prediction("l4", 0.01)},
                demand=demand(cameras),
                finance=Finance(horizon_years=1),
            )
        ]
    ]
    assert alone == [[3], [5], [9]]


def test_a_shift_calendar_counts_its_hours():
    early = Shift(days=("mon", "tue", "wed", "thu", "fri"), start_hour=6.0, end_hour=14.0)
    night = Shift(days=("sat",), start_hour=22.0, end_hour=6.0, load=0.5)
    wanted = demand(shifts=(early, night), closed_days_per_year=15.0)
    assert wanted.running_hours_per_year == pytest.approx(48 * 50)
    assert wanted.full_load_hours_per_year == pytest.approx(44 * 50)
    assert wanted.images_per_year == pytest.approx(20 * 3600 * 44 * 50)


@given(st.integers(1, 50), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 4))
def test_growth_counts_from_the_first_year_on_whatever_stage_has_begun(cameras, growth, later):
    """As the skeleton says."""
    years = Finance(horizon_years=5)
    whole = scenario(demand=demand(cameras, growth_per_year=growth), finance=years)
    first = Stage(name="pilot", from_year=1, cameras=7)
    second = Stage(name="roll-out", from_year=1 + later, cameras=cameras, sites=3)
    staged = scenario(demand=whole.demand, stages=(first, second), finance=years)
    for year in range(1 + later, 6):
        assert staged.demand_in(year).cameras == whole.demand_in(year).cameras
        assert staged.demand_in(year).sites == 3
    assert staged.demand_in(1).cameras == 7


half_hours = st.integers(0, 47).map(lambda each: each / 2)
shifts = st.builds(
    Shift,
    days=st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=7, unique=True).map(tuple),
    start_hour=half_hours,
    end_hour=half_hours.map(lambda each: each + 0.5),
    load=st.sampled_from([0.5, 1.0]),
)


def half_hours_of(shift):
    """Counted from Monday at midnight, one by one."""
    first, last = round(2 * shift.start_hour), round(2 * shift.end_hour)
    last += 48 * (last <= first)
    return [
        (48 * WEEKDAYS.index(day) + each) % 336 for day in shift.days for each in range(first, last)
    ]


@given(st.lists(shifts, min_size=1, max_size=4).map(tuple))
def test_an_hour_counts_in_one_shift_or_the_calendar_is_refused(calendar):
    counted = [each for shift in calendar for each in half_hours_of(shift)]
    if len(set(counted)) < len(counted):
        with pytest.raises(ValidationError, match="wanted each hour in one"):
            demand(shifts=calendar)
    else:
        weeks = demand(shifts=calendar).running_hours_per_year / (365 / 7)
        assert weeks == pytest.approx(len(counted) / 2)


def test_what_overlaps_is_named():
    night = Shift(days=("sun",), start_hour=22.0, end_hour=6.0, load=0.5)
    early = Shift(days=("mon", "tue"), start_hour=5.5, end_hour=14.0)
    with pytest.raises(ValidationError, match=r"got mon from 5\.5 to 6 in two"):
        demand(shifts=(early, night))


def test_hosts_and_racks_bound_the_fleet():
    one = {"one": prediction("one", 0.03)}
    card = {"one": device("one", device_class="pro_gpu")}
    roomy = planned(
        one, devices=card, hosts=Hosts.alike(Host(devices_per_host=8, units=2, power_w=200.0))
    )
    # Any one of the hosts may fail, and the 14 devices that serve are there still.
    assert (roomy.options[0].servers, roomy.options[0].devices, roomy.options[0].hosts) == (
        14,
        17,
        6,
    )
    assert roomy.options[0].devices_per_host == 3
    power = planned(
        one, devices=card, hosts=Hosts.alike(Host(devices_per_host=8, power_limit_w=350.0))
    )
    assert power.options[0].devices_per_host <= 3
    weak = planned(one, devices=card, hosts=Hosts.alike(Host(power_limit_w=50.0))).options[0]
    assert "does not bear" in weak.reason
    for limit, words in ((Rack(rack_units=10), "15 U"), (Rack(rack_power_w=1000.0), "1.5 kW")):
        full = planned(one, devices=card, site=limit).options[0]
        assert words in full.reason
    board = planned(one, site=Rack(rack_units=1)).options[0]
    assert not board.reason


def Rack(**limits):  # noqa: N802 - reads as the noun it makes
    return Site(**{**dict(scenario().site), **limits})


def test_offline_work_needs_throughput_and_waits_for_nobody():
    option = planned(
        {"one": prediction("one", 10.0, batch=8)}, demand=demand(4, 2.0, "offline"), batch=8
    ).options[0]
    # 2 images a second, 0.8 a second and device, up to 70 % of the time.
    assert option.servers == 4
    assert not option.reason
    # Nobody is promised a latency: none is shown, least of all 0.
    assert isinstance(option.p99_latency_s, Unknown)


several = st.lists(
    st.tuples(latencies, st.floats(1, 20_000), st.sampled_from(["edge", "pro_gpu", "dc_gpu"])),
    min_size=1,
    max_size=3,
)


@settings(max_examples=25)
@given(several, arrivals, st.integers(1, 400), st.integers(1, 4), st.floats(0, 20_000))
def test_what_is_left_out_as_too_dear_would_not_have_been_chosen(
    kinds, kind, cameras, places, host_price
):
    devices, forecasts = {}, {}
    for number, (latency_s, price, device_class) in enumerate(kinds):
        name = f"d{number}"
        devices[name] = device(name, price=price, device_class=device_class)
        by_batch = {
            batch: prediction(name, latency_s * (1 + batch / 8), batch=batch, spread=1.5)
            for batch in (1, 8)
        }
        forecasts[name] = Forecasts(routed=by_batch, full=by_batch)
    host = Host(devices_per_host=places, price_usd=Decimal(str(host_price)))
    wanted = scenario(
        demand=demand(cameras, 2.0, kind),
        hosts=Hosts.alike(host),
        promise=Promise(p99_latency_s=0.5, confidence=0.9),
    )
    whole = plan_of(wanted, forecasts, devices, "test")
    few = cheapest_of(wanted, forecasts, devices)
    assert few[0] == whole.options[0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("scenarios.sizing.least_cost", lambda *_: None)
        assert plan_of(wanted, forecasts, devices, "test") == whole
