"""The image, built once, and the site around a VM of it: one of each for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import build_debian
from tests.image.machine import missing_tools
from tests.image.site import VlanSite, running_site


@pytest.fixture(scope="session")
def _tools() -> None:
    """Skip, with the reason, where the VM cannot be made; in CI that is a failure."""
    reason = missing_tools()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"the image cannot be tested here: {reason}", pytrace=False)
    pytest.skip(f"the image cannot be tested here: {reason}")


@pytest.fixture(scope="session")
def image(_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with disk, kernel and initrd: built from the sources as they are, unless TF_IMAGE names one."""
    if given := os.environ.get("TF_IMAGE"):
        return Path(given)
    folder = tmp_path_factory.mktemp("image")
    build_debian(folder)
    return folder


@pytest.fixture(scope="session")
def site(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VlanSite]:
    """The running site; its VM is not made yet."""
    folder = tmp_path_factory.mktemp("site")
    with running_site(folder, image=image) as running:
        yield running
        if artifacts := os.environ.get("TF_IMAGE_ARTIFACTS"):
            for log in folder.rglob("*.log"):
                shutil.copy(log, Path(artifacts) / f"{log.parent.name}-{log.name}")
