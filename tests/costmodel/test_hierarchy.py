"""What measured CPUs say of others: between them, never surer than they are or differ, never of themselves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.calibration import fit_machine, fit_machines
from costmodel.hierarchy import (
    ASSUMED_CPU_LOG_SD,
    beliefs_about,
    beliefs_from,
    class_of_machines,
    moderated,
    short_of,
    variance_of_another,
)
from costmodel.latency import prior
from costmodel.points import kernel_share
from costmodel.reach import device_of
from costmodel.transfer import forecast
from domain.device import DeviceSpec
from domain.fit import Fit
from domain.measurement import Environment, Measurement
from tests.costmodel.machines import ENVIRONMENT, journal_of, logs_of, with_values, workload

FIT = fit_machine(journal_of(), "test")
COUNT = len(FIT.coefficients)


@given(
    st.lists(st.lists(st.floats(-0.5, 0.5), min_size=COUNT, max_size=COUNT), min_size=2, max_size=5)
)
def test_a_class_lies_amid_its_machines_and_is_as_unsure_as_they_are_or_differ(apart):
    machines = [with_values(FIT, logs_of(FIT) + each) for each in apart]
    spoken = class_of_machines(machines)
    assert logs_of(spoken) == pytest.approx(logs_of(FIT) + np.mean(apart, axis=0))
    own, told = np.array(FIT.covariance), np.array(spoken.covariance)
    wide = np.array([log_sd for _, log_sd in prior("cpu").values()]) ** 2
    own_share = np.var(apart, axis=0, ddof=1) / wide
    further = (1 + 1 / len(apart)) * (own_share + own_share.mean()) / 2 * wide
    further *= short_of(len(apart)) ** 2
    assert np.diag(told) == pytest.approx(np.maximum(np.diag(own), further))
    # What one is unsure of together stays so; that they differ in two says nothing of the two.
    assert told - np.diag(np.diag(told)) == pytest.approx(own - np.diag(np.diag(own)))
    assert spoken.points == len(machines) * FIT.points


def test_the_class_of_one_machine_is_that_machine():
    spoken = class_of_machines([FIT])
    assert logs_of(spoken) == pytest.approx(logs_of(FIT))
    assert np.array(spoken.covariance) == pytest.approx(np.array(FIT.covariance))
    assert spoken.environment is None
    assert spoken.discrepancy is None
    assert spoken.device_log_sd == ASSUMED_CPU_LOG_SD


def test_two_machines_tell_how_far_cpus_differ_but_not_how_far_their_data_sheets_do():
    alone = class_of_machines([FIT])
    both = class_of_machines([FIT, with_values(FIT, logs_of(FIT) + 0.1)])
    assert (alone.device_log_sd, alone.rates_log_sd) == (ASSUMED_CPU_LOG_SD, 0)
    assert (both.device_log_sd, both.rates_log_sd) == (0, ASSUMED_CPU_LOG_SD)
    measured = device_of(FIT)
    said = DeviceSpec(**{**dict(measured), "is_measured": False})
    narrow, wide = (forecast(workload(), device, [both]).latency_s for device in (measured, said))
    assert wide.value == narrow.value
    assert wide.high / wide.low > 1.5 * narrow.high / narrow.low


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=4))
def test_machines_that_agree_in_one_coefficient_by_chance_are_not_sure_of_it(apart):
    logs = np.zeros((len(apart), COUNT))
    logs[:, 0] = apart
    names = [each.name for each in FIT.coefficients]
    own, others = np.var(apart, ddof=1), moderated(logs, names)[1:]
    wide = np.array([prior("cpu")[name][1] for name in names]) ** 2
    assert others == pytest.approx(own / wide[0] / COUNT / 2 * wide[1:])


def test_a_class_of_machines_that_routed_knows_what_routing_adds():
    routed = sum(run.workload.routing.mean_depth < 1 for run in journal_of(runs=1))
    assert FIT.routed_points == routed > 0
    assert class_of_machines([FIT, FIT]).routed_points == 2 * routed


@given(st.lists(st.lists(st.floats(-3, 3), min_size=COUNT, max_size=COUNT), min_size=2, max_size=4))
def test_beliefs_are_what_one_more_machine_is_and_never_less_sure_than_the_wide_prior(apart):
    machines = [with_values(FIT, logs_of(FIT) + each) for each in apart]
    believed, spoken, wide = beliefs_from(machines), class_of_machines(machines), prior("cpu")
    assert believed is not None
    own, another = np.diag(np.array(FIT.covariance)), variance_of_another(machines)
    for each, mine, further in zip(spoken.coefficients, own, another, strict=True):
        median, log_sd = believed[each.name]
        assert median == pytest.approx(each.value)
        assert log_sd == pytest.approx(min(math.sqrt(max(mine, further)), wide[each.name][1]))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_interval_by_few_machines_holds_one_more_of_them_as_often_as_it_says(count):
    random = np.random.default_rng(count)
    drawn = random.standard_normal((40_000, count + 1))
    # A coefficient's own spread and that of all count alike: here both are told by `count` draws.
    both = (
        drawn[:, :count].var(axis=1, ddof=1) + random.chisquare(count - 1, 40_000) / (count - 1)
    ) / 2
    half = 1.645 * short_of(count) * np.sqrt((1 + 1 / count) * both)
    held = np.mean(np.abs(drawn[:, count] - drawn[:, :count].mean(axis=1)) <= half)
    assert held == pytest.approx(0.9, abs=0.01)


def machine_named(device_id: str, threads: int = 2) -> Fit:
    """The same fit, of another machine, with so many threads; twice as many, half as long a call."""
    slower = np.array([each.name == "call_s" for each in FIT.coefficients]) * np.log(2 / threads)
    environment = Environment(**{**dict(ENVIRONMENT), "threads": threads})
    return Fit(
        **{
            **dict(with_values(FIT, logs_of(FIT) + slower)),
            "device_id": device_id,
            "environment": environment,
        }
    )


def test_one_machine_does_not_tell_what_is_its_own_and_none_speaks_for_itself():
    runs = journal_of(runs=1)
    own, one, other = (
        machine_named(name) for name in (runs[0].environment.machine_id, "one", "other")
    )
    assert beliefs_about({"point": runs}, [one]) is None
    assert beliefs_about({"point": runs}, [own, one]) is None
    assert beliefs_about({"point": runs}, [own, one, other]) == beliefs_from([one, other])


def test_beliefs_are_of_the_threads_at_which_a_fit_starts():
    machines = [machine_named(name, threads) for name in ("one", "other") for threads in (1, 2)]
    two = journal_of(runs=1)
    alone = Environment(**{**dict(ENVIRONMENT), "threads": 1})
    both = [*two, *(Measurement(**{**dict(run), "environment": alone}) for run in two)]
    assert beliefs_about({"point": two}, machines) == beliefs_from([machines[1], machines[3]])
    assert beliefs_about({"point": both}, machines) == beliefs_from([machines[0], machines[2]])


def test_cpus_say_nothing_of_a_gpu_nor_eager_networks_of_compiled_ones_nor_fp32_of_bf16():
    (run, *_) = journal_of(runs=1)
    machines = [machine_named("one"), machine_named("other")]
    gpu = Measurement(
        **{**dict(run), "environment": Environment(**{**dict(ENVIRONMENT), "kind": "cuda"})}
    )
    assert beliefs_about({"point": [gpu]}, machines) is None
    compiled = [Fit(**{**dict(each), "runtime": "compiled"}) for each in machines]
    assert beliefs_about({"point": [run]}, compiled) is None
    assert beliefs_about({"point": journal_of(runs=1, precision="bf16")}, machines) is None


def test_what_is_surely_believed_stays_and_what_is_not_follows_the_runs():
    wide = prior("cpu")
    free = FIT.coefficients
    sure = {name: (2 * median, 1e-3) for name, (median, _) in wide.items()}
    bound = fit_machines(journal_of(), "test", sure)[0][0].coefficients
    for each in bound:
        assert each.value == pytest.approx(sure[each.name][0], rel=0.01)
    as_wide = fit_machines(journal_of(), "test", wide)[0][0].coefficients
    assert [each.value for each in as_wide] == [each.value for each in free]


def test_a_fit_says_whom_it_believed_and_how_far_its_samples_went_along_with_the_kernel():
    journal = journal_of()
    told = fit_machines(journal, "test", prior("cpu"))[0][0].provenance
    alone = fit_machines(journal, "test")[0][0].provenance
    assert told == f"{alone}, believed beforehand as other CPUs say"
    assert f"to the power of {kernel_share(journal):.2f}" in alone
