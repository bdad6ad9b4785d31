"""``cohort schema``: what an editor needs to complete and check a document."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from controller.cli.documents import KINDS, model
from controller.cli.output import emit

ACTION = "RolloutAction"  # nobody writes one into a file: people's commands make them in a cluster
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _kind(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The kind as documents spell it."""
    found = [kind for kind in (*KINDS, ACTION) if kind.lower() == str(value).lower()]
    if value is not None and not found:
        raise click.BadParameter(f"expected one of {', '.join(KINDS)}, got {value!r}")
    return found[0] if found else None


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(kind) for kind in KINDS if kind.lower().startswith(incomplete.lower())]


@click.command()
@click.argument("kind", required=False, callback=_kind, shell_complete=_complete)
@click.option("--crd", is_flag=True, help="As CustomResourceDefinitions, for a cluster's API server.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Form.  [default: json; yaml with --crd]")
def command(kind: str | None, crd: bool, output: str | None) -> None:
    """Print the JSON schema of the document KIND; without KIND those of all, by kind.

    KIND is CanaryRollout, AnalysisTemplate, Plan, ProxySettings or ControllerSettings, in whatever case.

    A schema has the fields, types and bounds. 'cohort lint' checks also what holds between fields. With --crd that is
    in it too, and the kinds are those of a cluster: CanaryRollout, RolloutAction and AnalysisTemplate.

    \b
    Example:
      cohort schema --crd | kubectl apply --server-side -f -
    """
    if crd:
        _definitions(kind, output or "yaml")
    elif kind == ACTION:
        raise click.UsageError(f"{ACTION} is a cluster's only: see --crd", click.get_current_context())
    else:
        emit(schema(kind) if kind else {name: schema(name) for name in KINDS}, output or "json")


def _definitions(kind: str | None, output: str) -> None:
    """The CustomResourceDefinition of one kind, or all: one document each, or one list of them."""
    from controller import crd

    made = [crd.definition(resource) for resource in crd.RESOURCES if kind in (None, resource.kind)]
    if not made:
        raise click.UsageError(f"{kind} is no resource of a cluster", click.get_current_context())
    if output == "json":
        emit(made[0] if kind else {"apiVersion": "v1", "kind": "List", "items": made}, "json")
        return
    click.echo("---\n".join(crd.text(definition) for definition in made), nl=False)


def schema(kind: str) -> dict[str, object]:
    """The JSON schema of one kind of document, as people write it."""
    return {"$schema": DIALECT, "$id": f"https://cohort.dev/v1alpha1/{kind}.json"} | model(kind).model_json_schema()
