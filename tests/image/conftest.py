"""The image, built once for all tests that look at it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.build import IMAGE, VERSION, Builder
from tests.support.require import require


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    """A builder that has made the image."""
    require("buildah")
    require("debootstrap")
    if os.geteuid() != 0:
        pytest.skip("an image can only be built by root here")
    made = Builder(Path(tempfile.mkdtemp(prefix="cohort-image-")))
    try:
        made.make_base()
        made.make_image(VERSION)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def tree(builder: Builder) -> Iterator[Path]:
    """The image's files, to be looked at."""
    with builder.tree(IMAGE) as path:
        yield path
