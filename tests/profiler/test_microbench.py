import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from costmodel.operators import Operator, operators_of
from domain.architecture import Architecture
from domain.complaint import Complaint
from domain.device import BYTES_OF
from domain.measurement import Rates
from domain.microbenchmark import OperatorPoint, OperatorTiming
from domain.routing import RoutingDistribution
from domain.store import read_records
from domain.workload import Workload
from profiler.kernels import CALLS, SETS, Pool, calls_of, timed
from profiler.messages import Preparation
from profiler.microbench import (
    JOURNAL,
    LEAST_PASSES,
    LEAST_SHARE_S,
    RUNS,
    START_S,
    Benchmark,
    OperatorTask,
    benchmarked,
    fitting,
    order_of,
    share_of,
    summary,
    untimed,
)
from profiler.operators import PRODUCTS, grid, least_s, work_of
from profiler.session import Stop
from profiler.work import WorkCounter
from tests.profiler.conftest import ROOT
from tests.profiler.networks import ENVIRONMENT, RATES
from tests.profiler.test_commands import profiler

FAKE = (sys.executable, "-m", "tests.profiler.fake_timer")
precisions = st.sampled_from(["fp32", "bf16", "fp16"])


def operator(name: str = "gemm", **fields: object) -> OperatorPoint:
    usual = {"id": name, "operator": name, "precision": "fp32", "rows": 12, "width": 8}
    return OperatorPoint.model_validate({**usual, **fields})


def priced(batch: int, width: int, precision: str, kept: int = 17) -> dict[str, Operator]:
    """What the cost model counts in recursion 1 of a network with an MLP as wide as itself."""
    net = Architecture(
        name="toy", image_size=16, patch_size=4, channels=1, classes=10, width=width, heads=2,
        mlp_width=width, layers_before=1, shared_layers=1, recursions=3, layers_after=1,
    )  # fmt: skip
    workload = Workload.model_validate(
        {
            "architecture": net,
            "batch": batch,
            "precision": precision,
            "routing": RoutingDistribution(tokens=17, counts=((kept,) * net.recursions,)),
        }
    )
    return {each.name: each for each in operators_of(workload) if each.stage == "recursion-1"}


@given(
    batch=st.integers(1, 64), width=st.sampled_from([8, 32, 96, 768]), precision=precisions
)  # fmt: skip
def test_work_is_what_the_cost_model_counts(batch, width, precision):
    costs, rows = priced(batch, width, precision), 17 * batch
    same = {"precision": precision, "width": width}
    for name, columns in {"qkv": 3, "projection": 1, "mlp-in": 1, "mlp-out": 1}.items():
        cost = costs[name]
        work = work_of(operator(rows=rows, out_width=columns * width, **same))
        assert work.flop == cost.flop / cost.calls
        assert work.bytes_moved == (cost.weight_bytes + cost.moved_bytes) / cost.calls
    cost, work = costs["attention"], work_of(
        operator("attention", rows=17, images=batch, heads=2, **same)
    )  # fmt: skip
    assert (work.flop, work.bytes_moved) == pytest.approx((cost.flop, cost.moved_bytes))
    together = [costs[name] for name in ("norm", "activation", "residual")]
    work = work_of(operator("elementwise", rows=rows, **same))
    assert work.bytes_moved == sum(cost.moved_bytes / cost.calls for cost in together)
    # The operator alone puts rows back into a copy of all, the network into the state itself.
    moves = priced(batch, width, precision, kept=9)
    for name, copied in {"gather": 0, "scatter": 2 * rows * width * BYTES_OF[precision]}.items():
        work = work_of(operator(name, rows=rows, out_rows=9 * batch, **same))
        assert work.bytes_moved == moves[name].moved_bytes + copied


@pytest.mark.parametrize(
    "point",
    [
        operator(rows=5, width=12, out_width=7),
        operator("attention", rows=9, width=12, heads=3, images=4),
    ],
)
def test_flop_are_those_that_the_call_really_asks_for(point):
    call = CALLS[point.operator](point, Pool(point, "cpu", 0))
    with torch.no_grad(), WorkCounter() as counter:
        call()
    counter.mark("all")
    assert counter.stages["all"] == work_of(point).flop > 0


def test_gathering_and_scattering_are_inverse():
    point = operator("gather", rows=10, width=4, out_rows=6)
    pool = Pool(point, "cpu", 0)
    gathered = CALLS["gather"](point, pool)()
    assert isinstance(gathered, torch.Tensor)
    assert gathered.shape == (6, 4)
    scattered = CALLS["scatter"](operator("scatter", rows=10, width=4, out_rows=6), pool)()
    assert isinstance(scattered, torch.Tensor)
    assert scattered.shape == (10, 4)


