"""A results folder of its own for every command that is run."""

import pytest

from domain.store import reference_root


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder of its own that has the committed reference."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "reference").symlink_to(reference_root())
    monkeypatch.setenv("MORSIZER_RESULTS", str(folder))
    return folder
