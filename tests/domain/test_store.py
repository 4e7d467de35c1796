import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import store
from domain.complaint import CorruptFile, StorageFailed
from domain.measurement import Measurement
from domain.routing import RoutingDistribution
from domain.store import Journal, load, read_journal, read_trace, save, write_trace, write_whole
from tests.domain.strategies import measurements, routings, toy_measurement


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """A disk on which no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def journal_of(path: Path, *records: Measurement) -> bytes:
    with Journal(path, Measurement) as journal:
        for record in records:
            journal.append(record)
    return path.read_bytes()


@given(measurements)
def test_what_is_saved_is_what_is_loaded(measurement):
    with folder() as here:
        save(measurement, here / "m.json")
        assert load(here / "m.json", Measurement) == measurement


@given(st.lists(measurements, min_size=1, max_size=3))
def test_what_is_appended_is_what_is_read(records):
    with folder() as here:
        journal_of(here / "j.jsonl", *records)
        assert read_journal(here / "j.jsonl") == tuple(records)


def test_a_journal_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "j.jsonl"
    journal_of(path, toy_measurement(1))
    journal_of(path, toy_measurement(2))
    assert [each.run for each in read_journal(path)] == [1, 2]
    assert not path.with_name("j.jsonl.torn").exists()


def test_a_tail_torn_at_any_byte_is_set_aside_and_the_valid_prefix_kept(tmp_path, monkeypatch):
    # Waiting for the disk a thousand times proves nothing here.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    whole = journal_of(tmp_path / "whole.jsonl", toy_measurement(1), toy_measurement(2))
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path = tmp_path / f"{length}.jsonl"
        path.write_bytes(whole[:length])
        assert [each.run for each in read_journal(path)] == [1]
        with Journal(path, Measurement) as journal:
            assert journal.torn_bytes == length - first
            journal.append(toy_measurement(3))
        assert [each.run for each in read_journal(path)] == [1, 3]
        aside = path.with_name(path.name + ".torn")
        torn = aside.read_bytes() if aside.exists() else b""
        assert torn == whole[first:length]


def test_torn_tails_gather_and_none_is_lost(tmp_path):
    path = tmp_path / "j.jsonl"
    for tail in (b"one", b"two"):
        journal_of(path, toy_measurement())
        path.write_bytes(path.read_bytes() + tail)
    with Journal(path, Measurement):
        pass
    assert path.with_name("j.jsonl.torn").read_bytes() == b"onetwo"


def test_no_flipped_bit_of_a_line_is_accepted(tmp_path):
    line = journal_of(tmp_path / "j.jsonl", toy_measurement())
    assert store._record_of(line, Measurement) == toy_measurement()
    for place in range(len(line)):
        for bit in range(8):
            flipped = bytearray(line)
            flipped[place] ^= 1 << bit
            assert store._record_of(bytes(flipped), Measurement) is None, (place, bit)


def test_a_damaged_line_ends_the_valid_prefix(tmp_path):
    path = tmp_path / "j.jsonl"
    whole = journal_of(path, *map(toy_measurement, (1, 2, 3)))
    path.write_bytes(whole.replace(b'"run":2', b'"run":4'))
    assert [each.run for each in read_journal(path)] == [1]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_journal_are_refused(content):
    with folder() as here:
        (here / "j.jsonl").write_bytes(content)
        with pytest.raises(CorruptFile):
            read_journal(here / "j.jsonl")


def test_a_second_writer_is_refused(tmp_path):
    with (
        Journal(tmp_path / "j.jsonl", Measurement),
        pytest.raises(StorageFailed, match="another run"),
        Journal(tmp_path / "j.jsonl", Measurement),
    ):
        pass
    with Journal(tmp_path / "j.jsonl", Measurement) as journal:
        journal.append(toy_measurement())


def test_the_lock_holds_against_another_process_and_falls_with_it(tmp_path):
    path = tmp_path / "j.jsonl"
    code = (
        "import sys, pathlib, domain.store as store\n"
        "with store.Journal(pathlib.Path(sys.argv[1]), store.Measurement):\n"
        "    print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(store.__file__).parent.parent,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StorageFailed), Journal(path, Measurement):
            pass
        other.kill()
    with Journal(path, Measurement):
        pass


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "f.json"
    write_whole(path, b"old")
    with disk_with_room_for(100), pytest.raises(StorageFailed, match="File too large"):
        write_whole(path, b"new" * 100)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fails_to_sync_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    write_whole(path, b"old")

    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageFailed, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_journal_on_a_full_disk_keeps_what_it_had_and_goes_on_when_there_is_room(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, Measurement) as journal:
        journal.append(toy_measurement(1))
        length = path.stat().st_size
        with disk_with_room_for(length + 100), pytest.raises(StorageFailed):
            journal.append(toy_measurement(2))
        assert path.stat().st_size == length
        journal.append(toy_measurement(3))
    assert [each.run for each in read_journal(path)] == [1, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format":2}',
        toy_measurement().model_dump_json().replace('"batch":1', '"batch":"1"').encode(),
        toy_measurement().model_dump_json().replace("0.5", "NaN").encode(),
        toy_measurement().model_dump_json().replace('"run":1', '"run":1,"extra":1').encode(),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="is no Measurement"):
        load(path, Measurement)


def test_an_absent_and_an_oversized_file_are_refused(tmp_path, monkeypatch):
    with pytest.raises(CorruptFile, match="No such file"):
        load(tmp_path / "absent.json", Measurement)
    monkeypatch.setattr(store, "LARGEST_RECORD_BYTES", 10)
    save(toy_measurement(), tmp_path / "m.json")
    with pytest.raises(CorruptFile, match="larger than 10 bytes"):
        load(tmp_path / "m.json", Measurement)


@given(routings())
def test_a_written_trace_is_the_read_trace(routing):
    with folder() as here:
        write_trace(routing, here / "t.parquet")
        assert read_trace(here / "t.parquet") == routing


def test_no_corrupted_byte_of_a_trace_gives_other_counts(tmp_path):
    path = tmp_path / "t.parquet"
    routing = RoutingDistribution(tokens=17, counts=((17, 9, 3), (12, 9, 9), (17, 17, 1)))
    write_trace(routing, path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert read_trace(path) == routing, place
        except CorruptFile:
            refused += 1
    assert refused > len(whole) / 2


def test_a_cut_trace_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    write_trace(RoutingDistribution.full(tokens=17, recursions=3), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 9):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFile):
            read_trace(path)
