"""Compact journals: they read like the journal, damage is said, bombs take no memory."""

import lzma
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import store
from domain.compact import compacted, expanded
from domain.complaint import CorruptFile
from domain.measurement import Measurement
from domain.store import Journal, newest_journal, read_journal, unread_tail
from tests.domain.strategies import toy_measurement

WHERE = Path("toy.jsonl.xz")


@pytest.fixture
def compact(tmp_path):
    """A compact journal of a hundred records, and the records."""
    records = tuple(toy_measurement(number) for number in range(1, 101))
    with Journal(tmp_path / "journal.jsonl", Measurement) as journal:
        for record in records:
            journal.append(record)
    path = tmp_path / "sent" / "journal.jsonl.xz"
    path.parent.mkdir()
    path.write_bytes(compacted((tmp_path / "journal.jsonl").read_bytes()))
    return path, records


@settings(max_examples=100)
@given(st.binary(max_size=300_000))
def test_what_was_compacted_comes_back_and_is_the_same_each_time(content):
    archive = compacted(content)
    assert expanded(archive, len(content), WHERE) == (content, "")
    assert compacted(content) == archive


@settings(max_examples=100)
@given(st.binary(min_size=1, max_size=300_000), st.integers(min_value=1))
def test_more_than_the_most_is_refused(content, fewer):
    with pytest.raises(CorruptFile, match="holds more than"):
        expanded(compacted(content), max(0, len(content) - fewer), WHERE)


@settings(max_examples=100)
@given(st.integers(min_value=0, max_value=400_000), st.data())
def test_damage_gives_the_intact_beginning_or_is_refused(length, data):
    content = bytes(number * number % 251 for number in range(length % 5000)) * 80
    archive = bytearray(compacted(content))
    place = data.draw(st.integers(0, len(archive) - 1))
    archive[place] ^= data.draw(st.integers(1, 255))
    try:
        intact, said = expanded(bytes(archive), 2**20, WHERE)
    except CorruptFile:
        return
    # A single byte never passes the archive's checksums unseen, unless it says nothing.
    assert said or intact == content


def test_a_compact_journal_reads_like_the_journal(compact):
    path, records = compact
    assert read_journal(path) == records
    assert unread_tail(path) == ""


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_a_torn_archive_gives_the_records_before_the_tear_and_says_so(compact, kept):
    path, records = compact
    archive = path.read_bytes()
    path.write_bytes(archive[: int(kept * len(archive))])
    read = read_journal(path)
    assert 0 < len(read) <= len(records)
    assert read == records[: len(read)]
    assert f"damaged after line {len(read)} (it ends too early)" in unread_tail(path)


def test_bytes_after_the_end_of_an_archive_are_said(compact):
    path, records = compact
    path.write_bytes(path.read_bytes() + b"more")
    assert read_journal(path) == records
    assert "4 bytes follow its end" in unread_tail(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        compacted(b""),
        compacted(b"{}\n"),
        lzma.compress(b"{}", lzma.FORMAT_ALONE),
    ],
)
def test_what_holds_no_record_is_refused_in_a_sentence(content, tmp_path):
    path = tmp_path / "journal.jsonl.xz"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="journal") as complaint:
        read_journal(path)
    assert "\n" not in str(complaint.value)


def test_a_bomb_is_refused_without_its_memory(tmp_path):
    path = tmp_path / "journal.jsonl.xz"
    path.write_bytes(lzma.compress(bytes(2**25), preset=0) * 1)
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile, match="holds more than"):
            expanded(path.read_bytes(), 2**24, path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_an_archive_that_demands_much_memory_of_its_reader_is_refused():
    greedy = lzma.compress(
        b"x", format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]
    )
    with pytest.raises(CorruptFile, match="memory"):
        expanded(greedy, 100, WHERE)


def test_a_folder_gives_its_journal_before_its_archive(compact, monkeypatch):
    path, records = compact
    assert newest_journal(path.parent) == path
    assert read_journal(newest_journal(path.parent)) == records
    (path.parent / "journal.jsonl").write_bytes(b"")
    assert newest_journal(path.parent).name == "journal.jsonl"


def test_the_newest_journal_may_be_compact(compact, monkeypatch):
    path, _ = compact
    with tempfile.TemporaryDirectory() as root:
        monkeypatch.setenv("MORSIZER_RESULTS", root)
        assert newest_journal() == store.reference_journal()
        here = Path(root) / "measurements" / "one" / "journal.jsonl.xz"
        here.parent.mkdir(parents=True)
        here.write_bytes(path.read_bytes())
        here.with_name("journal.jsonl.torn").write_bytes(b"torn")
        assert newest_journal() == here
