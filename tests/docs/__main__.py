"""Write every generated part of docs/ anew: `make docs`."""

from __future__ import annotations

from tests.docs import architecture, cli, configuration, definitions, rollout


def main() -> None:
    """Each page from its source."""
    for page in (architecture, cli, configuration, rollout):
        page.PAGE.write_text(page.render(page.PAGE.read_text()))
    for path, text in definitions.files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
