"""Hypothesis profiles: dev by default, ci and thorough through `HYPOTHESIS_PROFILE`.

Tests see the committed results and none of this machine's own: what somebody has measured and fitted
here changes no answer of theirs, and what they write as their own results does not lie among it.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

_RESULTS = Path(tempfile.mkdtemp(prefix="morsizer-results-"))
(_RESULTS / "reference").symlink_to(
    Path(__file__).resolve().parent.parent / "results" / "reference"
)
atexit.register(shutil.rmtree, _RESULTS, ignore_errors=True)
# Before any module of a test reads it.
os.environ["MORSIZER_RESULTS"] = str(_RESULTS)

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=300, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("thorough", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
