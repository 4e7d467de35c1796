"""What a session was shown, as checksums: the same session goes on with the same inputs only."""

import hashlib
from pathlib import Path

from domain.complaint import Complaint
from domain.measurement import MeasuringPlan
from profiler.messages import Source


def checked_inputs(plan: MeasuringPlan, source: Source) -> tuple[str, str]:
    """Checksums of the weights and of the images, each empty where the user gave none.

    A checkpoint or an image that cannot be read stops the session before it begins.
    """
    images = ""
    if source.images:
        from profiler.source import pictures_of

        for net in {point.architecture.key(): point.architecture for point in plan.points}.values():
            pictures_of(source, net.image_size, net.channels)
        images = folder_sha256(Path(source.images))
    if not source.checkpoint and all(point.weights == "random" for point in plan.points):
        return "", images
    from profiler.source import network_of

    return network_of(source)[1].weights_sha256, images


def folder_sha256(folder: Path) -> str:
    """Checksum of the names, sizes and bytes of all `class/name.png` in a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*/*.png")):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise Complaint(f"cannot read {path}: {error.strerror}") from error
        total.update(f"{path.relative_to(folder).as_posix()}\0{size}\0{digest}\n".encode())
    return total.hexdigest()


def check_same_inputs(kind: str, was: str, found: str) -> None:
    """Raise Complaint where an input is another than the one that a session began with.

    A session that was begun before that checksum was kept has an empty one.
    """
    if was and found != was:
        raise Complaint(
            f"the {kind} changed since this session began (sha256 {found[:16] or 'none'}, was "
            f"{was[:16]}); start a new session with `python -m profiler run`"
        )
