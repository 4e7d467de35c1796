"""What a family of faults came to."""

from threading import Lock

from domain.record import Count, Record, Sentence

SHOWN_PROBLEMS = 3


class Fault(Record):
    """How often a fault was put in, how often all was well after it, and rows or files lost."""

    fault: Sentence
    tried: Count
    survived: Count
    lost: Count
    note: str

    @property
    def is_met(self) -> bool:
        """Whether the bar is met: it was tried, nothing was lost, every try survived."""
        return self.tried > 0 and self.survived == self.tried and self.lost == 0


class Tally:
    """Counts tries of one fault, from several threads too, and keeps the first problems."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.tried = self.survived = self.lost = 0
        self.problems: list[str] = []
        self._lock = Lock()

    def count(self, *problems: str, lost: int = 0) -> None:
        """One more try; it survived where there was no problem."""
        found = [problem for problem in problems if problem]
        with self._lock:
            self.tried += 1
            self.survived += not found
            self.lost += lost
            self.problems += found

    def result(self, note: str = "") -> Fault:
        """The row of the table."""
        said = [note, *dict.fromkeys(self.problems)][: SHOWN_PROBLEMS + 1]
        return Fault(
            fault=self.fault,
            tried=self.tried,
            survived=self.survived,
            lost=self.lost,
            note="; ".join(filter(None, said))[:1500],
        )
