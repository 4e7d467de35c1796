from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from domain.architecture import Architecture
from domain.measurement import PlannedPoint
from morvit.attention import Together
from morvit.votes import Orders
from profiler.messages import Task
from profiler.passes import measured
from profiler.protocol import SETTINGS
from profiler.subjects import CannotRun, RecursionAlone, subject_of
from profiler.telemetry import AbsentMeter
from tests.profiler.networks import ENVIRONMENT, RATES, forced, network

ROUTINGS: dict[str, dict[str, object]] = {
    "forced": {},
    "real": {"routing_source": "real-images", "survival": None},
    "uniform": {"routing_source": "none", "survival": None},
}


def changed(point: PlannedPoint, **fields: object) -> PlannedPoint:
    return PlannedPoint(**{**dict(point), **fields})


def alone(point: PlannedPoint, recursion: int) -> RecursionAlone:
    """That recursion (1 is the first) of a point, ready to run."""
    subject = subject_of(changed(point, subject=f"recursion-{recursion}"), "cpu", 3)
    assert isinstance(subject, RecursionAlone)
    return subject


def logits_after(subject: RecursionAlone, index: int) -> torch.Tensor:
    """Logits of a batch if the network goes on from what the recursion alone gives."""
    model = subject.model
    further = partial(
        model.recurred,
        executor=subject.point.executor,
        orders=subject.orders(index),
    )
    state = subject.run(index)
    _, route = further(subject.recursion, subject.batches[index], subject.routes[index])
    for later in range(subject.recursion + 1, model.architecture.recursions):
        state, route = further(later, state, route)
    for layer in model.layers_after:
        state = layer(state, Together())
    assert model.head is not None
    logits: torch.Tensor = model.head(model.norm_after(state[:, 0]))
    return logits


@pytest.mark.parametrize("executor", ["packed", "masked"])
def test_work_is_counted_as_torch_counts_it(executor):
    subject = subject_of(forced(executor=executor, batch=16), "cpu", 0)
    counted = sum(subject.flop(executor).values())
    imposed = torch.tensor(subject.counts)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as reference,
    ):
        subject.model(torch.cat(subject.batches), executor=executor, orders=Orders(imposed=imposed))
    assert counted * len(subject.batches) == reference.get_total_flops()


def test_masking_executes_all_and_packing_what_was_routed():
    subject = subject_of(forced(survival=(1.0, 0.5, 0.2), spread=0.0), "cpu", 0)
    packed, masked = subject.flop("packed"), subject.flop("masked")
    assert packed["prologue"] == masked["prologue"]
    assert packed["recursion-3"] < packed["recursion-2"] < packed["recursion-1"]
    assert masked["recursion-3"] == masked["recursion-2"] == masked["recursion-1"]


def test_forced_counts_are_what_the_network_does():
    subject = subject_of(forced(survival=(0.9, 0.5, 0.2), spread=0.8), "cpu", 7)
    assert subject.routing.survival[1] == pytest.approx(0.5, abs=0.05)
    assert len(set(subject.counts)) > 3


def test_images_in_rotation_are_real_distinct_and_the_same_for_a_seed():
    first, again = (subject_of(forced(batch=8), "cpu", 5) for _ in range(2))
    images = torch.cat(first.batches)
    assert len(images) == 64
    assert len(torch.unique(images.flatten(1), dim=0)) == 64
    assert torch.equal(images, torch.cat(again.batches))
    assert first.weights == again.weights
    assert "resized from 28 to 16 pixels" in first.weights


def test_uniform_depth_sends_every_token_everywhere():
    point = changed(forced(), routing_source="none", survival=None)
    assert subject_of(point, "cpu", 0).routing.mean_depth == 1.0


def test_the_routers_own_choice_is_recorded():
    point = changed(forced(), routing_source="real-images", survival=None)
    subject = subject_of(point, "cpu", 0)
    output = subject.output(2)
    assert subject.counts[16:24] == tuple(map(tuple, output.counts.tolist()))


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("router", ["expert-choice", "token-choice"])
@pytest.mark.parametrize("executor", ["packed", "masked"])
@pytest.mark.parametrize("recursion", [1, 2, 3])
def test_a_recursion_alone_does_what_it_does_in_the_whole_network(
    recursion, executor, router, routing
):
    net = Architecture(**{**dict(network()), "router": router})
    point = changed(forced(executor=executor), architecture=net, **ROUTINGS[routing])
    whole, part = subject_of(point, "cpu", 3), alone(point, recursion)
    assert part.counts == whole.counts
    with torch.inference_mode():
        for index in (0, 5):
            again = part.run(index)
            torch.testing.assert_close(part.run(index), again, rtol=0, atol=0)
            torch.testing.assert_close(logits_after(part, index), whole.run(index), rtol=0, atol=0)


