import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import store
from domain.complaint import CorruptFile, StorageFailed
from domain.lines import body_of
from domain.measurement import Measurement
from domain.routing import RoutingDistribution
from domain.store import (
    Journal,
    check_free,
    load,
    read_journal,
    read_trace,
    save,
    unread_tail,
    write_trace,
    write_whole,
)
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


@given(st.lists(measurements, min_size=1, max_size=3, unique_by=lambda each: each.run))
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
    assert body_of(line, 1) == toy_measurement().model_dump_json().encode()
    for place in range(len(line)):
        for bit in range(8):
            flipped = bytearray(line)
            flipped[place] ^= 1 << bit
            assert body_of(bytes(flipped), 1) is None, (place, bit)


def test_a_line_that_says_one_thing_twice_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    body = toy_measurement(1).model_dump_json()
    forged = body[:-1] + ',"run":7}'
    path.write_text(f'{{"line":1,"crc32":{zlib.crc32(forged.encode())},"record":{forged}}}\n')
    with pytest.raises(CorruptFile, match="names the key 'run' twice"):
        read_journal(path)


def test_a_journal_that_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "j.jsonl"
    whole = journal_of(path, toy_measurement(1))
    monkeypatch.setattr(store, "LARGEST_JOURNAL_BYTES", len(whole) + 10)
    with Journal(path, Measurement) as journal, pytest.raises(StorageFailed, match="the most"):
        journal.append(toy_measurement(2))
    assert path.read_bytes() == whole


def test_a_damaged_line_ends_the_valid_prefix(tmp_path):
    path = tmp_path / "j.jsonl"
    whole = journal_of(path, *map(toy_measurement, (1, 2, 3)))
    path.write_bytes(whole.replace(b'"run":2', b'"run":4'))
    assert [each.run for each in read_journal(path)] == [1]


def test_lines_that_are_swapped_doubled_or_gone_end_the_valid_prefix(tmp_path):
    path = tmp_path / "j.jsonl"
    one, two, three = journal_of(path, *map(toy_measurement, (1, 2, 3))).splitlines(keepends=True)
    for lines, runs in (
        ((one, three, two), [1]),
        ((one, one, two, three), [1]),
        ((one, three), [1]),
        ((one, two), [1, 2]),
    ):
        path.write_bytes(b"".join(lines))
        assert [each.run for each in read_journal(path)] == runs
        assert bool(unread_tail(path)) == (len(lines) > len(runs))


def test_the_lines_of_an_older_journal_bear_no_number_and_are_read(tmp_path):
    path = tmp_path / "j.jsonl"
    old = journal_of(path, toy_measurement(1)).replace(b'"line":1,', b"")
    path.write_bytes(old)
    whole = journal_of(path, toy_measurement(2))
    assert whole.startswith(old)
    assert [each.run for each in read_journal(path)] == [1, 2]
    path.write_bytes(old + old)
    with pytest.raises(CorruptFile, match="holds run 1 of toy twice"):
        read_journal(path)


def test_a_whole_line_of_a_later_format_is_refused_and_never_cut_off(tmp_path):
    path = tmp_path / "j.jsonl"
    journal_of(path, toy_measurement(1))
    body = toy_measurement(2).model_dump_json().replace('"format":2', '"format":99')
    line = f'{{"line":2,"crc32":{zlib.crc32(body.encode())},"record":{body}}}\n'.encode()
    path.write_bytes(path.read_bytes() + line)
    whole = path.read_bytes()
    with pytest.raises(CorruptFile, match=r"j\.jsonl:2: no Measurement .* format"):
        read_journal(path)
    with pytest.raises(CorruptFile, match="format"), Journal(path, Measurement):
        pass
    assert path.read_bytes() == whole


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
        b'{"run":1,"run":2}',
        b'{"seed":1e999}',
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


def test_a_file_that_is_too_large_is_not_read_first(tmp_path):
    path = tmp_path / "j.jsonl"
    with path.open("wb") as file:
        file.truncate(2 * 2**30)
    tracemalloc.start()
    with pytest.raises(CorruptFile, match="larger than 536870912 bytes"):
        read_journal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_no_flipped_bit_of_a_saved_record_is_accepted_with_another_meaning(tmp_path):
    path = tmp_path / "m.json"
    save(toy_measurement(), path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 7
        path.write_bytes(flipped)
        try:
            assert load(path, Measurement) == toy_measurement()
        except CorruptFile:
            continue


def test_an_altered_file_is_refused_unless_people_edit_that_kind(tmp_path):
    path = tmp_path / "m.json"
    save(toy_measurement(), path)
    path.write_text(path.read_text().replace('"run": 1', '"run": 2'))
    with pytest.raises(CorruptFile, match=f"{store.SEAL} does not fit; restore it, or delete"):
        load(path, Measurement)
    said: list[str] = []
    assert load(path, Measurement, said.append).run == 2
    assert "was altered after it was written" in said[0]


def test_a_file_without_a_seal_or_with_another_layout_is_read(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(toy_measurement().model_dump_json())
    assert load(path, Measurement) == toy_measurement()
    save(toy_measurement(), path)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert load(path, Measurement) == toy_measurement()


def test_a_journal_that_is_being_written_is_not_free(tmp_path):
    path = tmp_path / "j.jsonl"
    check_free(path)
    with Journal(path, Measurement), pytest.raises(StorageFailed, match="another run"):
        check_free(path)
    check_free(path)


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
