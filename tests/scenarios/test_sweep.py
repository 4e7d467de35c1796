"""Sweeps: the same rows wherever they are drawn, nothing drawn twice, nothing mixed up."""

import builtins
import io
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.scenario import Finance
from scenarios import drawing, partition
from scenarios.partition import SUMMARY, Axes, Cell, costs_of, drawn, front_of, parts_of
from scenarios.sweep import main
from tests.scenarios.commands import run
from tests.scenarios.test_sensitivity import CALM, holding
from tests.scenarios.test_size import SMALL

AXES = Axes(
    prices=(0.5, 1.0),
    draws=1000,
    seed=3,
    load_sd=0.1,
    price_sd=0.1,
    own_price_sd=0.05,
    energy_sd=0.1,
    currency_sd=0.0,
    stray_sd=0.05,
)
CELL = Cell(
    name="toy",
    device_id="toy",
    device_number=2,
    batch=1,
    precision="fp32",
    executor="packed",
    routing=0.0,
    devices=3,
    servers_and_spares=3,
    p99_s=0.1,
    capital=3000.0,
    idle_w=20.0,
    busy_w=100.0,
    own_w=0.0,
    erlang=1.0,
    strain=2.0,
    log_sd=0.2,
    loads=(-1.0, 0.0, 1.0),
    bearable=(0.8, 0.3, -0.2),
    sites=((1.1, 2.0, 0.5, 10.0), (1.1, 4.0, 0.5, 10.0)),
)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace('["orin-nano-super"]', '["orin-nano-super", "l4", "t4"]'))
    return path


def swept(small, folder, *more):
    return run(main, small, "--draws", 500, "--out", folder, "--format", "json", *more)


def rows(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_a_cell_is_the_same_to_the_last_digit_after_any_other():
    first = drawn(CELL, AXES)[0]
    drawn(replace(CELL, device_number=5, capital=1.0), replace(AXES, seed=9))
    assert drawn(CELL, AXES)[0] == first
    assert drawn(CELL, replace(AXES, seed=4))[0] != first


def test_dearer_hardware_and_energy_cost_more_in_every_draw():
    costs, holds = costs_of(CELL, AXES)
    assert costs.shape == (2, 2, 1000)
    assert (costs[1] > costs[0]).all()
    assert (costs[:, 1] > costs[:, 0]).all()
    assert 0 < holds.mean() < 1


def test_a_slower_or_busier_cell_holds_less_often():
    kept = [
        costs_of(replace(CELL, bearable=tuple(each - less for each in CELL.bearable)), AXES)[1]
        for less in (0.0, 0.2)
    ]
    assert (kept[0] | ~kept[1]).all()


def test_rows_and_summaries_say_the_same():
    content, summaries = drawn(CELL, AXES)
    table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
    assert table.num_rows == 2 * 2 * 1000
    said = json.loads(table.schema.metadata[SUMMARY])
    assert len(said["summaries"]) == len(summaries) == 4
    frame = table.to_pandas()
    for each in summaries:
        here = frame[(frame.price == each.price) & (frame.site == each.site)]
        assert here.cost.mean() == pytest.approx(each.mean, rel=1e-5)
        assert each.low <= each.median <= each.high
        assert here.holds.mean() == pytest.approx(each.holds)


def test_parts_hold_every_draw_once_and_the_same_rows_as_one_file(monkeypatch):
    axes = replace(AXES, draws=1000)
    monkeypatch.setattr(partition, "BLOCK", 64)
    whole, holds = costs_of(CELL, axes)
    monkeypatch.setattr(partition, "PART_ROWS", 4 * 64 * 3)
    parts = parts_of(CELL, axes)
    assert [(part.start, part.stop) for part in parts] == [
        (0, 192), (192, 384), (384, 576), (576, 768), (768, 960), (960, 1000),
    ]  # fmt: skip
    for part in parts:
        costs, kept = costs_of(CELL, axes, part.start, part.stop)
        assert (costs == whole[:, :, part.start : part.stop]).all()
        assert (kept == holds[part.start : part.stop]).all()


def test_a_cell_of_many_parts_is_summed_up_from_its_rows(results, small, tmp_path, monkeypatch):
    monkeypatch.setattr(partition, "BLOCK", 64)
    whole = swept(small, tmp_path / "whole")
    monkeypatch.setattr(partition, "PART_ROWS", 64)
    parted = swept(small, tmp_path / "parted")
    assert parted.returncode == 0, parted.stderr
    assert parted.stdout == whole.stdout
    assert len(rows(tmp_path / "parted")) == 8 * len(rows(tmp_path / "whole"))
    damaged = next((tmp_path / "parted").glob("*.001.parquet"))
    content = bytearray(damaged.read_bytes())
    content[200] ^= 0xFF
    damaged.write_bytes(bytes(content))
    assert swept(small, tmp_path / "parted").returncode == 6


def test_no_more_rows_than_fit_are_asked_of_one_block(results, small, tmp_path):
    prices = ",".join(str(1 + n / 100) for n in range(60))
    done = swept(small, tmp_path / "sweep", "--prices", prices, "--energy-prices", "1,2")
    assert done.returncode == 2
    assert "pairs of price" in done.stderr


def test_a_cell_where_nothing_is_off_costs_what_the_fleet_costs():
    sure = holding(spread=1.0, uncertainty=CALM, finance=Finance(price_band=0.0))
    calm = replace(
        AXES,
        load_sd=0.0,
        price_sd=0.0,
        own_price_sd=0.0,
        energy_sd=0.0,
        stray_sd=0.0,
        prices=(1.0,),
    )
    option, unit = sure.option, sure.unit
    cell = replace(
        CELL,
        devices=option.devices,
        servers_and_spares=option.devices,
        capital=option.devices * 1000.0,
        erlang=sure.erlang,
        busy_w=sure.power.peak_w.value,
        log_sd=0.0,
        sites=((unit.per_capital, unit.per_mean_w, unit.per_peak_w, unit.fixed),),
    )
    costs, _ = costs_of(cell, calm)
    assert costs == pytest.approx(float(option.ownership.total), rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1))
