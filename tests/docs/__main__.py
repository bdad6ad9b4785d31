"""Write every generated part of docs/ anew: `make docs`."""

from __future__ import annotations

from tests.docs import architecture, cli, configuration, rollout


def main() -> None:
    """Each page from its source."""
    for page in (architecture, cli, configuration, rollout):
        page.PAGE.write_text(page.render(page.PAGE.read_text()))


if __name__ == "__main__":
    main()
