from __future__ import annotations

import pytest

from tests.kube.pods.images import Image, resolve

IMAGES = {"cohort": Image(("cohort",)), "registry.test:5000/team/app:2": Image(("two",)), "team/app": Image(("app",))}


@pytest.mark.parametrize(
    ("reference", "entrypoint"),
    [
        ("cohort", "cohort"),
        ("registry.test:5000/any/cohort:0.1.0", "cohort"),
        ("cohort@sha256:00", "cohort"),
        ("registry.test:5000/team/app:2", "two"),
        ("team/app:3", "app"),
    ],
)
def test_an_image_is_found_by_what_is_known_of_its_name(reference: str, entrypoint: str) -> None:
    found = resolve(reference, IMAGES)
    assert found
    assert found.entrypoint == (entrypoint,)


def test_an_unknown_image_is_not_guessed() -> None:
    assert resolve("registry.test/other:1", IMAGES) is None
