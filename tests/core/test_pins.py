"""Promise: a lock is read as pip and uv read it, with its markers and hashes, and compared with what is installed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from tasks.core.files import write_text
from tasks.core.pins import lock_mismatches, read_pins

LOCK = """# made by hand
numpy=={numpy} \\
    --hash=sha256:0000 \\
    --hash=sha256:1111
scikit_learn==1.9.1  # via x
async-timeout==5.0.1 ; python_full_version < '3.11.3' \\
    --hash=sha256:2222
nowhere==1.0 ; sys_platform == 'win32'
torch==2.13.0
"""


def test_pins_have_normalized_names_and_markers(tmp_path: Path) -> None:
    pins = read_pins(write_text(tmp_path / "lock", LOCK.format(numpy="2.4.6")))
    assert list(pins) == ["numpy", "scikit-learn", "async-timeout", "nowhere", "torch"]
    assert str(pins["async-timeout"]) == 'async-timeout==5.0.1; python_full_version < "3.11.3"'
    assert str(pins["numpy"]) == "numpy==2.4.6"


def test_only_what_this_python_needs_is_compared(tmp_path: Path) -> None:
    """Neither a package of another system nor a build's local version (torch 2.13.0+cpu) is a difference."""
    lock = write_text(tmp_path / "lock", LOCK.format(numpy=version("numpy")))
    assert lock_mismatches(lock) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("numpy==0.1 \\\n    --hash=sha256:0000", f"numpy {version('numpy')}"),
        ("nowhere==1.0", "nowhere none"),
        ("nowhere==1.0 ; python_version >= '3.11'", "nowhere none"),
        ("Scikit.Learn==0.1", f"scikit-learn {version('scikit-learn')}"),
    ],
)
def test_a_difference_is_named(tmp_path: Path, line: str, found: str) -> None:
    assert lock_mismatches(write_text(tmp_path / "lock", line + "\n")) == [found]
