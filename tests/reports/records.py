"""Made-up records with round numbers on a toy device."""

from decimal import Decimal
from typing import TypeVar

from domain.architecture import Architecture
from domain.designs import DesignedDevice, Designs, MissingDevice, Wanted
from domain.fit import Coefficient, Fit, HeldOut, Validation, ValidationRow
from domain.measurement import DepthRecord, Environment, Measurement, Rates
from domain.prediction import OperatorCost, Prediction, Refusal
from domain.record import Estimate, Executor, Tier, Unknown
from domain.routing import DecidedImage, RouterDecisions, RoutingDistribution
from domain.scenario import (
    CostLine,
    Demand,
    FleetOption,
    Offer,
    Offers,
    Ownership,
    Plan,
    Promise,
    Scenario,
    Site,
)
from domain.workload import Workload
from reports.contents import Absent, Found, ReportContents

Value = TypeVar("Value")

TOY = Architecture(
    name="toy-net",
    image_size=32,
    patch_size=4,
    classes=10,
    width=8,
    heads=2,
    mlp_width=16,
    layers_before=1,
    shared_layers=1,
    recursions=3,
    layers_after=1,
)  # 64 patches and CLS
COUNTS = ((65, 40, 20), (65, 44, 12))
ROUTING = RoutingDistribution(tokens=65, counts=COUNTS)
MACHINE = Environment(
    device_id="toy-box",
    device_name="Toy Box 9000",
    kind="cpu",
    threads=2,
    cores=2,
    memory_bytes=8_000_000_000,
    operating_system="ToyOS 1",
    python="3.11.7",
    torch="2.13",
    flags=(("governor", "performance"),),
)
RATES = Rates(gemm_flop_per_s=5e10, copy_bytes_per_s=1e10)
NO_METER = Unknown(reason="no energy counter on this machine")

# Seconds for a batch of two and tokens of each image, by stage.
STAGES_S = {"prologue": 0.002, "recursion-1": 0.01, "recursion-2": 0.008, "recursion-3": 0.004}
MASKED_S = {"prologue": 0.002, "recursion-1": 0.01, "recursion-2": 0.01, "recursion-3": 0.01}
EPILOGUE_S = 0.001
FLOP_A_TOKEN = 1e6


