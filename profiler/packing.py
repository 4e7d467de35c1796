"""A session's journal in a compact archive: what is committed and sent, read like the journal."""

from pathlib import Path

from domain.compact import compacted, expanded
from domain.complaint import Complaint, StorageFailed
from domain.store import (
    COMPACT_JOURNAL,
    JOURNAL,
    LARGEST_JOURNAL_BYTES,
    check_free,
    read_journal,
    read_limited,
    unread_tail,
    write_whole,
)


def packed(folder: Path) -> Path:
    """Write `journal.jsonl.xz` beside the journal and read it back; gives its path.

    The journal stays. Raises Complaint where its tail is damaged, for an archive would look whole;
    StorageFailed where what was written does not give the same records.
    """
    journal, compact = folder / JOURNAL, folder / COMPACT_JOURNAL
    check_free(journal)
    records = read_journal(journal)
    damage = unread_tail(journal)
    if damage:
        raise Complaint(f"{damage}; `python -m profiler resume {folder}` sets that aside")
    content = read_limited(journal, LARGEST_JOURNAL_BYTES)
    write_whole(compact, compacted(content))
    written = read_limited(compact, LARGEST_JOURNAL_BYTES)
    if expanded(written, LARGEST_JOURNAL_BYTES, compact) != (content, ""):
        raise StorageFailed(f"{compact} does not give back what was written; export again")
    assert read_journal(compact) == records
    return compact
