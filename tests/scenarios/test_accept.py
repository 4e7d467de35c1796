"""The kit and its verdict: what goes along, what passes, what fails, what can not be judged."""

import json
import subprocess

import pytest

from domain.acceptance import AcceptanceTerms, AcceptanceVerdict
from domain.measurement import Conditions, Measurement, MeasuringPlan
from domain.routing import RoutingDistribution
from domain.store import Journal, load, stored_fits
from domain.workload import Workload
from scenarios import size
from scenarios.accept import main
from tests.costmodel.machines import measured, workload
from tests.scenarios.commands import run

CPU = """
name = "cpu-line"
title = "Four cameras on the machine at hand"
model = "morvit-fmnist"
precision = "fp32"
runtime = "eager"
executor = "packed"
batch = 8
survival = [0.8, 0.5, 0.3]
devices = ["cpu"]

[demand]
cameras = 4
period_s = 1.0
arrivals = "takt"

[promise]
p99_latency_s = 0.1

[site]
country = "USA"
currency = "USD"
energy_price_per_kwh = 0.15
"""


@pytest.fixture
def kit(results, tmp_path):
    """A kit for the committed CPU, which has no price and is accepted all the same."""
    file = tmp_path / "cpu.toml"
    file.write_text(CPU)
    assert run(size.main, file).returncode == 0
    folder = tmp_path / "kit"
    done = run(main, results / "plans" / "cpu-line.json", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def delivered(folder, factor, status="ok", points=None, **more):
    """A journal of a machine whose batches take `factor` times the promised middle."""
    terms = load(folder / "terms.json", AcceptanceTerms)
    plan = load(folder / "plan.json", MeasuringPlan)
    toy = measured(workload(), status=status)
    fields = {name: getattr(toy, name) for name in Measurement.model_fields}
    with Journal(folder / "measured" / "journal.jsonl", Measurement) as journal:
        for promise, point in zip(terms.points, plan.points, strict=True):
            if points is not None and promise.point not in points:
                continue
            routing = RoutingDistribution.from_survival(
                point.survival, point.architecture.tokens, point.architecture.prefix_tokens
            )
            work = Workload(
                architecture=point.architecture,
                batch=point.batch,
                precision=point.precision,
                runtime=point.runtime,
                executor=point.executor,
                routing=routing,
            )
            seconds = promise.promised_s.value * factor
            for number in (1, 2, 3):
                journal.append(
                    Measurement(
                        **{
                            **fields,
                            "point": promise.point,
                            "run": number,
                            "workload": work,
                            "samples_s": (seconds,) * 9 if status == "ok" else (),
                            "depths": (),
                            **more,
                        }
                    )
                )


def test_the_kit_is_whole_and_its_plan_is_one_of_the_profiler(kit):
    assert {path.name for path in kit.iterdir()} == {
        "README.txt", "plan.json", "run.sh", "sized.json", "terms.json",
    }  # fmt: skip
    terms = load(kit / "terms.json", AcceptanceTerms)
    plan = load(kit / "plan.json", MeasuringPlan)
    assert len(plan.points) == len(terms.points) == 4
    for promise in terms.points:
        assert promise.promised_s.low < promise.promised_s.value < promise.limit_s
    assert subprocess.run(["/bin/sh", "-n", str(kit / "run.sh")], check=False).returncode == 0
    words = (kit / "README.txt").read_text()
    assert "at most" in words
    assert "run.sh" in words


@pytest.mark.parametrize(
    ("factor", "code", "verdict"), [(1.0, 0, "pass"), (0.5, 0, "pass"), (1.5, 7, "fail")]
)
def test_a_machine_passes_where_it_is_as_quick_as_promised(kit, factor, code, verdict):
    delivered(kit, factor)
    done = run(main, kit, "--judge", "--format", "json")
    assert done.returncode == code, done.stderr
    rows = json.loads(done.stdout)
    assert {row["verdict"] for row in rows} == {verdict}
    stored = load(kit / "verdict.json", AcceptanceVerdict)
    assert stored.verdict == verdict
    assert "a site are needed" in stored.fleet
    assert stored.machine.startswith("Toy CPU")


def test_another_machine_than_the_promised_one_is_named_so(kit):
    environment = measured(workload()).environment
    delivered(kit, 1.0, environment=environment.model_copy(update={"device_id": "other"}))
    assert run(main, kit, "--judge").returncode == 0
    strange = load(kit / "verdict.json", AcceptanceVerdict).machine
    assert "(other; the promise was of" in strange
    promised = load(kit / "terms.json", AcceptanceTerms).device_id
    (kit / "measured" / "journal.jsonl").unlink()
    delivered(kit, 1.0, environment=environment.model_copy(update={"device_id": promised}))
    assert run(main, kit, "--judge").returncode == 0
    assert "the promise was of" not in load(kit / "verdict.json", AcceptanceVerdict).machine


def test_a_much_slower_machine_needs_more_devices_and_says_so(kit):
    delivered(kit, 8.0)
    done = run(main, kit, "--judge")
    assert done.returncode == 7
    assert "slower than promised" in done.stderr
    assert "planned: 1 a site" in done.stderr


def test_what_was_not_measured_or_not_usable_is_not_judged(kit):
    assert run(main, kit, "--judge").returncode == 3
    delivered(kit, 1.0, points=("b1-routed",))
    missing = run(main, kit, "--judge")
    assert missing.returncode == 3
    assert "was not measured" in missing.stderr
    verdict = load(kit / "verdict.json", AcceptanceVerdict)
    assert [each.verdict for each in verdict.points] == ["pass", "invalid", "invalid", "invalid"]


@pytest.mark.parametrize("status", ["throttled", "contended"])
def test_a_disturbed_machine_is_neither_passed_nor_failed(kit, status):
    delivered(kit, 1.0, status=status)
    done = run(main, kit, "--judge")
    assert done.returncode == 3
    assert "DISTURBED" in done.stdout
    assert "a toy reason" in done.stderr


@pytest.mark.parametrize(
    ("factor", "others_s", "steal_s", "code", "verdict"),
    [
        (1.5, 0.5, 0.0, 3, "disturbed"),
        (1.5, 0.0, 0.3, 3, "disturbed"),
        (1.5, 0.1, 0.1, 7, "fail"),
        (1.0, 5.0, 0.0, 0, "pass"),
    ],
)
def test_slower_beside_others_is_disturbed_and_alone_a_failure(
    kit, factor, others_s, steal_s, code, verdict
):
    seen = Conditions(
        wall_s=10.0,
        own_cpu_s=9.0,
        parent_cpu_s=0.0,
        others_cpu_s=others_s,
        steal_s=steal_s,
        suspended_s=0.0,
    )
    delivered(kit, factor, conditions=seen)
    done = run(main, kit, "--judge", "--format", "json")
    assert done.returncode == code, done.stderr
    assert {row["verdict"] for row in json.loads(done.stdout)} == {verdict}


def test_a_kit_is_never_written_over(kit, results):
    before = (kit / "terms.json").read_bytes()
    again = run(main, results / "plans" / "cpu-line.json", "--out", kit)
    assert again.returncode == 2
    assert (kit / "terms.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--device", "a100"), 2, "the plan has"),
        (("--journal", "x"), 2, "--judge only"),
        (("--format", "xml"), 2, "unknown format"),
        (("--checkpoint", "/nowhere.safetensors"), 6, "cannot read"),
        (("--checkpoint", ""), 2, "got no name"),
    ],
)
def test_wrong_arguments_write_no_terms(arguments, code, words, results, tmp_path):
    file = tmp_path / "cpu.toml"
    file.write_text(CPU)
    run(size.main, file)
    folder = tmp_path / "kit"
    done = run(main, results / "plans" / "cpu-line.json", "--out", folder, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert not (folder / "terms.json").exists()


def test_a_checkpoint_goes_along_and_is_measured_on_real_images(results, tmp_path):
    file = tmp_path / "cpu.toml"
    file.write_text(CPU)
    run(size.main, file)
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    weights.with_suffix(".json").write_text("{}")
    folder = tmp_path / "kit"
    plan = results / "plans" / "cpu-line.json"
    assert run(main, plan, "--out", folder, "--checkpoint", weights).returncode == 0
    assert (folder / "mine.safetensors").read_bytes() == b"weights"
    assert '--checkpoint "$kit/mine.safetensors"' in (folder / "run.sh").read_text()
    points = load(folder / "plan.json", MeasuringPlan).points
    assert points[-1].routing_source == "real-images"


def test_the_reference_has_a_machine_to_accept():
    assert any(fit.scope == "machine" for fit in stored_fits())
