import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from domain.measurement import Measurement
from domain.statistics import LEAST_SAMPLES_OF, stage_medians, upper_percentile
from domain.store import Journal
from domain.tables import rendered
from profiler.summary import by_depth, by_point, summary, warnings_of
from tests.profiler.sessions import noisy, record, session, staged
from tests.profiler.test_commands import profiler

seconds = st.lists(st.floats(min_value=1e-5, max_value=10.0), min_size=1, max_size=30)


@pytest.mark.parametrize("share", sorted(LEAST_SAMPLES_OF))
@pytest.mark.parametrize("more", [0, 1, 57])
def test_the_upper_percentile_is_the_first_order_statistic_sure_enough(share, more):
    count = LEAST_SAMPLES_OF[share] + more
    rank = upper_percentile([float(place) for place in range(1, count + 1)], share)
    assert rank is not None
    # The k-th lies above the quantile where fewer than k samples lie below it.
    assert binom.cdf(rank - 1, count, share) >= 0.99 - 1e-9
    assert binom.cdf(rank - 2, count, share) < 0.99
    assert upper_percentile([1.0] * (LEAST_SAMPLES_OF[share] - 1), share) is None


@pytest.mark.parametrize("share", sorted(LEAST_SAMPLES_OF))
def test_the_least_count_is_the_least_that_leaves_one_sample_beyond_the_bound(share):
    least = LEAST_SAMPLES_OF[share]
    assert binom.cdf(least - 2, least, share) >= 0.99
    assert binom.cdf(least - 3, least - 1, share) < 0.99


@given(st.lists(seconds, min_size=1, max_size=4))
def test_throughput_is_all_images_over_all_seconds(runs):
    records = [record(run=run, samples_s=tuple(each)) for run, each in enumerate(runs, 1)]
    everything = [each for run in runs for each in run]
    expected = 2 * len(everything) / sum(everything)
    assert summary(records)["images_per_s"] == pytest.approx(expected)


def test_throughput_feels_the_tail_that_the_median_hides():
    row = summary([record(samples_s=(0.01,) * 9 + (0.91,))])
    assert row["latency_ms"] == pytest.approx(10.0)
    assert row["images_per_s"] == pytest.approx(20.0)


def test_a_percentile_without_enough_samples_says_how_many_it_needs():
    few = [record(run=run, samples_s=(0.01,) * 35) for run in (1, 2)]
    row = summary(few)
    assert row["p90_ms"] == pytest.approx(10.0)
    assert row["p90_ms_unknown"] is None
    assert (row["p99_ms"], row["p99_ms_unknown"]) == (None, "needs 662, have 70")
    text = rendered(by_point(few, "table"), "table")
    assert "n/a (needs 130, have 70)" in text


def test_means_of_several_passes_have_no_tail():
    row = summary([record(samples_s=(2e-4,) * 200, passes_per_sample=6)])
    assert row["p90_ms"] is None
    assert row["p90_ms_unknown"] == "samples are means of 6 passes, whose tail nobody saw"
    # A record that did not keep the number had as many as fill a millisecond.
    assert "means of 5 passes" in str(summary([record(samples_s=(2e-4,) * 200)])["p90_ms_unknown"])


def test_switches_of_all_passes_are_over_the_seconds_of_all():
    row = summary([record(samples_s=(2e-4,) * 10, passes_per_sample=5, involuntary_switches=10)])
    assert row["switches_per_s"] == pytest.approx(10 / (10 * 5 * 2e-4))


def test_the_split_is_judged_by_its_pairs():
    row = summary([staged(1), staged(2)])
    assert row["overhead"] == pytest.approx(0.25)
    assert row["depth_rest"] == pytest.approx(0.1)
    assert row["cpu_share"] == pytest.approx(0.5)


def test_switches_are_counted_by_the_second_of_clean_samples():
    records = [record(run=run, samples_s=(0.5,) * 4, involuntary_switches=3) for run in (1, 2)]
    assert summary(records)["switches_per_s"] == pytest.approx(1.5)


def test_a_point_without_a_usable_run_has_a_row_without_numbers():
    row = summary([record(status="oom", reason="no room", samples_s=())])
    assert (row["runs"], row["status"], row["latency_ms"]) == (0, "oom", None)
    json.dumps(row, allow_nan=False)
    assert "oom" in rendered(by_point([record(status="oom", reason="x", samples_s=())], "md"), "md")


def test_gates_warn_and_leave_the_value():
    restless = [record(run=run, samples_s=(0.01, 0.02) * 5) for run in (1, 2)]
    calm = session(noisy(0, 1e-4, points="b", runs=3))
    rows = by_point([*restless, *calm], "json")
    said = warnings_of(rows)
    assert len(said) == 1
    assert "1 of 2 points" in said[0]
    assert rows[0]["iqr"] == pytest.approx(2 / 3)
    apart = by_point(session({"a": [0.0, 0.1, 0.2]}), "json")
    assert "runs differ by more than 3%" in warnings_of(apart)[0]


def test_the_table_fits_a_terminal():
    records = session(noisy(0, 0.1, points="a"), precision_met=False)
    assert max(map(len, rendered(by_point(records, "table"), "table").splitlines())) <= 120
    assert set(by_point(records, "csv")[0]) == set(summary(records))


@given(st.dictionaries(st.sampled_from("abcd"), seconds, min_size=1), seconds)
def test_stages_scaled_to_the_clean_pass_add_up_to_it(stages, clean):
    assert sum(stage_medians(stages, clean).values()) == pytest.approx(np.median(clean))


def test_by_depth_puts_routed_and_executed_work_beside_the_time():
    rows = {row["stage"]: row for row in by_depth([staged(1), staged(2)])}
    deep = rows["recursion-1"]
    assert deep["tokens"] == 13.0
    assert (deep["routed_mflop"], deep["executed_mflop"]) == (4.0, 8.0)
    assert deep["executed_over_routed"] == 2.0
    assert deep["ms"] == pytest.approx(8 * 6 / 9)
    assert deep["executed_gflop_per_s"] == pytest.approx(8e6 / (8e-3 * 6 / 9) / 1e9)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1.0)


def test_show_prints_points_and_depths(tmp_path):
    with Journal(tmp_path / "journal.jsonl", Measurement) as journal:
        journal.append(staged())
    done = profiler("show", str(tmp_path), "--format", "json")
    assert json.loads(done.stdout)[0]["overhead"] == pytest.approx(0.25)
    done = profiler("show", str(tmp_path), "--by", "depth", "--format", "csv")
    assert done.stdout.splitlines()[0].startswith("point,stage,tokens,routed_mflop,executed_mflop")
    assert profiler("show", str(tmp_path), "--by", "layer").returncode == 2