def test_operands_take_turns_in_sets_that_differ():
    results = [call() for call in calls_of(operator(out_width=8), "cpu", 0)]
    assert len(results) == SETS
    for index, first in enumerate(results):
        assert not any(torch.equal(first, other) for other in results[index + 1 :])


def test_a_precision_without_operators_is_refused():
    with pytest.raises(Complaint, match="fp32, bf16"):
        calls_of(operator(precision="amp_bf16"), "cpu", 0)


def test_the_grid_has_every_class_and_product_and_no_operator_twice():
    points = grid(("fp32", "bf16"))
    assert len({point.id for point in points}) == len(points)
    assert len({point.key() for point in points}) == len(points)
    fp32 = [point for point in points if point.precision == "fp32"]
    assert min(Counter(point.operator for point in fp32).values()) >= 7
    gemm = [point for point in fp32 if point.operator == "gemm"]
    for inner, columns in PRODUCTS.values():
        assert any(point.width * columns == point.out_width * inner for point in gemm)
    assert {min(point.width, point.out_width) for point in gemm} == {96, 192, 384, 768}
    assert {point.rows for point in gemm} >= {8, 2048}
    tokens = [point.rows for point in fp32 if point.operator == "attention"]
    assert (min(tokens), max(tokens)) == (4, 577)


@given(
    minutes=st.floats(0.1, 30.0),
    speed=st.floats(1e9, 1e15),
    names=st.sampled_from([("fp32",), ("fp32", "bf16")]),
)
def test_what_is_chosen_fits_the_time_or_is_refused(minutes, speed, names):
    rates = Rates(gemm_flop_per_s=speed, copy_bytes_per_s=speed / 10)
    everything = grid(names)
    try:
        points = fitting(everything, 60 * minutes, rates)
    except Complaint:
        assert minutes < 1
        return
    share_s = share_of(len(points), 60 * minutes)
    assert set(points) <= set(everything)
    assert RUNS * (START_S + len(points) * share_s) <= 60 * minutes * 1.001
    assert share_s >= LEAST_SHARE_S / 2
    assert all(LEAST_PASSES * least_s(point, rates) <= share_s * 1.2 for point in points)


@pytest.mark.parametrize("minutes", [0.6, 1.0])
def test_half_a_grid_has_every_class_and_no_size_of_a_product_is_gone(minutes):
    everything = grid(("fp32", "bf16"))
    points = fitting(everything, 60 * minutes, Rates(gemm_flop_per_s=1e13, copy_bytes_per_s=1e12))
    assert len(points) < len(everything)
    assert {point.operator for point in points} == {point.operator for point in everything}
    rows = {point.rows for point in points if point.operator == "gemm"}
    assert rows == {point.rows for point in everything if point.operator == "gemm"}
    assert list(points) == [point for point in everything if point in points]


def test_an_hour_is_enough_for_every_operator():
    assert fitting(grid(("fp32",)), 3600.0, RATES) == grid(("fp32",))


def test_runs_are_shuffled_from_the_seed():
    points = grid(("fp32",))
    assert order_of(points, 1, 5) == order_of(points, 1, 5)
    assert len({tuple(order_of(points, run, 5)) for run in (1, 2, 3)}) == 3
    assert set(order_of(points, 1, 5)) == set(points)


def bench(*points: OperatorPoint, runs: int = RUNS) -> Benchmark:
    return Benchmark(
        session="s", points=points, runs=runs, share_s=0.2, seed=7,
        preparation=Preparation(kind="cpu", threads=1), environment=ENVIRONMENT, rates=RATES,
    )  # fmt: skip


def test_every_operator_of_every_run_is_in_the_journal_once(tmp_path: Path) -> None:
    points = (operator(id="a"), operator(id="b", rows=3))
    given_back = benchmarked(
        bench(*points), tmp_path / JOURNAL, stop=Stop(), report=lambda *_: None, command=FAKE
    )
    stored = read_records(tmp_path / JOURNAL, OperatorTiming)
    assert stored == given_back
    assert Counter((each.point.id, each.run) for each in stored) == Counter(
        {(id, run): 1 for id in "ab" for run in (1, 2, 3)}
    )
    assert {each.seed for each in stored} == {7}


