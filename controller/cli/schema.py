"""``cohort schema``: what an editor needs to complete and check a document."""

from __future__ import annotations

import click

from controller.cli.documents import KINDS, model
from controller.cli.output import emit

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.command()
@click.argument("kind", required=False, type=click.Choice(list(KINDS), case_sensitive=False))
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="Form.")
def command(kind: str | None, output: str) -> None:
    """Print the JSON schema of the document KIND; without KIND those of all, by kind.

    A schema has the fields, types and bounds. 'cohort lint' checks also what holds between fields.
    """
    emit(schema(kind) if kind else {name: schema(name) for name in KINDS}, output)


def schema(kind: str) -> dict[str, object]:
    """The JSON schema of one kind of document, as people write it."""
    return {"$schema": DIALECT, "$id": f"https://cohort.dev/v1alpha1/{kind}.json"} | model(kind).model_json_schema()
