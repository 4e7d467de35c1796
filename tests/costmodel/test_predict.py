"""The command as a person uses it: answers, refusals, exit codes, and no torch."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from domain.routing import RoutingDistribution
from domain.store import write_trace


def predict(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "costmodel.predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
    )


def rows_of(*arguments):
    done = predict(*arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_newcomer_gets_three_batches_with_intervals_and_hears_which_orin_it_is():
    done = predict("--device", "jetson-orin")
    assert done.returncode == 0, done.stderr
    assert "agx-orin-64" in done.stdout
    assert "orin-nano-super" in done.stdout
    rows = rows_of("--device", "jetson-orin")
    assert [row["batch_size"] for row in rows] == [1, 8, 32]
    for row in rows:
        assert row["tier"] == "spec-only"
        for name in (
            "latency_ms",
            "throughput_img_per_s",
            "peak_memory_bytes",
            "energy_j_per_image",
            "cost_per_million_usd",
            "ownership_usd",
        ):
            assert 0 < row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_modelled_energy_and_the_price_of_the_device_say_where_they_come_from():
    said = predict("--device", "l4", "--batch", "1").stdout
    assert "energy and power are modelled" in said
    assert "price of NVIDIA L4: 2,600 USD" in said
    assert "world business mean of 2025Q2" in said
    (row,) = rows_of("--device", "l4", "--batch", "1")
    assert "not measured" in row["assumptions"]
    assert "price of NVIDIA L4" in row["assumptions"]


def test_strict_refuses_what_is_extrapolated():
    far = ("--device", "l4", "--batch", "4000", "--model", "vit_tiny_patch16_224")
    assert predict(*far).returncode == 0
    assert predict(*far, "--strict").returncode == 3


def test_json_csv_and_markdown_tell_the_same():
    wanted = rows_of("--device", "l4", "--batch", "8")[0]
    done = predict("--device", "l4", "--batch", "8", "--format", "csv")
    read = next(csv.DictReader(io.StringIO(done.stdout)))
    assert float(read["latency_ms"]) == pytest.approx(wanted["latency_ms"])
    assert predict("--device", "l4", "--batch", "8", "--format", "md").stdout.startswith("| ")


def test_a_plain_vit_has_one_recursion_that_all_enter():
    row = rows_of("--device", "a100", "--model", "deit3_small_patch16_224", "--batch", "1")[0]
    assert row["model"] == "deit3_small_patch16_224"


def test_less_survival_is_faster():
    full, half, mean = (
        rows_of("--device", "l4", "--batch", "32", "--routing", routing)[0]["latency_ms"]
        for routing in ("full", "1,0.6,0.3", "mean=0.3")
    )
    assert mean < half < full


def test_a_power_cap_takes_time_and_says_so():
    asked = ("--device", "l4", "--batch", "32", "--routing", "full")
    (whole,), (held,) = rows_of(*asked), rows_of(*asked, "--power-cap-w", "45")
    assert held["latency_ms"] > whole["latency_ms"]
    assert "held to 45 W" in held["assumptions"]
    assert "held to" not in whole["assumptions"]


def test_a_recorded_trace_is_read(tmp_path):
    trace = tmp_path / "trace.parquet"
    write_trace(RoutingDistribution(tokens=197, counts=((197, 100, 50), (150, 20, 1))), trace)
    rows = rows_of("--device", "l4", "--batch", "8", "--routing", str(trace))
    assert rows[0]["latency_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--device", "jetson-oron"], 2, "jetson-orin"),
        (["--device", "l4", "--model", "vit_base_patch61_224"], 2, "vit_base_patch16_224"),
        (["--device", "l4", "--precision", "fp17"], 2, "fp16"),
        (["--device", "t4", "--precision", "bf16"], 2, "bf16"),
        (["--device", "l4", "--routing", "1,0.3,0.6"], 2, "never rises"),
        (["--device", "l4", "--routing", "1,0.3"], 2, "3 recursions"),
        (["--device", "l4", "--routing", "1,1.5,0.3"], 2, "between 0 and 1"),
        (["--device", "l4", "--routing", "nan,0.5,0.3"], 2, "between 0 and 1"),
        (["--device", "l4", "--routing", "mean=2"], 2, "between 0 and 1"),
        (["--device", "l4", "--routing", "none.parquet"], 6, "none.parquet"),
        (["--device", "l4", "--batch", "0"], 2, "batch sizes"),
        (["--device", "l4", "--power-cap-w", "nan"], 2, "--power-cap-w"),
        (["--device", "l4", "--power-cap-w", "-1"], 2, "--power-cap-w"),
        (["--device", "l4", "--power-cap-w", "10"], 2, "at rest"),
        (["--device", "cpu", "--power-cap-w", "10"], 2, "power limit is unknown"),
        (["--device", "l4", "--batch", "x"], 2, "batch sizes"),
        (["--device", "l4", "--price-usd", "-5"], 2, "positive amount"),
        (["--device", "l4", "--price-usd", "nan"], 2, "positive amount"),
        (["--device", "l4", "--pue", "0.5"], 2, "--pue"),
        (["--device", "l4", "--duty", "0"], 2, "--duty"),
        (["--device", "l4", "--years", "0"], 2, "horizon_years"),
        (["--device", "l4", "--format", "xml"], 2, "json"),
        (["--from-csv", "nothing.csv"], 6, "nothing.csv"),
        (["--from-csv", "nothing.csv", "--power-cap-w", "100"], 2, "--power-cap-w"),
        (["--device", "l4", "--image-size", "225"], 2, "multiples of 16"),
    ],
)
def test_nonsense_gets_one_clear_sentence(arguments, code, said, tmp_path):
    done = predict(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_refused_question_overwrites_nothing(tmp_path):
    output = tmp_path / "kept.txt"
    output.write_text("old")
    done = predict("--device", "l4", "--batch", "0", "--output", str(output))
    assert done.returncode == 2
    assert output.read_text() == "old"


def test_a_damaged_trace_is_refused(tmp_path):
    trace = tmp_path / "trace.parquet"
    trace.write_bytes(b"PAR1 this is none PAR1")
    done = predict("--device", "l4", "--routing", str(trace))
    assert done.returncode == 6
    assert "Traceback" not in done.stderr


CSV_ROWS = """model,device_id,precision_id,runtime_id,batch_size,img_size,mine
vit_base_patch16_224,rtx4090,amp_fp16,eager,256,224,kept
no_such_model,rtx4090,amp_fp16,eager,256,224,
vit_base_patch16_224,no-such-device,fp16,eager,1,224,
vit_base_patch16_224,t4,bf16,eager,1,224,
vit_base_patch16_224,l4,fp16,eager,0,224,
vit_base_patch16_224,l4,fp16,eager,nan,224,
vit_small_patch16_224,l4,fp16,compiled,1,,=cmd()
"""


def test_a_table_comes_back_row_by_row_with_reasons(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(CSV_ROWS)
    done = predict("--from-csv", str(path))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["model"] for row in rows] == [
        row["model"] for row in csv.DictReader(io.StringIO(CSV_ROWS))
    ]
    assert rows[0]["tier"] == "anchored"
    assert rows[0]["mine"] == "kept"
    low, value, high = (
        float(rows[0][f"predicted_throughput_img_per_s{side}"]) for side in ("_low", "", "_high")
    )
    assert low < value < high
    assert float(rows[0]["predicted_latency_ms"]) == pytest.approx(256 / value * 1e3)
    for row in rows[1:6]:
        assert row["tier"] == "refused"
        assert row["reason"]
        assert not row["predicted_throughput_img_per_s"]
    assert rows[6]["tier"] == "spec-only"
    assert rows[6]["mine"] == "'=cmd()"


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"model,device_id\n", b'model,"device_id\n' * 3]
)
def test_a_table_that_is_none_is_refused(content, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    done = predict("--from-csv", str(path))
    assert done.returncode == 6
    assert "Traceback" not in done.stderr


def test_the_deciding_side_never_loads_torch():
    looked = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, costmodel.predict, costmodel.fit, costmodel.validate, scenarios.size, "
            "reports.__main__; print(sorted({'torch', 'pynvml'} & set(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert looked.stdout.strip() == "[]"


def test_that_look_would_see_torch():
    looked = subprocess.run(
        [sys.executable, "-c", "import sys, morvit.model; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert looked.stdout.strip() == "True"
