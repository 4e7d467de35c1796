import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from domain.complaint import CorruptFile
from domain.measurement import Conditions, Energy, Measurement
from domain.record import Unknown
from domain.store import Journal
from profiler.export import MANIFEST, exported, verified
from profiler.session import JOURNAL
from tests.domain.strategies import toy_measurement

ENERGY = Energy(
    windows_j=(2.0, 2.5),
    window_s=10.0,
    idle_w=30.0,
    mean_w=200.0,
    peak_w=Unknown(reason="no power was read"),
    integrated_j=2.2,
    disagreement=0.02,
    sensor="nvml.energy",
    scope="gpu-board",
)
CONDITIONS = Conditions(
    wall_s=4.0,
    own_cpu_s=3.0,
    parent_cpu_s=0.01,
    others_cpu_s=0.2,
    steal_s=Unknown(reason="not said"),
    suspended_s=0.0,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Journal(tmp_path / JOURNAL, Measurement) as journal:
        journal.append(toy_measurement(1))
        rich = {
            "energy": ENERGY,
            "conditions": CONDITIONS,
            "switches": (3,),
            "host_samples_s": (0.4,),
        }
        journal.append(Measurement(**{**dict(toy_measurement(2)), **rich}))
    exported(tmp_path)
    return tmp_path


def test_what_was_exported_is_verified(folder: Path) -> None:
    assert {path.name for path in verified(folder)} == {
        "measurements.parquet",
        "depths.parquet",
        JOURNAL,
    }


def test_no_flipped_byte_of_an_export_is_verified(folder: Path) -> None:
    for name in ("measurements.parquet", "depths.parquet", JOURNAL, MANIFEST):
        path = folder / name
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 150)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 7
            path.write_bytes(damaged)
            # A manifest without a line break is the same manifest.
            if json_of(damaged) != json_of(whole):
                with pytest.raises(CorruptFile):
                    verified(folder)
        path.write_bytes(whole)
    assert verified(folder)


def json_of(content: bytes | bytearray) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return bytes(content)


@pytest.mark.parametrize(
    "manifest",
    [
        "{}",
        "[]",
        '{"measurements.parquet":"0"}',
        '{"measurements.parquet":1,"depths.parquet":2,"journal.jsonl":3}',
        '{"measurements.parquet":"0","depths.parquet":"0","../../etc/passwd":"0"}',
        '{"measurements.parquet":"é","depths.parquet":"0","journal.jsonl":"0"}',
        '{"depths.parquet":"0","depths.parquet":"0"}',
        "[" * 100_000,
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, manifest: str) -> None:
    (folder / MANIFEST).write_text(manifest)
    with pytest.raises(CorruptFile):
        verified(folder)


def test_an_export_of_a_journal_that_has_grown_is_refused(folder: Path) -> None:
    with Journal(folder / JOURNAL, Measurement) as journal:
        journal.append(toy_measurement(3))
    with pytest.raises(CorruptFile, match="export again"):
        verified(folder)


def test_energy_and_conditions_are_columns_with_the_reason_for_an_empty_one(folder: Path) -> None:
    plain, rich = pq.read_table(folder / "measurements.parquet").to_pylist()
    assert rich["energy_windows_j"] == [2.0, 2.5]
    assert rich["energy_sensor"] == "nvml.energy"
    assert rich["energy_peak_w"] is None
    assert rich["conditions_own_cpu_s"] == 3.0
    assert rich["conditions_steal_s"] is None
    assert rich["switches"] == [3]
    assert plain["energy_windows_j"] is None
    assert plain["energy_unknown"] == "no energy pass was run"
