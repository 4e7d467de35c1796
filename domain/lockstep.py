"""Two points in one process, turn about: what the machine does to one it does to the other."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.measurement import Conditions, Environment, PlannedPoint, Samples, Status
from domain.record import Identifier, PositiveCount, Record, Sentence, Unknown


class LockstepRun(Record):
    """One worker's turns, in quartets: before, after, after, before, of two batches.

    `before_s[i]` and `after_s[i]` are wall seconds of one pass on the same place of the rotation,
    `after_first` says in which order this worker made the two networks and showed them.
    """

    format: Literal[1] = 1
    before: PlannedPoint
    after: PlannedPoint
    before_weights: Sentence
    after_weights: Sentence
    run: PositiveCount
    session: Identifier
    taken_at: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    environment: Environment
    status: Status
    reason: str = ""
    after_first: bool = False
    before_s: Samples = ()
    after_s: Samples = ()
    conditions: Conditions | Unknown = Unknown(reason="nothing was run")
    precision_met: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.before_s) != len(self.after_s) or len(self.before_s) % 2:
            raise ValueError(
                f"wanted quartets, got {len(self.before_s)} and {len(self.after_s)} samples"
            )
        if self.is_usable and not self.before_s:
            raise ValueError(f"status {self.status} wants samples, got none")
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} wants a reason, got none")
        return self

    @property
    def is_usable(self) -> bool:
        """Whether the samples may be judged."""
        return self.status in ("ok", "unstable")