@pytest.mark.parametrize("executor", ["packed", "masked"])
def test_a_recursion_alone_has_the_work_of_its_stage_in_the_whole_network(executor):
    for routing in ROUTINGS.values():
        point = changed(forced(executor=executor, survival=(0.9, 0.5, 0.2), spread=0.8), **routing)
        whole = subject_of(point, "cpu", 3)
        for recursion in (1, 2, 3):
            stage = f"recursion-{recursion}"
            for counted in ("packed", "masked"):
                expected = whole.flop(counted)[stage]
                # What its router scores is what the recursion before moved, which the point's own
                # executor decides.
                tolerance = 1e-9 if counted == executor or recursion == 1 else 0.01
                assert alone(point, recursion).flop(counted) == {
                    stage: pytest.approx(expected, rel=tolerance)
                }


def test_the_one_recursion_of_a_plain_network_can_be_run_alone():
    net = Architecture.plain(
        name="vit", depth=2, width=32, heads=2, image_size=16, patch_size=4, channels=1, classes=10
    )
    point = changed(forced(), architecture=net, **ROUTINGS["uniform"])
    whole, part = subject_of(point, "cpu", 3), alone(point, 1)
    assert part.flop("packed")["recursion-1"] == whole.flop("packed")["recursion-1"]
    with torch.inference_mode():
        torch.testing.assert_close(logits_after(part, 0), whole.run(0), rtol=0, atol=0)


def test_the_heaviest_batch_of_a_recursion_is_the_one_with_most_tokens_there():
    part = alone(forced(survival=(0.9, 0.5, 0.2), spread=0.8), 3)
    entering = [sum(row[2] for row in part.counts[first : first + 8]) for first in range(0, 64, 8)]
    assert entering[part.heaviest] == max(entering) > min(entering)


def test_a_measurement_of_a_recursion_alone_has_that_stage_and_the_whole_workload():
    point = changed(forced(), subject="recursion-2")
    task = Task(
        point=point, run=1, session="s", seed=1, settings=SETTINGS["quick"],
        environment=ENVIRONMENT, rates=RATES,
    )  # fmt: skip
    record = measured(task, "cpu", AbsentMeter(reason="no meter here"))
    whole = subject_of(changed(point, subject="network"), "cpu", 1)
    assert record.samples_s
    assert record.subject == "recursion-2"
    assert record.workload.routing == whole.routing
    assert record.weights.endswith("recursion-2 alone")
    (depth,) = record.depths
    assert depth.stage == "recursion-2"
    assert depth.counts == tuple(row[1] for row in whole.counts)
    assert depth.executed_flop == pytest.approx(whole.flop("packed")["recursion-2"])
    assert len(depth.samples_s) == len(record.instrumented_s)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"runtime": "compiled"}, "runtime compiled"),
        ({"precision": "fp16"}, "fp16"),
        ({"precision": "int8"}, "int8"),
        ({"routing_source": "replayed-trace", "survival": None}, "trace"),
    ],
)
def test_what_cannot_be_run_says_why(fields, said):
    with pytest.raises(CannotRun, match=said):
        subject_of(changed(forced(), **fields), "cpu", 0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "amp_bf16"])
def test_a_measurement_has_every_part(precision):
    task = Task(
        point=changed(forced(executor="masked"), precision=precision), run=1, session="s", seed=1,
        settings=SETTINGS["quick"], environment=ENVIRONMENT, rates=RATES,
    )  # fmt: skip
    record = measured(task, "cpu", AbsentMeter(reason="no meter here"))
    assert record.samples_s
    stages = ["prologue", "recursion-1", "recursion-2", "recursion-3", "epilogue"]
    assert [depth.stage for depth in record.depths] == stages
    assert len(record.samples_s) == len(record.cpu_samples_s) == len(record.calibration_s)
    assert record.relaxed
    assert record.workload.routing.images == 64
    for depth in record.depths:
        assert len(depth.counts) == 64
        assert len(depth.samples_s) == len(record.instrumented_s)
        assert depth.routed_flop <= depth.executed_flop
    whole = max(depth.peak_bytes for depth in record.depths if isinstance(depth.peak_bytes, int))
    assert record.peak_bytes == whole
    for parts, pass_s in zip(
        zip(*(depth.samples_s for depth in record.depths), strict=True),
        record.instrumented_s,
        strict=True,
    ):
        assert sum(parts) <= pass_s
    assert getattr(record.energy_j, "reason", "") == "no meter here"


def test_memory_and_work_are_the_same_in_every_run():
    def deterministic(run: int) -> tuple[object, ...]:
        task = Task(
            point=forced(), run=run, session="s", seed=1, settings=SETTINGS["quick"],
            environment=ENVIRONMENT, rates=RATES,
        )  # fmt: skip
        record = measured(task, "cpu", AbsentMeter(reason="none"))
        return (
            record.workload.key(),
            record.peak_bytes,
            [(depth.executed_flop, depth.peak_bytes) for depth in record.depths],
        )

    assert deterministic(1) == deterministic(2)


def test_another_shape_than_the_shipped_one_is_refused():
    point = changed(forced(), architecture=network(name="other"), weights="shipped")
    with pytest.raises(CannotRun, match="another shape"):
        subject_of(point, "cpu", 0)
