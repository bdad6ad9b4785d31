"""Write every generated part of docs/ anew: `make docs`."""

from __future__ import annotations

from tests.docs import configuration


def main() -> None:
    """Each page from its source."""
    configuration.PAGE.write_text(configuration.render(configuration.PAGE.read_text()))


if __name__ == "__main__":
    main()
