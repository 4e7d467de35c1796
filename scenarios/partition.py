"""One cell of a design space, drawn: a device, a batch, a precision, an executor, a routing.

Pure numpy on a handful of numbers, so that it runs in any process of any machine alike: the same
seed gives the same rows to the last digit wherever and in whatever order cells are drawn.
"""

import io
import json
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Draws = NDArray[np.float64]

# Draws of a cell at most, and draws that are in the making at once.
MOST_DRAWS, BLOCK = 1_000_000, 16_384
# Pairs of price and site, and rows of one file where a block of draws has fewer.
MOST_PAIRS, PART_ROWS = 100, 2**17
SUMMARY = b"morsizer.summary"
SCHEMA = pa.schema(
    [
        pa.field("price", pa.int16(), nullable=False),
        pa.field("site", pa.int16(), nullable=False),
        pa.field("cost", pa.float32(), nullable=False),
        pa.field("holds", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A sized fleet as numbers; money in the site's currency, worth of today.

    `sites` has, for each price of energy, what a unit of capital, a mean watt, a busy watt and the
    rest cost over the horizon; `bearable` the logarithm of the longest latency factor that keeps
    the promise, at each logarithm of the load in `loads`.
    """

    name: str
    device_id: str
    device_number: int
    batch: int
    precision: str
    executor: str
    routing: float
    devices: int
    servers_and_spares: int
    p99_s: float | None
    capital: float
    idle_w: float
    busy_w: float
    own_w: float
    erlang: float
    strain: float
    log_sd: float
    loads: tuple[float, ...]
    bearable: tuple[float, ...]
    sites: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What every cell is drawn over: factors of the price, and spreads of what all share."""

    prices: tuple[float, ...]
    draws: int
    seed: int
    load_sd: float
    price_sd: float
    own_price_sd: float
    energy_sd: float
    currency_sd: float
    stray_sd: float


@dataclass(frozen=True, order=True)
class Part:
    """Some of the draws of a cell: what one worker draws at once, and one file holds."""

    cell: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.cell}.{self.number:03d}"


def parts_of(cell: Cell, axes: Axes) -> tuple[Part, ...]:
    """The draws of a cell in files of about as many rows, however many there are: whole blocks."""
    pairs = len(axes.prices) * len(cell.sites)
    if not 0 < axes.draws <= MOST_DRAWS or pairs > MOST_PAIRS:
        raise ValueError(
            f"wanted 1 to {MOST_DRAWS:,} draws and up to {MOST_PAIRS} pairs of price and site, got "
            f"{axes.draws} and {pairs}"
        )
    step = BLOCK * max(1, PART_ROWS // (pairs * BLOCK))
    return tuple(
        Part(cell.name, number, start, min(start + step, axes.draws))
        for number, start in enumerate(range(0, axes.draws, step))
    )


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What one cell comes to at one price and site."""

    cell: str
    price: int
    site: int
    mean: float
    low: float
    median: float
    high: float
    holds: float


@lru_cache(maxsize=8)
def _world(axes: Axes, block: int, draws: int) -> tuple[Draws, Draws, Draws, Draws]:
    """Load, hardware in the site's currency, energy and stray of one block: alike for every cell."""
    random = np.random.default_rng([axes.seed, 0, block])
    load, price, energy, currency, stray = random.standard_normal((5, draws))
    return (
        axes.load_sd * load,
        np.exp(axes.price_sd * price + axes.currency_sd * currency),
        np.exp(axes.energy_sd * energy),
        np.clip(np.abs(stray) * axes.stray_sd, 0, 1),
    )


def costs_of(
    cell: Cell, axes: Axes, start: int = 0, stop: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cost by price, site and draw, and whether the promise holds in each draw.

    `start` is the first draw of a block; a block's draws are the same in whatever part they are.
    """
    stop = axes.draws if stop is None else stop
    assert start % BLOCK == 0, "parts are whole blocks"
    costs = np.empty((len(axes.prices), len(cell.sites), stop - start), dtype=np.float32)
    holds = np.empty(stop - start, dtype=bool)
    # Block by block: what is in between needs memory for one block only.
    for first in range(start, stop, BLOCK):
        here = slice(first - start, min(first + BLOCK, stop) - start)
        _draw_block(cell, axes, first // BLOCK, costs[:, :, here], holds[here])
    return costs, holds


def _draw_block(
    cell: Cell, axes: Axes, block: int, costs: NDArray[np.float32], holds: NDArray[np.bool_]
) -> None:
    draws = len(holds)
    log_load, hardware, energy, stray = _world(axes, block, draws)
    random = np.random.default_rng([axes.seed, 1, block, cell.device_number])
    latency, own = random.standard_normal((2, draws))
    log_latency = cell.log_sd * latency + np.log(1 + stray * (cell.strain - 1))
    np.less_equal(log_latency, np.interp(log_load, cell.loads, cell.bearable) + 1e-9, out=holds)
    busy = cell.erlang / cell.servers_and_spares * np.exp(log_load + log_latency)
    np.clip(busy, 0, 1, out=busy)
    mean_w = cell.devices * (cell.idle_w + busy * (cell.busy_w - cell.idle_w)) + cell.own_w
    mean_w *= energy
    bought = cell.capital * hardware * np.exp(axes.own_price_sd * own)
    peak_w = cell.devices * cell.busy_w + cell.own_w
    for s, (per_capital, per_mean_w, per_peak_w, rest) in enumerate(cell.sites):
        running = per_mean_w * mean_w + (per_peak_w * peak_w + rest)
        for p, price in enumerate(axes.prices):
            np.add(running, (price * per_capital) * bought, out=costs[p, s], casting="same_kind")


def drawn(cell: Cell, axes: Axes, part: Part | None = None) -> tuple[bytes, list[Summary]]:
    """The rows of a part as Parquet with page checksums, its summaries in the file's metadata."""
    part = part or parts_of(cell, axes)[0]
    costs, holds = costs_of(cell, axes, part.start, part.stop)
    draws, kept = len(holds), float(holds.mean())
    pairs = [(p, s) for p in range(costs.shape[0]) for s in range(costs.shape[1])]
    summaries = [summary_of(cell.name, p, s, costs[p, s], kept) for p, s in pairs]
    said = {
        "cell": asdict(cell),
        "axes": asdict(axes),
        "part": asdict(part),
        "summaries": [asdict(each) for each in summaries],
    }
    schema = SCHEMA.with_metadata({SUMMARY: json.dumps(said, allow_nan=False).encode()})
    held, sink = pa.array(holds), io.BytesIO()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="none",
        write_page_checksum=True,
        use_dictionary=["price", "site"],
        write_statistics=False,
    ) as writer:
        for p, s in pairs:
            writer.write_table(
                pa.Table.from_arrays(
                    [
                        pa.array(np.full(draws, p, dtype=np.int16)),
                        pa.array(np.full(draws, s, dtype=np.int16)),
                        pa.array(costs[p, s]),
                        held,
                    ],
                    schema=schema,
                )
            )
    return sink.getvalue(), summaries


def summary_of(
    cell: str, price: int, site: int, costs: NDArray[np.float32], holds: float
) -> Summary:
    """Mean and quantiles of the costs at one price and site; `costs` stay as they are."""
    ranks = [int(share * (len(costs) - 1)) for share in (0.05, 0.5, 0.95)]
    low, median, high = np.partition(costs, ranks)[ranks].tolist()
    return Summary(
        cell=cell,
        price=price,
        site=site,
        mean=float(costs.mean(dtype=np.float64)),
        low=low,
        median=median,
        high=high,
        holds=holds,
    )


def front_of(points: Draws) -> NDArray[np.bool_]:
    """Rows of `points` (points × objectives, less is better) that no other row beats in all.

    Equal rows beat each other in nothing, so all of them stay.

    >>> front_of(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]]))
    array([ True,  True, False])
    """
    order = np.lexsort(points.T[::-1])
    kept = np.zeros(len(points), dtype=bool)
    front: list[int] = []
    for row in order:
        others = points[front]
        no_worse = (others <= points[row]).all(axis=1) if front else np.zeros(0, dtype=bool)
        better = (others < points[row]).any(axis=1) if front else np.zeros(0, dtype=bool)
        if not (no_worse & better).any():
            front.append(int(row))
            kept[row] = True
    return kept
