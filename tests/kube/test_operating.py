"""What people have of an installation: commands, rights and numbers, against controllers and proxies as pods."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.chart.queries import labels, selectors, shown
from tests.kube import prometheus, scraped
from tests.kube.cluster import Cluster
from tests.kube.installation import NAME, Installation, prepared
from tests.kube.people import VERBS, Person, bind, bot, person
from tests.kube.pods.session import PodRunner

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs/rbac.md").read_text()
METRICS = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
STEPS: list[dict[str, Any]] = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]
SEEN = [f"monitoring.{name}.enabled=true" for name in ("podMonitor", "serviceMonitor", "prometheusRule", "dashboards")]
TARGET = {"namespace", "pod", "job", "instance", "container"}  # labels that Prometheus adds to what it scrapes
PATIENCE = "100s"  # of a command, on a machine that does much else
NUMBERS = count(2)


@pytest.fixture(scope="module")
def shop(definitions: Cluster, pods: PodRunner) -> Iterator[Installation]:
    """One installation for all tests here, all that can be seen of it switched on; `trial` puts one on trial."""
    scraped.define(definitions)
    with prepared(definitions, pods) as shop:
        shop.values["proxy"] |= {"replicas": 2, "tlsSecrets": ["shop-tls"]}
        shop.space.apply(certificate("shop-tls"))
        asyncio.run(shop.install(*SEEN, strategy={"canary": {"steps": STEPS}}))
        for role in ("view", "edit", "admin"):
            bind(definitions, shop.namespace, role, f"shop-{role}")
        yield shop


def certificate(name: str) -> dict[str, Any]:
    """A Secret for HTTPS."""
    made = trustme.CA().issue_cert("shop.example")
    chain = "".join(blob.bytes().decode() for blob in made.cert_chain_pems)
    data = {"tls.crt": chain, "tls.key": made.private_key_pem.bytes().decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "stringData": data,
    }


@pytest.fixture
def trial(shop: Installation) -> str:
    """A new revision at its first pause; its name."""
    version = f"v{next(NUMBERS)}"
    asyncio.run(shop.release(version))
    asyncio.run(shop.until(lambda s: s.get("phase") == "Paused" and s["revision"].get("canary") == version))
    return version


def somebody(shop: Installation, name: str, *groups: str) -> Person:
    return person(shop.cluster, shop.namespace, name, *groups)


def paused_at(shop: Installation, weight: str) -> None:
    asyncio.run(shop.until(lambda s: s["phase"] == "Paused" and s["weight"]["programmed"] == weight))


def test_a_rollout_is_watched_and_steered(shop: Installation, trial: str) -> None:
    """Every command, by somebody with `edit` and no more; each action by the controller that holds the Lease."""
    anna = somebody(shop, "anna", "shop-edit")
    assert anna.good("get", "-o", "wide").splitlines()[1].split()[:3] == [shop.namespace, NAME, "Paused"]
    assert anna.good("get", NAME, "-o", "name") == f"canaryrollout.cohort.dev/{NAME}\n"
    assert json.loads(anna.good("get", "-o", "json"))["items"][0]["status"]["revision"]["canary"] == trial

    said = anna.good("set", "weight", "35", "--timeout", PATIENCE)
    assert said == f"{shop.namespace}/{NAME}: 35 % of users go to {trial}, and it is paused there\n"
    assert shop.status["weight"]["programmed"] == "35.00"
    anna.good("promote", "--timeout", PATIENCE)
    paused_at(shop, "60.00")
    anna.good("pause", "--timeout", PATIENCE)
    refusal = anna.bad(1, "retry", "--timeout", PATIENCE)
    assert refusal == f"Error: {shop.status['actions'][-1]['message']}\n"
    assert "Weight:    60.00 %" in anna.good("status")
    anna.good("abort", "--reason", "it burns", "--timeout", PATIENCE)
    assert anna.run("status", NAME, "-w", "--timeout", PATIENCE).returncode == 1

    anna.good("retry", "--timeout", PATIENCE)
    paused_at(shop, "20.00")
    assert "within 2 s" in anna.bad(4, "status", "-w", "--timeout", "2s")
    anna.good("promote", "--full", "--timeout", PATIENCE)
    with anna.following("status", "-w") as process:
        asyncio.run(shop.promote_stable(trial))
        assert process.wait(150) == 0
    assert "no revision is on trial" in anna.bad(1, "abort")

    told = [line.split(maxsplit=3)[2:] for line in anna.good("events").splitlines()]
    reasons = [reason for reason, _ in told]
    found = {"SetWeight", "Promote", "Pause", "Aborted", "Abort", "Retry", "PromoteFull", "Promoted"} & set(reasons)
    assert len(found) >= 5  # one that the API server is slow to take is lost, for nothing hangs on it
    assert all(text == f"{trial} by anna: it burns" for reason, text in told if reason == "Aborted")


def test_people_with_the_cluster_s_own_roles(shop: Installation) -> None:
    """docs/rbac.md: who may only look is told what he lacks; nobody reaches beyond the namespace."""
    victor, edith, ada, nobody = (
        somebody(shop, f"{name}-user", f"shop-{name}") for name in ("view", "edit", "admin", "no")
    )
    assert (victor.allowed(), nobody.allowed()) == (set(), set())
    assert edith.allowed() == ada.allowed() == set(VERBS)
    assert NAME in victor.good("get")
    assert "RolloutStarted" in victor.good("events")
    assert 'cannot list resource "canaryrollouts" in API group "cohort.dev" at the cluster' in edith.bad(1, "get", "-A")
    assert 'User "no-user" cannot get resource "canaryrollouts"' in nobody.bad(1, "status", NAME)
    assert "requestedBy: expected edit-user, got anna" in edith.refused("Abort", by="anna")


def examples(shop: Installation) -> list[dict[str, Any]]:
    """The manifests of docs/rbac.md, about this installation."""
    text = "---\n".join(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    text = text.replace("namespace: shop", f"namespace: {shop.namespace}").replace("[checkout]", f"[{NAME}]")
    return list(yaml.safe_load_all(text))


def test_the_page_s_examples_give_what_they_say(shop: Installation, trial: str) -> None:
    """docs/rbac.md: a team that may abort and not promote, a bot that may promote one rollout."""
    shop.cluster.apply(*examples(shop), namespace=shop.namespace)
    viewer = somebody(shop, "view-user", "shop-view")
    assert 'cannot create resource "rolloutactions" in API group "cohort.dev"' in viewer.bad(1, "abort")
    oncall, team = somebody(shop, "olga", "on-call"), somebody(shop, "tom", "shop-team")
    program = bot(shop.cluster, shop.namespace, "checkout-bot")
    assert (oncall.allowed(), team.allowed(), program.allowed()) == ({"Abort"}, set(VERBS), {"Promote"})
    refusal = f"user olga may not Promote {NAME}: that needs the verb create on canaryrollouts/promote in cohort.dev"
    assert refusal in oncall.bad(1, "promote")
    assert "may not Promote another" in program.refused("Promote", rollout="another")
    program.good("promote", NAME, "--timeout", PATIENCE)
    paused_at(shop, "60.00")
    assert f"user {program.name} may not Abort" in program.bad(1, "abort", NAME)
    oncall.good("events", NAME)
    oncall.good("abort", "--timeout", PATIENCE)
    assert (shop.status["phase"], shop.status["abort"]["by"]) == ("Aborted", "olga")


def test_the_controller_s_rights_are_those_of_the_page(shop: Installation) -> None:
    """docs/rbac.md: line by line."""
    table = PAGE.partition("## The controllers")[2].partition("## People")[0]
    found = set()
    for group, resources, verbs in re.findall(r"^\| (`[\w.]+`|core) \| (.+?) \| (.+?) \|", table, re.MULTILINE):
        name = "" if group == "core" else group.strip("`")
        found |= {(name, kind.strip("`"), verb) for kind in resources.split(", ") for verb in verbs.split(", ")}
    assert found == shop.granted()


@pytest.mark.verdict
def test_the_controller_uses_every_right_and_lacks_none(shop: Installation) -> None:
    """docs/rbac.md, by the audit log; actions that are done are removed when there are more than a dozen."""
    for _ in range(14):
        asyncio.run(shop.action("Resume", revision="of-no-trial"))
    shop.cluster.until(lambda: shop.granted() <= shop.audit()[0])
    assert shop.audit()[1] == set()


def test_every_query_is_about_what_the_pods_tell(shop: Installation, trial: str) -> None:
    """Panels and alerts, by what PodMonitor and ServiceMonitor lead to: names, labels, and values that are fixed."""
    asyncio.run(_used(shop))
    targets = scraped.by_pods(shop)
    assert len(targets) == 4  # two pods, a proxy and a controller in each
    assert scraped.by_services(shop) == targets
    found = asyncio.run(scraped.scrape(shop, targets))
    assert sum(found.values["cohort_controller_lease_held"]) == 1
    assert sum(found.values["cohort_rollout_aborts_total"]) >= 1
    assert max(found.values["cohort_controller_feed_age_seconds"]) < 60
    board = scraped.dashboard(shop)
    queries = [(target["expr"], target["legendFormat"]) for panel in board["panels"] for target in panel["targets"]]
    queries += [(expression, "") for expression in scraped.rules(shop).values()]
    for query, legend in queries:
        hold(shop, found, query, legend)
    names = {selector.name for query, _ in queries for selector in selectors(query)}
    assert sum(name.startswith(("cohort_controller", "cohort_rollout")) for name in names) >= 8


def test_a_prometheus_answers_every_panel_and_works_out_every_alert(
    shop: Installation, trial: str, tmp_path: Path
) -> None:
    """What has series has a result, over windows too; no expression is an error, and the alert fires that should."""
    asyncio.run(_seen(shop, tmp_path))


async def _seen(shop: Installation, folder: Path) -> None:
    async with prometheus.running(shop, folder) as monitor:
        await _used(shop)
        await monitor.until('cohort_rollout_phase{phase="Aborted"} == 1')
        await asyncio.sleep(3)  # two looks at least at all that was counted
        answered = [await _answered(monitor, query) for query in panels(shop)]
        assert sum(answered) > len(answered) / 2
        told = await monitor.rules()
        assert told.keys() == scraped.rules(shop).keys()
        assert {name: rule["lastError"] for name, rule in told.items() if rule["health"] != "ok"} == {}
        assert {name for name, rule in told.items() if rule["state"] == "firing"} == {"CohortAborted"}


def panels(shop: Installation) -> list[str]:
    """Queries of the dashboard, as Grafana sends them."""
    found = [target["expr"] for panel in scraped.dashboard(shop)["panels"] for target in panel["targets"]]
    return [one.replace("$rollout", f"{shop.namespace}/{NAME}").replace("$__rate_interval", "1m") for one in found]


async def _answered(monitor: prometheus.Prometheus, query: str) -> bool:
    """Whether there is a result, which there must be where all series are that it asks for, whatever their values."""
    parts = [await monitor.has(str(selector)) for selector in selectors(query)]
    has_result = await monitor.has(query)
    assert has_result or not all(parts) or re.search("[=<>] *[0-9]", query), query
    return has_result


async def _used(shop: Installation) -> None:
    """Something of everything: users of both versions, connections to the API server that broke, an abort."""
    async with shop.users(20) as users:
        await users.more(60)
        shop.pods.cut()
        await shop.action("Abort")
        await shop.phase("Aborted")
        await users.more(20)


def hold(shop: Installation, found: scraped.Scraped, query: str, legend: str) -> None:
    """A query, its legend, and what is there."""
    known = set(TARGET)
    query = query.replace("$rollout", f"{shop.namespace}/{NAME}")
    for selector in selectors(query):
        assert selector.name in found.declared, (query, sorted(found.declared))
        own = found.label_names(selector.name) or _documented(selector.name)
        known |= own
        for label, operator, value in selector.matchers:
            assert label in own | TARGET, (query, label, own)
            values = {one.get(label) for one in found.labels[selector.name]}
            assert operator != "=" or label in TARGET or not values or value in values, (query, label, values)
    assert labels(query) <= known, query
    assert shown(legend) <= (labels(query) or known), (query, legend)


def _documented(name: str) -> set[str]:
    """Labels of a counter of what has not happened here; the page is held against the sources by unit tests."""
    (told,) = re.findall(rf"^\| `{name}` \| \w+ \| ([^|]*)\|", METRICS, re.MULTILINE)
    return {label.strip() for label in told.split(",")}
