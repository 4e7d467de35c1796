"""Round numbers on toy devices: a network, a prediction of any latency, a scenario."""

from decimal import Decimal

from domain.architecture import Architecture
from domain.device import DeviceSpec
from domain.prediction import OperatorCost, Prediction
from domain.record import Estimate, Figure, Unknown
from domain.routing import RoutingDistribution
from domain.scenario import Demand, Promise, Scenario, Site
from domain.workload import Workload
from scenarios.candidates import Forecasts
from scenarios.sizing import plan_of

NET = Architecture(
    name="toy-net",
    image_size=8,
    patch_size=4,
    width=8,
    heads=2,
    mlp_width=16,
    layers_before=1,
    shared_layers=1,
    recursions=2,
    layers_after=1,
)


def figure(value):
    return Figure(value=value, source="toy", read_on="2026-11-23", confidence="A")


def device(name, price=1000.0, **changes):
    fields = {
        "id": name,
        "name": name.title(),
        "device_class": "edge",
        "family": "Toy",
        "peak_flop_per_s": {"fp32": figure(1e12)},
        "memory_bytes": figure(1e9),
        "memory_bytes_per_s": figure(1e9),
        "cache_bytes": Unknown(reason="not in the source"),
        "power_limit_w": figure(100.0),
        "idle_w": figure(20.0),
        "price_usd": figure(price) if price else Unknown(reason="sold in servers only"),
    }
    return DeviceSpec(**{**fields, **changes})


def prediction(name, latency_s=0.01, *, spread=1.0, batch=1, fits=1.0, counts=None, **changes):
    """A batch takes `latency_s`, half of it in the recursions; the interval is `spread` wide."""
    workload = Workload(
        architecture=NET,
        batch=batch,
        executor=changes.pop("executor", "packed"),
        routing=RoutingDistribution(tokens=NET.tokens, counts=counts or ((5, 3),)),
    )
    latency = Estimate(value=latency_s, low=latency_s / spread, high=latency_s * spread)
    stages = {"prologue": 0.25, "recursion-1": 0.25, "recursion-2": 0.25, "epilogue": 0.25}
    fields = {
        "workload": workload,
        "device_id": name,
        "device_name": name.title(),
        "tier": "spec-only",
        "tier_reason": "made up",
        "latency_s": latency,
        "throughput_img_per_s": latency.inverse_of(batch),
        "peak_memory_bytes": Unknown(reason="made up"),
        "energy_j_per_image": Unknown(reason="made up"),
        "power_w": Estimate(value=60.0, low=50.0, high=70.0),
        "fits_in_memory": fits,
        "operators": tuple(
            OperatorCost(
                stage=stage,
                name="gemm",
                flop=1.0,
                bytes_moved=1.0,
                calls=1.0,
                latency_s=share * latency_s,
                bound="compute",
            )
            for stage, share in stages.items()
        ),
        "bound": "compute",
        "fit_name": "made-up",
    }
    return Prediction(**{**fields, **changes})


def demand(cameras=40, period_s=2.0, arrivals="takt", **changes):
    return Demand(cameras=cameras, period_s=period_s, arrivals=arrivals, **changes)


def scenario(**changes):
    fields = {
        "name": "toy",
        "title": "A toy line",
        "model": "toy-net",
        "precision": "fp32",
        "runtime": "eager",
        "executor": "packed",
        "batch": 1,
        "survival": (1.0, 0.6),
        "devices": ("one", "two"),
        "demand": demand(),
        "promise": Promise(p99_latency_s=0.1),
        "site": Site(country="USA", currency="USD", energy_price_per_kwh=Decimal("0.1")),
    }
    return Scenario(**{**fields, **changes})


def planned(predictions, full=None, devices=None, **changes):
    full = predictions if full is None else full
    forecasts = {name: Forecasts.of_one(predictions[name], full.get(name)) for name in predictions}
    return plan_of(
        scenario(**changes),
        forecasts,
        devices or {name: device(name) for name in predictions},
        "test",
    )