def test_the_front_is_what_no_other_beats(points):
    array = np.array(points, dtype=float)
    kept = front_of(array)
    for row, is_kept in zip(array, kept, strict=True):
        beaten = ((array <= row).all(axis=1) & (array < row).any(axis=1)).any()
        assert is_kept == (not beaten)


def test_an_interrupted_sweep_goes_on_and_ends_the_same(results, small, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first = swept(small, whole)
    assert first.returncode == 0, first.stderr
    assert swept(small, broken).stdout == first.stdout
    for path in sorted(broken.glob("*.parquet"))[::2]:
        path.unlink()
    again = swept(small, broken)
    assert again.stdout == first.stdout
    assert rows(broken) == rows(whole)
    nothing = swept(small, broken)
    assert "0 rows of 0 cells" in nothing.stderr


def test_two_processes_give_the_same_rows_as_one(results, small, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    one = swept(small, alone)
    two = swept(small, together, "--workers", 2)
    assert two.returncode == 0, two.stderr
    assert one.stdout == two.stdout
    assert rows(alone) == rows(together)


def test_a_folder_of_another_sweep_is_left_alone(results, small, tmp_path):
    folder = tmp_path / "sweep"
    swept(small, folder)
    before = rows(folder)
    other = swept(small, folder, "--seed", 1)
    assert other.returncode == 2
    assert "another sweep" in other.stderr
    assert rows(folder) == before


def test_a_damaged_cell_is_exit_6_and_named(results, small, tmp_path):
    folder = tmp_path / "sweep"
    swept(small, folder)
    damaged = next(folder.glob("*.parquet"))
    damaged.write_bytes(b"PAR1 no more")
    again = swept(small, folder)
    assert again.returncode == 6
    assert damaged.name in again.stderr
    assert again.stderr.count("\n") == 1


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers on this machine: its address, and the workers' processes."""
    pytest.importorskip("distributed")
    named = tmp_path / "scheduler.json"

    def dask(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    processes = [dask("scheduler", "--port", "0", "--scheduler-file", str(named))]
    try:
        for number in range(2):
            processes.append(
                dask(
                    "worker",
                    "--scheduler-file",
                    str(named),
                    "--nthreads",
                    "1",
                    "--no-nanny",
                    "--local-directory",
                    str(tmp_path / f"worker-{number}"),
                )
            )
        for _ in range(600):
            if named.exists() and named.read_text():
                break
            time.sleep(0.1)
        yield json.loads(named.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


# What dask warns of while workers come and go is dask's affair.
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_draws_the_same_rows_and_a_killed_worker_changes_nothing(
    results, small, tmp_path, cluster, monkeypatch
):
    address, workers = cluster
    monkeypatch.setattr(drawing, "AHEAD", 1)  # fewer at once than there are cells
    alone = swept(small, tmp_path / "alone")
    folder = tmp_path / "together"

    def kill_once_it_draws():
        while not list(folder.glob("*.parquet")):
            time.sleep(0.01)
        workers[0].kill()

    killer = threading.Thread(target=kill_once_it_draws, daemon=True)
    killer.start()
    together = swept(small, folder, "--cluster", address)
    assert together.returncode == alone.returncode == 0, together.stderr
    assert len(rows(folder)) > 2
    assert rows(folder) == rows(tmp_path / "alone")
    assert together.stdout == alone.stdout
    killer.join(10)
    assert workers[0].wait(10) != 0


def test_a_cluster_without_dask_is_one_sentence(results, small, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name == "distributed":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    done = swept(small, tmp_path / "sweep", "--cluster", "tcp://127.0.0.1:1")
    assert done.returncode == 2
    assert "morsizer[scale]" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--routings", "2"), "--routings"),
        (("--routings", "a"), "--routings"),
        (("--routings", "0,0"), "each once"),
        (("--prices", "nan"), "--prices"),
        (("--energy-prices", "-1"), "--energy-prices"),
        (("--precisions", "fp12"), "unknown precision"),
        (("--executors", "magic"), "unknown executor"),
        (("--cluster", "ftp://x"), "tcp://"),
    ],
)
def test_wrong_axes_are_refused_before_anything_is_written(
    arguments, words, small, results, tmp_path
):
    folder = tmp_path / "sweep"
    done = swept(small, folder, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not list(folder.glob("*.parquet"))