def measurement(
    *, executor: Executor = "packed", batch: int = 2, run: int = 1, slower: float = 1.0
) -> Measurement:
    """One run; each run of a point takes `slower` times what the table above says."""
    stages = MASKED_S if executor == "masked" else STAGES_S
    images = COUNTS * (batch // 2) if batch > 1 else COUNTS[:1]
    columns = list(zip(*images, strict=True))
    counts = {"prologue": (65,) * len(images), "epilogue": (65,) * len(images)}
    counts |= {f"recursion-{r + 1}": column for r, column in enumerate(columns)}
    whole_s = sum(stages.values()) + EPILOGUE_S
    return Measurement(
        point=f"toy-b{batch}-{executor}",
        run=run,
        session="20261101-toy",
        taken_at=f"2026-11-01T10:0{run}:00Z",
        workload=Workload(
            architecture=TOY,
            batch=batch,
            executor=executor,
            routing=RoutingDistribution(tokens=65, counts=images),
        ),
        weights="shipped toy weights",
        routing_source="real-images",
        environment=MACHINE,
        rates=RATES,
        status="ok",
        samples_s=(whole_s * slower * batch / 2,) * 3,
        instrumented_s=(whole_s * slower * batch / 2 * 1.02,) * 3,
        depths=tuple(
            DepthRecord(
                stage=stage,
                counts=counts[stage],
                samples_s=(seconds * slower * batch / 2,) * 3,
                routed_flop=FLOP_A_TOKEN * sum(counts[stage]),
                executed_flop=FLOP_A_TOKEN
                * (65 * len(images) if executor == "masked" else sum(counts[stage])),
                peak_bytes=3_000_000,
                energy_j=NO_METER,
            )
            for stage, seconds in {**stages, "epilogue": EPILOGUE_S}.items()
        ),
        peak_bytes=4_000_000,
        resident_bytes=200_000_000,
        energy_j=NO_METER,
        precision_met=run != 2,
        relaxed=True,
        involuntary_switches=7,
    )


def measurements() -> tuple[Measurement, ...]:
    """Three runs of three executors at two batches, and one that ran out of memory."""
    executors: tuple[Executor, ...] = ("masked", "padded", "packed")
    runs = [
        measurement(executor=executor, batch=batch, run=run, slower=slower)
        for executor in executors
        for batch in (2, 16)
        for run, slower in ((1, 1.0), (2, 1.1), (3, 0.9))
    ]
    failed = Measurement(
        **{
            **dict(runs[0]),
            "point": "toy-b512-masked",
            "status": "oom",
            "reason": "wanted 9 GB, the machine has 8 GB",
            "samples_s": (),
            "depths": (),
        }
    )
    return (*runs, failed)


def decisions() -> RouterDecisions:
    """Twelve gradients; the lower right goes deepest."""
    images = tuple(
        DecidedImage(
            label=name,
            predicted="ship" if i % 5 == 4 else name,
            pixels=tuple(
                tuple((8 * x * (i % 3 + 1) + 4 * y * (i % 4)) % 256 for x in range(32))
                for y in range(32)
            ),
            depths=tuple(tuple(min(3, (x + y + i) // 5) for x in range(8)) for y in range(8)),
        )
        for i, name in enumerate(("cat", "dog", "ship", "truck", "frog", "horse") * 2)
    )
    return RouterDecisions(
        model="toy-net", weights="shipped toy weights", recursions=3, images=images
    )


def routing() -> RoutingDistribution:
    """A hundred images whose counts differ."""
    return RoutingDistribution(
        tokens=65, counts=tuple((65 - i % 5, 45 - i % 20, 20 - i % 15) for i in range(100))
    )


def fit() -> Fit:
    return Fit(
        name="toy-fit",
        device_id="toy-box",
        scope="machine",
        device_class="cpu",
        runtime="eager",
        precisions=("fp32",),
        environment=MACHINE,
        rates=RATES,
        coefficients=(
            Coefficient(name="gemm_efficiency", value=0.5, unit="", log_sd=0.1, is_identified=True),
            Coefficient(name="launch", value=2e-6, unit="s", log_sd=0.5, is_identified=False),
        ),
        covariance=((0.01, 0.0), (0.0, 0.25)),
        residual_log_sd=0.05,
        points=12,
        measurements=("0" * 16,),
        provenance="the toy session",
        made_by="costmodel.fit",
    )


def estimate(value: float, width: float = 0.2) -> Estimate:
    return Estimate(value=value, low=value * (1 - width), high=value * (1 + width))


def validation() -> Validation:
    splits = ("new-batch", "new-routing", "new-model")
    return Validation(
        rows=tuple(
            ValidationRow(
                split=split,
                quantity="latency",
                tier="calibrated",
                n=6,
                median_abs_error=0.04,
                p90_abs_error=0.12,
                signed_error=-0.01,
                coverage_90=0.95,
                half_width=0.2,
                noise_floor=None if split == "new-model" else 0.03,
            )
            for split in splits
        ),
        pairs=tuple(
            HeldOut(
                split=split,
                point=f"toy-{split}-{i}",
                quantity="latency",
                predicted=estimate(0.001 * 2**i * (1.0 + 0.05 * ((i + k) % 3 - 1))),
                measured=0.001 * 2**i,
            )
            for k, split in enumerate(splits)
            for i in range(6)
        ),
    )


def prediction(
    *, device: str = "toy-gpu", latency_s: float = 0.01, tier: Tier = "anchored"
) -> Prediction:
    return Prediction(
        workload=Workload(architecture=TOY, batch=2, routing=ROUTING),
        device_id=device,
        device_name=device.replace("-", " ").title(),
        tier=tier,
        tier_reason=f"made-up figures of {device}",
        latency_s=estimate(latency_s),
        throughput_img_per_s=estimate(latency_s).inverse_of(2.0),
        peak_memory_bytes=estimate(5e8),
        energy_j_per_image=NO_METER if tier == "spec-only" else estimate(0.2),
        power_w=estimate(40.0),
        fits_in_memory=0.99,
        operators=(
            OperatorCost(
                stage="prologue", name="gemm", flop=1e9, bytes_moved=1e6, calls=3.0,
                latency_s=latency_s, bound="compute",
            ),
        ),
        bound="compute",
        fit_name="toy-fit",
        assumptions=("the power limit is the default one",),
    )  # fmt: skip


def ownership(hardware: int = 1000, currency: str = "USD") -> Ownership:
    amounts = {"hardware": hardware, "energy": 500, "maintenance": 150}
    lines = tuple(
        CostLine(
            name=name,
            amount=Decimal(amount),
            low=Decimal(amount) * Decimal("0.7"),
            high=Decimal(amount) * Decimal("1.3"),
            how=f"{name} over the horizon",
        )
        for name, amount in amounts.items()
    )
    total = sum((line.amount for line in lines), Decimal(0))
    low = sum((line.low for line in lines), Decimal(0))
    high = sum((line.high for line in lines), Decimal(0))
    millions = Decimal(100)
    return Ownership(
        currency=currency,
        horizon_years=3,
        images=1e8,
        lines=lines,
        total=total,
        low=low,
        high=high,
        per_million_images=total / millions,
        per_million_low=low / millions,
        per_million_high=high / millions,
        assumptions=("electricity at 0.20 USD/kWh",),
    )


TIERS: tuple[Tier, ...] = ("measured", "calibrated", "anchored", "spec-only")


def offers() -> Offers:
    """Eight devices in four tiers, one without a price, one refused."""
    priced = tuple(
        Offer(
            device_id=f"toy-gpu-{i}",
            prediction=prediction(
                device=f"toy-gpu-{i}", latency_s=0.032 / 2**i, tier=TIERS[i % len(TIERS)]
            ),
            ownership=ownership(hardware=400 * 2**i),
        )
        for i in range(6)
    )
    return Offers(
        model="toy-net",
        routing="as measured on a hundred images",
        offers=(
            *priced,
            Offer(
                device_id="toy-unpriced",
                prediction=prediction(device="toy-unpriced", latency_s=0.02, tier="spec-only"),
                ownership=Unknown(reason="the vendor gives no price"),
            ),
            Offer(
                device_id="toy-dsp",
                prediction=Refusal(device_id="toy-dsp", reason="no fp32 peak is known"),
                ownership=Unknown(reason="nothing was predicted"),
            ),
        ),
    )


def plan() -> Plan:
    return Plan(
        scenario=Scenario(
            name="line-1",
            title="Forty cameras on line 1",
            model="toy-net",
            precision="fp32",
            runtime="eager",
            executor="packed",
            batch=2,
            survival=(1.0, 0.6, 0.3),
            devices=("toy-gpu-1", "toy-gpu-2"),
            demand=Demand(cameras=40, period_s=0.5, arrivals="takt"),
            promise=Promise(p99_latency_s=0.2),
            site=Site(country="JPN", currency="JPY", energy_price_per_kwh=Decimal(25)),
        ),
        options=(
            FleetOption(
                device_id="toy-gpu-1",
                device_name="Toy Gpu 1",
                devices=3,
                utilisation=0.6,
                p99_latency_s=0.15,
                meets_full_depth=True,
                tier="calibrated",
                ownership=ownership(hardware=300_000, currency="JPY"),
            ),
            FleetOption(
                device_id="toy-gpu-2",
                device_name="Toy Gpu 2",
                devices=0,
                utilisation=0.0,
                p99_latency_s=Unknown(reason="no fleet"),
                meets_full_depth=False,
                tier="refused",
                ownership=Unknown(reason="it can not hold the promise"),
            ),
        ),
        made_by="scenarios.size",
    )


def designs() -> Designs:
    """Two devices that keep a promise, one whose accuracy nobody knows, and one that does not."""
    return Designs(
        wanted=Wanted(
            p99_s=0.05, confidence=0.9, images_per_s=200.0, least_accuracy=0.8, price_usd=2000.0,
            power_cap_w=40.0, prefer="accuracy",
        ),
        devices=(
            DesignedDevice(
                device_id="toy-gpu-1", price_usd=800.0, price_source="toy list", price_as_of="2026-05",
                budget="0.3", accuracy=estimate(0.85, 0.02),
                prediction=prediction(device="toy-gpu-1"), p99_s=estimate(0.02), probability=0.97,
            ),
            DesignedDevice(
                device_id="toy-gpu-2", price_usd=Unknown(reason="no list price"), budget="1",
                accuracy=Unknown(reason="toy-net has no card"),
                prediction=prediction(device="toy-gpu-2", tier="spec-only"),
                p99_s=estimate(0.02), probability=0.93,
            ),
        ),
        missing=(MissingDevice(device_id="toy-dsp", reason="takes <b>90 ms</b> for a batch"),),
        notes=("accuracy: toy images",),
    )  # fmt: skip


def found(
    value: Value, source: str = "results/toy.json", *, is_reference: bool = False
) -> Found[Value]:
    return Found(value=value, source=source, is_reference=is_reference)


def full_contents() -> ReportContents:
    """Every part is there."""
    return ReportContents(
        made_at="2026-11-02 08:00 UTC",
        measurements=found(measurements(), "results/measurements/20261101-toy/journal.jsonl"),
        decisions=found(decisions()),
        routing=found(routing()),
        fit=found(fit()),
        validation=found(validation(), is_reference=True),
        offers=found(offers()),
        plan=found(plan()),
        designs=found(designs()),
    )


def empty_contents() -> ReportContents:
    """No part is there."""
    nothing = Absent(wanted="journal.jsonl", command="make profile")
    return ReportContents(
        made_at="2026-11-02 08:00 UTC",
        measurements=nothing,
        decisions=nothing,
        routing=nothing,
        fit=nothing,
        validation=nothing,
        offers=nothing,
        plan=nothing,
        designs=nothing,
    )
