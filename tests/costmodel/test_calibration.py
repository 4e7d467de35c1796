"""From a journal to a fit, on a machine whose law is known."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.accuracy import (
    machine_pairs,
    noise_floor,
    occasion_gap,
    occasion_pairs,
    summary_of,
)
from costmodel.calibration import beliefs_at, fit_machine, fit_machines
from costmodel.hierarchy import class_of_machines
from costmodel.points import (
    TooFewPoints,
    kernel_share,
    noise_log_sd,
    stage_s,
    usable_points,
    whole_s,
)
from costmodel.publishedfits import fits_of_published
from costmodel.reach import device_of
from costmodel.regression import Deviation
from costmodel.transfer import forecast
from domain.catalogue import devices, published
from domain.compact import compacted
from domain.measurement import Environment, Measurement, Rates
from domain.prediction import Refusal
from domain.store import Journal
from tests.costmodel.machines import ENVIRONMENT, journal_of, measured, workload


def test_a_fit_of_a_clean_journal_predicts_what_it_has_not_seen():
    fit = fit_machine(journal_of(), "test")
    for unseen in (workload(192, 28, 8), workload(128, 56, 2, survival=(0.9, 0.5, 0.1))):
        answer = forecast(unseen, device_of(fit), [fit])
        assert answer.latency_s.value == pytest.approx(whole_s([measured(unseen)]), rel=0.03)


def test_a_noisy_journal_gives_an_honest_interval():
    journal = journal_of(noise=0.05)
    fit = fit_machine(journal, "test")
    covered = []
    for width in (96, 160, 224):
        for batch in (2, 6, 12):
            truth = whole_s([measured(workload(width, 28, batch))])
            answer = forecast(workload(width, 28, batch), device_of(fit), [fit])
            assert answer.tier == "calibrated"
            covered.append(answer.latency_s.low <= truth <= answer.latency_s.high)
    assert np.mean(covered) >= 0.8


def test_the_noise_is_that_between_runs():
    points = usable_points(journal_of(noise=0.05, runs=8))
    assert noise_log_sd(points) == pytest.approx(0.05, rel=0.4)
    assert noise_log_sd(usable_points(journal_of(runs=1))) == 0.0
    assert noise_floor(usable_points(journal_of(runs=1))) is None


def wandering(share, runs=4, seed=0, most=0.3):
    """A clean journal on a machine whose kernel wanders, and batches with it by a share."""
    random = np.random.default_rng(seed)
    for each in journal_of(runs=runs):
        slower = float(np.exp(random.uniform(-most, most)))
        yield Measurement(
            **{
                **dict(each),
                "samples_s": tuple(sample * slower**share for sample in each.samples_s),
                "calibration_s": (0.003 * slower,) * len(each.samples_s),
            }
        )


@given(st.floats(0.0, 1.0), st.integers(0, 99))
@settings(max_examples=10)
def test_what_a_wandering_machine_adds_is_taken_out_as_far_as_batches_go_along_with_the_kernel(
    share, seed
):
    journal = list(wandering(share, seed=seed))
    assert kernel_share(journal) == pytest.approx(share, abs=0.02)
    assert noise_log_sd(usable_points(journal)) < 0.01


def test_the_kernel_is_believed_whole_where_nothing_tells_how_far_batches_go_along():
    assert kernel_share([]) == kernel_share(journal_of()) == 1.0
    assert kernel_share(wandering(0.5, runs=1)) == 1.0
    assert kernel_share(wandering(0.5, most=0.005)) == pytest.approx(1.0, abs=0.1)
    assert kernel_share(wandering(1.5)) == 1.0


def test_few_points_never_narrow_what_a_fit_promises():
    few = [each for each in journal_of() if each.workload.architecture.width <= 128]
    fit = fit_machine([each for each in few if each.workload.executor == "packed"], "test")
    assert fit.points == 6
    assert fit.scale == 1.0
    assert fit_machine(journal_of(), "test").scale < 1.0


def test_stages_add_up_to_the_whole():
    runs = [measured(workload())]
    stages = [depth.stage for depth in runs[0].depths]
    assert sum(stage_s(runs, stage) for stage in stages) == pytest.approx(whole_s(runs))


def test_failed_points_are_left_out_and_other_environments_are_never_merged():
    fewer = Environment(**{**dict(ENVIRONMENT), "threads": 1})
    older = Environment(**{**dict(ENVIRONMENT), "torch": "2.13"})
    points = usable_points(
        [
            measured(workload(64), environment=older),
            measured(workload(64), environment=fewer),
            measured(workload(64), run=2),
            measured(workload(128), status="oom"),
        ]
    )
    # Other threads of the same machine are other points, other software is another machine.
    assert [[run.run for run in runs] for runs in points.values()] == [[1], [2]]
    assert [name[-2:] for name in points] == ["1t", "2t"]


def test_two_machines_of_one_name_but_other_instructions_have_ids_of_their_own():
    wide, narrow = (
        Environment(**{**dict(ENVIRONMENT), "flags": (("cpu_capability", each),)})
        for each in ("AVX512", "AVX2")
    )
    assert wide.machine_id == "cpu-toy-2c-avx512"
    assert narrow.machine_id == "cpu-toy-2c-avx2"
    assert ENVIRONMENT.machine_id == "cpu-toy-2c"
    gpu = Environment(**{**dict(wide), "device_id": "a10", "kind": "cuda"})
    assert gpu.machine_id == "a10"
    fits = [
        fit_machine([measured(run.workload, environment=each) for run in journal_of()], "test")
        for each in (wide, narrow)
    ]
    asked = workload()
    for fit in fits:
        assert forecast(asked, device_of(fit), fits).fit_name == fit.name
    # What only the other machine was measured at is not taken from it.
    assert isinstance(forecast(workload(precision="bf16"), device_of(fits[0]), fits), Refusal)


def test_threads_and_precisions_of_one_machine_are_fitted_together_and_apart():
    fewer = Environment(**{**dict(ENVIRONMENT), "threads": 1})
    slower = [measured(run.workload, environment=fewer) for run in journal_of(runs=1)]
    fits, _ = fit_machines([*slower, *journal_of(runs=1)], "test")
    assert [fit.environment.threads for fit in fits] == [2, 1]
    for fit in fits:
        assert forecast(workload(), device_of(fit), fits).fit_name == fit.name


def test_too_little_is_refused():
    with pytest.raises(TooFewPoints, match="profiler run"):
        usable_points([measured(workload(), status="failed")])
    with pytest.raises(TooFewPoints, match="four"):
        fit_machine([measured(workload())], "test")


def test_held_out_pairs_know_nothing_of_their_point():
    points = usable_points(journal_of())
    honest = {(p.point, p.quantity): p for p in machine_pairs(points) if p.quantity == "latency"}
    name = next(iter(points))
    # One point made ten times slower: its own prediction must not follow it.
    wild = {**points, name: [_slower(run) for run in points[name]]}
    shaken = {(p.point, p.quantity): p for p in machine_pairs(wild) if p.quantity == "latency"}
    key = (name, "latency")
    assert shaken[key].measured == pytest.approx(10 * honest[key].measured)
    # Only where the search starts has seen the point: it ends within its tolerance.
    assert shaken[key].predicted.value == pytest.approx(honest[key].predicted.value, rel=1e-3)


def _slower(run):
    return type(run)(**{**dict(run), "samples_s": tuple(10 * s for s in run.samples_s)})


def test_the_accuracy_table_counts_and_covers():
    points = usable_points(journal_of(noise=0.03))
    rows = summary_of(machine_pairs(points), noise_floor(points))
    whole = next(row for row in rows if row.quantity == "latency")
    assert whole.n == len(points)
    assert 0 <= whole.median_abs_error <= whole.p90_abs_error < 0.3
    assert whole.noise_floor is not None


def test_one_measured_cpu_speaks_for_others_with_an_assumed_spread():
    machine = fit_machine(journal_of(), "test")
    spoken = class_of_machines([machine])
    answer = forecast(workload(), devices()["epyc-9654"], [machine, spoken])
    assert answer.tier == "spec-only"
    own = forecast(workload(), device_of(machine), [machine, spoken])
    assert own.tier == "calibrated"
    wide, narrow = (each.latency_s.high / each.latency_s.low for each in (answer, own))
    assert wide > narrow


def test_each_precision_has_a_fit_of_its_own_and_predicts_with_its_own_peak():
    fits, left_out = fit_machines([*journal_of(precision="bf16"), *journal_of()], "test")
    assert [fit.precisions for fit in fits] == [("fp32",), ("bf16",)]
    assert len({fit.name for fit in fits}) == 2
    assert left_out == ()
    for precision in ("fp32", "bf16"):
        asked = workload(192, 28, 8, precision=precision)
        for order in (fits, fits[::-1]):
            answer = forecast(asked, device_of(order[0]), order)
            assert answer.tier == "calibrated"
            assert answer.latency_s.value == pytest.approx(whole_s([measured(asked)]), rel=0.03)
            assert not any("not among the fitted" in said for said in answer.assumptions)


def test_a_precision_whose_peak_was_not_measured_is_left_out_and_said():
    without = Rates(gemm_flop_per_s=1e11, copy_bytes_per_s=2e10)
    half = journal_of(precision="bf16", rates=without)
    fits, left_out = fit_machines([*journal_of(rates=without), *half], "test")
    assert [fit.precisions for fit in fits] == [("fp32",)]
    assert "bf16 was not fitted: bf16 points were measured without the bf16 peak" in left_out[0]
    with pytest.raises(TooFewPoints, match="bf16 peak"):
        fit_machines(half, "test")
    refusal = forecast(workload(precision="bf16"), device_of(fits[0]), fits)
    assert "no dense peak for bf16" in refusal.reason


@pytest.mark.parametrize(("cpu_flags", "is_fitted"), [("avx2", False), ("avx2 avx512_bf16", True)])
def test_a_precision_that_the_cpu_emulates_is_not_fitted(cpu_flags, is_fitted):
    def on_this(measurement):
        environment = measurement.environment
        flags = (*environment.flags, ("cpu_flags", cpu_flags))
        there = Environment(**{**dict(environment), "flags": flags})
        return Measurement(**{**dict(measurement), "environment": there})

    journal = [on_this(each) for each in [*journal_of(precision="bf16"), *journal_of()]]
    fits, left_out = fit_machines(journal, "test")
    assert {fit.precisions for fit in fits} == (
        {("fp32",), ("bf16",)} if is_fitted else {("fp32",)}
    )
    assert is_fitted or "emulates it" in left_out[0]


def test_a_fit_of_one_precision_does_not_speak_for_another():
    (only,), _ = fit_machines(journal_of(), "test")
    refusal = forecast(workload(precision="bf16"), device_of(only), [only])
    assert "no fit for runtime eager at bf16" in refusal.reason


def test_a_recursion_measured_alone_is_no_point_of_the_network():
    alone = [measured(workload(width), subject="recursion-2") for width in (64, 128)]
    assert usable_points([*journal_of(), *alone]).keys() == usable_points(journal_of()).keys()
    with pytest.raises(TooFewPoints, match="no measurement"):
        usable_points(alone)


def test_another_occasion_is_predicted_by_fits_that_saw_neither_it_nor_the_point():
    points = usable_points(journal_of(noise=0.02))
    pairs = machine_pairs(points)
    later = {name: [_slower(run) for run in runs] for name, runs in points.items()}
    repeated = occasion_pairs(pairs, later)
    assert {pair.split for pair in repeated} == {"another-occasion"}
    assert len(repeated) == len(points)
    for pair in repeated:
        assert pair.measured == pytest.approx(10 * whole_s(points[pair.point]))
        assert pair.predicted in [each.predicted for each in pairs if each.point == pair.point]
    # Ten times slower is |1 − 10| over the mean of both.
    assert occasion_gap(points, later) == pytest.approx(9 / 5.5)
    assert occasion_gap(points, points) == 0.0
    assert occasion_gap(points, {}) is None


def test_published_rows_give_a_fit_for_each_device_and_class():
    rows = [row for row in published() if row.runtime == "eager"][::10]
    fits = fits_of_published(rows, devices(), "test")
    assert {fit.scope for fit in fits} == {"class", "device"}
    assert len({fit.name for fit in fits}) == len(fits)


def command(name, *arguments, results):
    return subprocess.run(
        [sys.executable, "-m", f"costmodel.{name}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MORSIZER_RESULTS": str(results)},
    )


def test_the_commands_go_from_journal_to_fit_to_accuracy(tmp_path):
    path = tmp_path / "measurements" / "toy" / "journal.jsonl"
    with Journal(path, Measurement) as journal:
        for measurement in journal_of(noise=0.02):
            journal.append(measurement)
    fitted = command("fit", "--format", "json", results=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    assert {row["coefficient"] for row in json.loads(fitted.stdout)} >= {"call_s"}
    validated = command("validate", "--own", "--format", "json", results=tmp_path)
    assert validated.returncode == 0, validated.stderr
    assert {row["split"] for row in json.loads(validated.stdout)} == {"leave-one-point-out"}
    answered = command("predict", "--device", "cpu", "--format", "json", results=tmp_path)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)[0]["tier"] == "calibrated"


def store_journal(path, measurements):
    with Journal(path, Measurement) as journal:
        for measurement in measurements:
            journal.append(measurement)
    return path


def test_a_compact_journal_of_two_precisions_is_fitted_and_judged_on_another_occasion(tmp_path):
    both = [*journal_of(noise=0.02), *journal_of(noise=0.02, precision="bf16")]
    first = store_journal(tmp_path / "a" / "journal.jsonl", both)
    compact = first.with_name("journal.jsonl.xz")
    compact.write_bytes(compacted(first.read_bytes()))
    first.unlink()
    again = store_journal(
        tmp_path / "b.jsonl",
        [measured(each.workload, each.run + 5, noise=0.02) for each in both],
    )
    fitted = command("fit", "--journal", str(first.parent), results=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    names = sorted(path.name for path in (tmp_path / "fits").glob("*.json"))
    assert names == ["machine-cpu-toy-2c-eager-bf16.json", "machine-cpu-toy-2c-eager.json"]
    asked = ("--device", "cpu", "--precision", "bf16", "--format", "json")
    answered = command("predict", *asked, results=tmp_path)
    assert json.loads(answered.stdout)[0]["tier"] == "calibrated", answered.stderr
    judged = command(
        "validate", "--journal", str(compact), "--again", str(again), "--own", "--format", "json",
        results=tmp_path,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stderr
    rows = {(row["split"], row["quantity"]): row for row in json.loads(judged.stdout)}
    for split in ("leave-one-point-out", "another-occasion"):
        for suffix in ("", "-bf16"):
            assert 0 < rows[split + suffix, "latency"]["median_abs_error"] < 0.2
            assert rows[split + suffix, "latency"]["noise_floor"] > 0


def test_another_occasion_must_be_of_the_same_machine_and_plan(tmp_path):
    here = store_journal(tmp_path / "a.jsonl", journal_of(runs=1))
    other = Environment(**{**dict(ENVIRONMENT), "threads": 1})
    for name, strange, said in (
        ("threads", [measured(workload(), environment=other)], "same environment"),
        ("points", [measured(workload(96))], "shares no point"),
    ):
        path = store_journal(tmp_path / f"{name}.jsonl", strange)
        done = command(
            "validate", "--journal", str(here), "--again", str(path), "--own", results=tmp_path
        )
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr


def test_a_journal_damaged_in_the_middle_is_fitted_up_to_there_and_said(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, Measurement) as journal:
        for measurement in journal_of():
            journal.append(measurement)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = command("fit", "--journal", str(path), results=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "damaged and were not read" in done.stderr


@pytest.mark.parametrize("content", ["", "{}\n", '{"crc32":1,"record":{}}\n', "\x00" * 100])
def test_a_journal_without_a_valid_record_is_corrupt(content, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(content)
    for name in ("fit", "validate"):
        done = command(name, "--journal", str(path), results=tmp_path)
        assert done.returncode == 6, done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.json"))


def test_what_may_deviate_in_a_setting_is_believed_less_there():
    beliefs = {"call_s": (1e-5, 0.3), "stage_s": (2e-5, 0.4)}
    deviations = [
        Deviation(coefficient="call_s", covariate="half", log_sd=0.4),
        Deviation(coefficient="call_s", covariate="threads", log_sd=0.5),
    ]
    assert beliefs_at({"half": 0.0, "threads": 0.0}, beliefs, deviations) == beliefs
    half = beliefs_at({"half": 1.0, "threads": 0.0}, beliefs, deviations)
    assert half == {"call_s": (1e-5, pytest.approx(0.5)), "stage_s": (2e-5, 0.4)}
    both = beliefs_at({"half": 1.0, "threads": 2.0}, beliefs, deviations)
    assert both["call_s"][1] == pytest.approx(1.25**0.5)