def test_an_operator_that_kills_its_worker_is_a_record_and_the_rest_goes_on(tmp_path: Path) -> None:
    points = (operator(id="a"), operator(id="bad", width=666), operator(id="b", rows=3))
    records = benchmarked(
        bench(*points), tmp_path / JOURNAL, stop=Stop(), report=lambda *_: None, command=FAKE
    )
    assert {each.point.id: each.status for each in records} == {
        "a": "ok",
        "b": "ok",
        "bad": "failed",
    }
    assert all("SIGKILL" in each.reason for each in records if each.point.id == "bad")
    assert len(records) == 9


def test_who_stops_keeps_what_is_there(tmp_path: Path) -> None:
    stop = Stop()

    def after_two(record: OperatorTiming, number: int, total: int) -> None:
        stop.is_asked = number == 2

    points = tuple(operator(id=f"p{rows}", rows=rows) for rows in range(1, 6))
    records = benchmarked(
        bench(*points), tmp_path / JOURNAL, stop=stop, report=after_two, command=FAKE
    )
    assert len(records) == 2
    assert read_records(tmp_path / JOURNAL, OperatorTiming) == records
    assert stop.worker is None


@pytest.mark.parametrize("name", CALLS)
def test_a_timing_has_its_work_and_a_fixed_kernel_beside_each_sample(name):
    task = OperatorTask(
        point=operator(name, rows=64, width=32, out_rows=16), run=2, session="s", seed=1,
        share_s=0.1, environment=ENVIRONMENT, rates=RATES,
    )  # fmt: skip
    record = timed(task, "cpu")
    assert len(record.samples_s) == len(record.cpu_samples_s) == len(record.calibration_s) > 0
    assert (record.run, record.point, record.environment) == (2, task.point, ENVIRONMENT)
    assert record.bytes_moved == work_of(task.point).bytes_moved


def test_a_row_shows_rates_and_their_share_of_the_machine():
    point = operator(rows=100, width=100, out_width=100)
    task = next(bench(point, runs=1).tasks())
    blank = dict(untimed(task, "failed", "blank"))
    fields = {"status": "ok", "reason": "", "samples_s": (4e-5,)}
    row = summary([OperatorTiming(**{**blank, **fields})])
    assert row["gflop_per_s"] == pytest.approx(50.0)  # 2e6 FLOP in 40 µs
    assert row["share"] == pytest.approx(0.5)  # of 1e11 FLOP/s
    assert row["gb_per_s"] == pytest.approx(3.0)  # 120 kB
    assert summary([OperatorTiming(**blank)])["share"] is None


def test_the_share_of_a_half_precision_is_of_its_own_rate_or_nothing():
    rates = Rates(gemm_flop_per_s=1e11, copy_bytes_per_s=2e10, gemm_bf16_flop_per_s=4e11)
    point = operator(rows=100, width=100, out_width=100, precision="bf16")
    shares = []
    for known in (rates, RATES):
        task = OperatorTask(**{**dict(next(bench(point).tasks())), "rates": known})
        fields = {"status": "ok", "reason": "", "samples_s": (1e-5,)}
        shares.append(summary([OperatorTiming(**{**dict(untimed(task, "failed", "x")), **fields})]))
    assert shares[0]["share"] == pytest.approx(0.5)  # 2e11 of 4e11 FLOP/s
    assert shares[1]["share"] is None


@pytest.mark.slow
def test_the_command_stores_what_it_shows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = profiler(
        "operators", "--device", "cpu", "--threads", "1", "--minutes", "0.32", "--out", str(out),
        "--format", "csv", "--seed", "9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = read_records(out / JOURNAL, OperatorTiming)
    assert {each.run for each in stored} == {1, 2, 3}
    assert {each.seed for each in stored} == {9}
    assert len(done.stdout.splitlines()) == 1 + len({each.point.id for each in stored})
    again = profiler("operators", "--device", "cpu", "--out", str(out))
    assert (again.returncode, "name another --out" in again.stderr) == (2, True)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_keeps_the_journal(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "profiler", "operators", "--device", "cpu", "--threads", "1",
         "--minutes", "3", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    while "50/" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    stored = read_records(tmp_path / JOURNAL, OperatorTiming)
    assert f"{len(stored)} records in" in said
    assert 50 <= len(stored) < 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--precision", "int8"), "fp32, bf16"), (("--format", "xml"), "unknown format")],
)
def test_a_mistake_is_one_line(arguments, said):
    done = profiler("operators", "--device", "cpu", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
