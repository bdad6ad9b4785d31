"""``cohort schema``: what an editor needs to complete and check a document."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from controller.cli.documents import KINDS, model
from controller.cli.output import emit

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _kind(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The kind as documents spell it."""
    found = [kind for kind in KINDS if kind.lower() == str(value).lower()]
    if value is not None and not found:
        raise click.BadParameter(f"expected one of {', '.join(KINDS)}, got {value!r}")
    return found[0] if found else None


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(kind) for kind in KINDS if kind.lower().startswith(incomplete.lower())]


@click.command()
@click.argument("kind", required=False, callback=_kind, shell_complete=_complete)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="Form.")
def command(kind: str | None, output: str) -> None:
    """Print the JSON schema of the document KIND; without KIND those of all, by kind.

    KIND is CanaryRollout, AnalysisTemplate, Plan, ProxySettings or ControllerSettings, in whatever case.

    A schema has the fields, types and bounds. 'cohort lint' checks also what holds between fields.
    """
    emit(schema(kind) if kind else {name: schema(name) for name in KINDS}, output)


def schema(kind: str) -> dict[str, object]:
    """The JSON schema of one kind of document, as people write it."""
    return {"$schema": DIALECT, "$id": f"https://cohort.dev/v1alpha1/{kind}.json"} | model(kind).model_json_schema()
