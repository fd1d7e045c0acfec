"""Fixtures shared by the tests: where real speech lies, and where the repository is."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real speech (`WAVASR_DATA`, or `../shared/data`): absent, a test is skipped; in CI it fails."""
    folder = Path(os.environ.get("WAVASR_DATA") or REPOSITORY.parent / "shared" / "data")
    if folder.is_dir():
        return folder
    message = f"no real speech at {folder}; set WAVASR_DATA to a folder laid out as data/README.md says"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
