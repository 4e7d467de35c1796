"""A run as a process of its own: measure the toy session in a folder with the fake worker."""

import sys
from pathlib import Path

from domain.store import save
from profiler.session import SESSION, Stop, measure
from tests.profiler.networks import session
from tests.profiler.test_session import FAKE


def main(folder: Path) -> None:
    toy = session("a", "b", "c", runs=4)
    save(toy, folder / SESSION)

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    with Stop(say) as stop:
        measure(
            toy,
            folder,
            stop=stop,
            report=lambda record, number, total: say(f"{number}/{total}"),
            command=FAKE,
        )
        # The worker of a run is long gone; the parent is not.
        say("stopped" if stop.is_asked else "finished")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
