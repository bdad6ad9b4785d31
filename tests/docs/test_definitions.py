from __future__ import annotations

from tests.docs.definitions import FOLDER, files


def test_the_chart_s_definitions_are_what_the_models_say() -> None:
    """The issue's rule: generated from the models that read the files; a stale one fails."""
    assert sorted(FOLDER.iterdir()) == sorted(files())
    assert [path.name for path, text in files().items() if path.read_text() != text] == [], "run make docs"
