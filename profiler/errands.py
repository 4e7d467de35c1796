"""Small questions to workers, one worker a run, each answer in the journal before the next question."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import ValidationError

from domain.complaint import NoDevice, first_error
from domain.measurement import Environment, Status
from domain.record import Record
from domain.store import Journal
from profiler.messages import Preparation
from profiler.session import Stop, check_same, prepared_worker
from profiler.supervisor import Worker, WorkerDied, WorkerLate


class Errand(Protocol):
    """A question of one run; a line to the worker."""

    @property
    def run(self) -> int:
        """The run, which has a worker of its own."""

    def model_dump_json(self) -> str:
        """The line."""


Q = TypeVar("Q", bound=Errand)
A = TypeVar("A", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Errands(Generic[Q, A]):
    """Whom to ask, what a valid answer is, and the answer for a question that got none."""

    command: Sequence[str]
    preparation: Preparation
    environment: Environment
    answer: type[A]
    unanswered: Callable[[Q, Status, str], A]
    timeout_s: float

    def done(
        self,
        questions: Iterable[Q],
        journal_at: Path,
        *,
        stop: Stop,
        report: Callable[[A], None],
        first_worker: Worker | None = None,
    ) -> tuple[A, ...]:
        """Every answer, in order; those that came before somebody stopped.

        A worker that dies or is late answers with why. Raises Complaint in another environment,
        NoDevice where no worker starts.
        """
        answers: list[A] = []
        stop.worker, worker_of = first_worker, 1
        with Journal(journal_at, self.answer) as journal:
            try:
                for question in questions:
                    if stop.is_asked:
                        break
                    if question.run != worker_of:
                        _end(stop)
                        worker_of = question.run
                    answer = self._answer(question, stop)
                    if stop.is_now:
                        break
                    journal.append(answer)
                    answers.append(answer)
                    report(answer)
            finally:
                _end(stop)
        return tuple(answers)

    def _answer(self, question: Q, stop: Stop) -> A:
        def began(worker: Worker) -> None:
            stop.worker = worker
            if stop.is_now:
                worker.kill()  # the signal came before there was a worker to end

        try:
            if stop.worker is None:
                preparation = Preparation(**{**dict(self.preparation), "wants_rates": False})
                _, came, _ = prepared_worker(preparation, self.command, began)
                check_same(self.environment, came)
            assert stop.worker is not None
            line = stop.worker.ask(question.model_dump_json(), self.timeout_s)
            return self.answer.model_validate_json(line)
        except NoDevice:
            stop.worker = None
            if stop.is_now:
                return self.unanswered(question, "failed", "stopped")
            raise
        except ValidationError as error:
            why = f"the worker gave no valid record: {first_error(error)}"
            return self.unanswered(question, "failed", why)
        except WorkerLate as error:
            stop.worker = None
            return self.unanswered(question, "timeout", str(error))
        except WorkerDied as error:
            stop.worker = None
            return self.unanswered(
                question, "oom" if error.is_out_of_memory else "failed", str(error)
            )


def _end(stop: Stop) -> None:
    worker, stop.worker = stop.worker, None
    if worker is not None:
        worker.end()
