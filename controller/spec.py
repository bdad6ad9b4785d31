"""The documents that a team writes: CanaryRollout, AnalysisTemplate, and the settings of one controller.

The very documents that a cluster will use. The parts that a rollout shares with a plan (users, routes, preview,
explain) are the plan's own models. What one document cannot know about another is checked by `cross_faults`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import re2
from pydantic import AfterValidator, Field, model_validator

from controller import condition
from controller.version import RevisionFrom, Version
from proxy.document import Document, DocumentError, Duration, Fault, Percent, duration_text, load, refuse, validate
from proxy.plan import (
    MAX_FIELDS,
    NAME,
    Breaker,
    Explain,
    FieldMatch,
    HeaderRoute,
    MintSource,
    Mirror,
    Name,
    OnArmDown,
    Preview,
    Routes,
    Token,
    Users,
    UserSource,
    Value,
    compile_regex,
    route_faults,
    user_faults,
)

ARMS = ("stable", "canary")
API_VERSION: Literal["cohort.dev/v1alpha1"] = "cohort.dev/v1alpha1"
ApiVersion = Literal["cohort.dev/v1alpha1"]

RolloutName = Annotated[str, Field(pattern=NAME, max_length=52)]


class Pause(Document):
    """Waits for a time, or without a duration until somebody promotes.

    Attributes:
        duration: How long, from the moment every proxy has acknowledged the step.
    """

    duration: Annotated[Duration, Field(gt=0)] | None = None


class TemplateRef(Document):
    """An AnalysisTemplate by name, of the rollout's own namespace or of none.

    Attributes:
        template_name: An AnalysisTemplate's name; the rollout's own namespace comes before one without.
    """

    template_name: Name


class Analysis(Document):
    """Templates whose metrics are measured together.

    Attributes:
        templates: Whose metrics are measured, all at once.
    """

    templates: tuple[TemplateRef, ...] = Field(min_length=1, max_length=8)

    @model_validator(mode="after")
    def _check(self) -> Analysis:
        names = self.names
        refuse(
            [
                Fault(f"templates[{i}].templateName", f"{name} is listed twice")
                for i, name in enumerate(names)
                if name in names[:i]
            ]
        )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the templates, in order."""
        return tuple(ref.template_name for ref in self.templates)


class Background(Analysis):
    """An analysis beside the steps, from one of them to the end of the rollout.

    Attributes:
        templates: Whose metrics are measured, all at once.
        starting_step: Index of the step, from 0.
    """

    starting_step: Annotated[int, Field(ge=0, le=99)] = 0


class HeaderValue(Document):
    """What a header's value must look like; regex is RE2 and must match the whole value.

    Attributes:
        exact: The whole value.
        prefix: How it begins.
        regex: RE2; the whole value must match.
    """

    exact: Value | None = None
    prefix: Value | None = None
    regex: Value | None = None

    @model_validator(mode="after")
    def _check(self) -> HeaderValue:
        if sum(value is not None for value in (self.exact, self.prefix, self.regex)) != 1:
            raise ValueError("exactly one of exact, prefix and regex is needed")
        if self.regex is not None:
            compile_regex(self.regex)
        return self


class HeaderMatch(Document):
    """One header of a header route.

    Attributes:
        header_name: Case does not matter.
        header_value: What the value must look like.
    """

    header_name: Token
    header_value: HeaderValue

    @property
    def field(self) -> FieldMatch:
        """The match as a plan has it."""
        value = self.header_value
        if value.exact is not None:
            return FieldMatch(name=self.header_name, type="Exact", value=value.exact)
        if value.prefix is not None:
            return FieldMatch(name=self.header_name, type="Prefix", value=value.prefix)
        return FieldMatch(name=self.header_name, type="RegularExpression", value=value.regex)


class SetHeaderRoute(Document):
    """Whoever sends the headers gets the canary. Without ``match`` the route of this name is removed.

    Attributes:
        name: Unique among those set.
        match: All must match. None: the route of this name is removed.
    """

    name: Name
    match: Annotated[tuple[HeaderMatch, ...], Field(max_length=MAX_FIELDS)] = ()

    @property
    def route(self) -> HeaderRoute | None:
        """The route as a plan has it; None removes it."""
        return HeaderRoute(name=self.name, matches=tuple(match.field for match in self.match)) if self.match else None


class Step(Document):
    """One step of a rollout: exactly one of the four.

    Attributes:
        set_weight: Per cent of users for the canary; decimals as text, "0.25".
        pause: Waits.
        analysis: Measures, and goes on if it was good.
        set_header_route: Whoever sends these headers gets the canary.
    """

    set_weight: Percent | None = None
    pause: Pause | None = None
    analysis: Analysis | None = None
    set_header_route: SetHeaderRoute | None = None

    @model_validator(mode="after")
    def _check(self) -> Step:
        kinds = (self.set_weight, self.pause, self.analysis, self.set_header_route)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("exactly one of setWeight, pause, analysis and setHeaderRoute is needed")
        return self

    def __str__(self) -> str:
        if self.set_weight is not None:
            return f"setWeight {self.set_weight / 100:g}"
        if self.pause is not None:
            return f"pause {duration_text(self.pause.duration)}" if self.pause.duration else "pause"
        if self.analysis is not None:
            return f"analysis {', '.join(self.analysis.names)}"
        assert self.set_header_route is not None  # exactly one is set
        return f"setHeaderRoute {self.set_header_route.name}"


class Canary(Document):
    """How a new revision gets its users.

    Attributes:
        steps: Done one after another; after the last one the canary is promoted.
        analysis: Measurements beside the steps. Absent: only steps of their own measure.
    """

    steps: tuple[Step, ...] = Field(min_length=1, max_length=100)
    analysis: Background | None = None

    @model_validator(mode="after")
    def _check(self) -> Canary:
        faults = list(_header_route_faults(self.steps))
        if self.analysis is not None and self.analysis.starting_step >= len(self.steps):
            faults.append(
                Fault(
                    "analysis.startingStep",
                    f"there are steps 0 to {len(self.steps) - 1}, got {self.analysis.starting_step}",
                )
            )
        refuse(faults)
        return self


def _header_route_faults(steps: Iterable[Step]) -> Iterable[Fault]:
    """A removal of what is not there, or a second one of a name, and more routes than a plan has room for."""
    names: set[str] = set()
    removed: set[str] = set()
    count = 0
    for i, step in enumerate(steps):
        change = step.set_header_route
        if change is None:
            continue
        if change.match:
            names.add(change.name)
            count += 1
        elif change.name not in names:
            yield Fault(f"steps[{i}].setHeaderRoute.name", f"removes {change.name}, which no step before has set")
        elif change.name in removed:
            yield Fault(f"steps[{i}].setHeaderRoute.name", f"removes {change.name}, as a step before does")
        else:
            removed.add(change.name)
        if count == 17:
            yield Fault(f"steps[{i}].setHeaderRoute", "at most 16 steps may set a header route")


class Strategy(Document):
    """The way to a new revision.

    Attributes:
        canary: Steps.
    """

    canary: Canary


class RolloutSpec(Document):
    """What a team wants of one service.

    Attributes:
        stable: The version that everyone else gets.
        canary: The version to try; absent: none yet, cohort start names one.
        revision_from: Where revisions behind Services are read from; absent: from the images of their pods.
        workload_ref: Refused: cohort moves users between versions that run already, and manages no workloads.
        users: Who is one user; the first key present counts. Default: a minted cookie, which every browser
            keeps.
        routes: Choices beside the weights, in the order listed.
        preview: The page and the links that pin a browser to a version.
        mirror: Copies of users' requests for the canary; absent: none.
        explain: When answers say which version they are from: asked for by the request, always, or never.
        strategy: The way to a new revision.
        on_arm_down: What users of a version that cannot be reached get: stable, or an error.
        breaker: The line above which a proxy aborts by itself; absent: no line.
    """

    stable: Version
    canary: Version | None = None
    revision_from: RevisionFrom | None = None
    workload_ref: dict[str, Any] | None = None
    users: Users = (UserSource(mint=MintSource()),)
    routes: Routes = ()
    preview: Preview = Preview()
    mirror: Mirror | None = None
    explain: Explain = "OnRequest"
    strategy: Strategy
    on_arm_down: OnArmDown = "Stable"
    breaker: Breaker | None = None

    @model_validator(mode="after")
    def _check(self) -> RolloutSpec:
        refuse(user_faults(self.users) + route_faults(self.routes, ARMS) + list(self._overlaps()))
        if self.mirror and self.mirror.arm != "canary":
            refuse([Fault("mirror.arm", f"expected canary, the only arm beside stable, got {self.mirror.arm!r}")])
        refuse(list(self._cluster_faults()))
        return self

    def _overlaps(self) -> Iterable[Fault]:
        """One place cannot be two versions at once: a share of users would be split by nothing."""
        if self.canary is None:
            return
        is_same = bool(self.stable.revision) and self.canary.revision == self.stable.revision
        for fault in () if is_same else self.canary.shared(self.stable):
            yield Fault(f"canary.{fault.path}", f"{fault.message} is stable's too, yet of another revision")

    def _cluster_faults(self) -> Iterable[Fault]:
        if self.workload_ref is not None:
            yield Fault(
                "workloadRef",
                "cohort manages no workloads: run both versions, and name their Services as stable and canary",
            )
        if self.revision_from and not self.stable.service and not (self.canary and self.canary.service):
            yield Fault("revisionFrom", "has no meaning without a service: addresses and dns have revision beside them")


class RolloutMetadata(Document):
    """Which rollout this is. The name is part of a cookie's name.

    Attributes:
        name: Part of the cookies' names, hence shorter than other names.
        namespace: As Kubernetes.
    """

    name: RolloutName
    namespace: Name = "default"


class CanaryRollout(Document):
    """One service's rollout."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["CanaryRollout"] = "CanaryRollout"
    metadata: RolloutMetadata
    spec: RolloutSpec

    @property
    def key(self) -> str:
        """``namespace/name``, as headers and metrics have it."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def revisions(self) -> tuple[str, str | None]:
        """Of stable and of the canary."""
        return self.spec.stable.revision, self.spec.canary.revision if self.spec.canary else None


class CohortProvider(Document):
    """A number from the proxies' own counters, of users whom the split placed.

    Attributes:
        metric: Shares are 0 to 1, percentiles seconds to the response head, requests and users numbers.
        arm: Whose. The canary is what is on trial.
        window: How far back to count.
        minimum_requests: Fewer requests in the window are no measurement; minimum_users likewise.
        minimum_users: Fewer distinct users are no measurement either: with less one person's trouble decides.
    """

    metric: Literal["successRate", "errorRate", "p50", "p90", "p99", "requests", "users"]
    arm: Literal["stable", "canary"] = "canary"
    window: Annotated[Duration, Field(ge=1, le=3600)] = 60.0  # Argo's examples look at one to five minutes
    minimum_requests: Annotated[int, Field(ge=0, le=10**9)] = 50  # 59 without a failure show 95 % success
    minimum_users: Annotated[int, Field(ge=0, le=10**9)] = 5  # fewer, and one person's trouble decides


class Provider(Document):
    """Where a metric comes from.

    Attributes:
        cohort: The proxies' own counters.
    """

    cohort: CohortProvider


def _condition(text: str) -> str:
    condition.parse(text)
    return text


ConditionText = Annotated[
    str,
    Field(min_length=1, max_length=condition.MAX_LENGTH, json_schema_extra={"format": "condition"}),
    AfterValidator(_condition),
]
Limit = Annotated[int, Field(ge=0, le=10_000)]


class Metric(Document):
    """One number, how often it is measured, and what it must be: Argo's fields with Argo's arithmetic.

    Attributes:
        name: Unique among the templates of one analysis.
        interval: Between two measurements. Absent: there is one.
        initial_delay: Before the first measurement. 0: at once; the window reaches back anyway.
        count: Measurements to take; absent: one without interval, else without end.
        success_condition: True is a success; false is a failure where no failureCondition is given.
        failure_condition: Likewise; true is a failure. Neither true: inconclusive.
        failure_limit: More failed measurements than this fail the metric; -1: none does.
        inconclusive_limit: More inconclusive measurements than this pause the rollout. Argo's default.
        consecutive_error_limit: More errors in a row than this are no signal any more: a DataFault.
        consecutive_success_limit: So many successes in a row end the metric as successful; 0: not asked for.
        provider: Where the number comes from.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=63)]
    interval: Annotated[Duration, Field(ge=1, le=86_400)] | None = None
    initial_delay: Annotated[Duration, Field(ge=0, le=86_400)] = 0.0
    count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    success_condition: ConditionText | None = None
    failure_condition: ConditionText | None = None
    failure_limit: Annotated[int, Field(ge=-1, le=10_000)] = 0  # Argo's default
    inconclusive_limit: Limit = 0  # Argo's default
    consecutive_error_limit: Limit = 4  # Argo's default
    consecutive_success_limit: Limit = 0  # Argo's default
    provider: Provider

    @model_validator(mode="after")
    def _check(self) -> Metric:
        faults = []
        if self.success_condition is None and self.failure_condition is None:
            faults.append(Fault("", "successCondition or failureCondition is needed: without one any result is good"))
        if self.interval is None and (self.count or 1) > 1:
            faults.append(Fault("interval", f"is needed to measure {self.count} times"))
        for name, limit in (
            ("failureLimit", self.failure_limit),
            ("inconclusiveLimit", self.inconclusive_limit),
            ("consecutiveSuccessLimit", self.consecutive_success_limit),
        ):
            if self.count is not None and limit > self.count:
                faults.append(Fault(name, f"is {limit}, but only {self.count} measurements are taken"))
        refuse(faults)
        return self

    @property
    def effective_count(self) -> int | None:
        """Measurements to take; None: without end."""
        return 1 if self.count is None and self.interval is None else self.count

    @property
    def is_endless(self) -> bool:
        """Whether good measurements never end it."""
        return self.effective_count is None and self.consecutive_success_limit == 0


class DryRun(Document):
    """Metrics that are measured and shown but decide nothing: those whose name the RE2 expression is found in.

    Attributes:
        metric_name: RE2; a metric is in dry run if this is found in its name.
    """

    metric_name: Annotated[str, Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _check(self) -> DryRun:
        compile_regex(self.metric_name)
        return self

    def covers(self, metric: str) -> bool:
        """Whether a metric of this name is in dry run."""
        return re2.search(self.metric_name, metric) is not None


class TemplateSpec(Document):
    """The metrics of a template.

    Attributes:
        metrics: All must be good.
        dry_run: Metrics that are measured and shown but decide nothing. None: all decide.
    """

    metrics: tuple[Metric, ...] = Field(min_length=1, max_length=32)
    dry_run: Annotated[tuple[DryRun, ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _check(self) -> TemplateSpec:
        names = [metric.name for metric in self.metrics]
        faults = [Fault(f"metrics[{i}].name", f"{x} is used twice") for i, x in enumerate(names) if x in names[:i]]
        for i, rule in enumerate(self.dry_run):
            if not any(rule.covers(name) for name in names):
                faults.append(Fault(f"dryRun[{i}].metricName", f"no metric is called {rule.metric_name!r}"))
        refuse(faults)
        return self

    def is_dry(self, metric: str) -> bool:
        """Whether a metric of this name decides nothing."""
        return any(rule.covers(metric) for rule in self.dry_run)


class TemplateMetadata(Document):
    """Which template this is; without a namespace it serves every one.

    Attributes:
        name: What templateName says.
        namespace: Whose rollouts may use it. Absent: everybody's.
    """

    name: Name
    namespace: Name | None = None


class AnalysisTemplate(Document):
    """Metrics by a name that steps refer to."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["AnalysisTemplate"] = "AnalysisTemplate"
    metadata: TemplateMetadata
    spec: TemplateSpec


_API_LISTEN = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]*):([0-9]{1,5})")


class ProxyAddress(Document):
    """One proxy's admin API: ``unix:PATH``, or ``http://HOST:PORT`` with its token."""

    address: Annotated[str, Field(pattern=r"^(unix:.+|http://[^/?#@\s]+:[0-9]{1,5})$", max_length=512)]
    token_file: str | None = None

    @model_validator(mode="after")
    def _check(self) -> ProxyAddress:
        if not self.address.startswith("unix:") and self.token_file is None:
            refuse([Fault("tokenFile", f"is needed for {self.address}: an admin API on a port asks for its token")])
        return self


class Api(Document):
    """Where the controller's own API listens. A token is needed beyond loopback."""

    listen: str = "127.0.0.1:8090"
    token_file: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Api:
        match = _API_LISTEN.fullmatch(self.listen)
        if not match or int(match[2]) > 65535:
            refuse([Fault("listen", f"expected IPV4:PORT or [IPV6]:PORT, got {self.listen!r}")])
        elif match[1] not in ("127.0.0.1", "[::1]") and self.token_file is None:
            refuse([Fault("tokenFile", f"is needed for {self.listen}: without a token only loopback is served")])
        return self

    @property
    def host_port(self) -> tuple[str, int]:
        """Host (empty: every address) and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def _listen(text: str) -> str:
    match = _API_LISTEN.fullmatch(text)
    if match and int(match[2]) <= 65535:
        return text
    raise ValueError(f"expected :PORT, IPV4:PORT or [IPV6]:PORT, got {text!r}")


Listen = Annotated[str, AfterValidator(_listen)]


class KubeMetrics(Document):
    """Where a controller in a cluster tells its numbers, and that it works.

    Attributes:
        listen: Empty: there is no such port.
    """

    listen: Listen | Literal[""] = ":8090"


class Kube(Document):
    """Where a controller works in a cluster.

    Attributes:
        namespace: Of the rollout and of all that belongs to it.
        rollout: Name of the CanaryRollout that its proxies serve.
        lease_duration: Whole seconds. For how long a holder that vanished is waited for.
        lease_name: Of the Lease. Absent: ``cohort-`` and the rollout's name.
        control_service: The headless Service with publishNotReadyAddresses whose pods are the replicas. Absent: the
            rollout's name and ``-control``.
        control_port: Of that Service.
        control_ca_file: The certificate that replicas show. Absent: tls.crt in keysDir.
        control_token_file: What they want to hear. Absent: control in keysDir.
        account_dir: Token and certificate of the ServiceAccount.
        metrics: For Prometheus.
    """

    namespace: Name
    rollout: RolloutName
    lease_duration: Annotated[Duration, Field(ge=2, le=300)] = 15.0  # as client-go's
    lease_name: Name | None = None
    control_service: Name | None = None
    control_port: Annotated[int, Field(ge=1, le=65535)] = 8083
    control_ca_file: str | None = None
    control_token_file: str | None = None
    account_dir: str = "/var/run/secrets/kubernetes.io/serviceaccount"
    metrics: KubeMetrics = KubeMetrics()

    @property
    def lease(self) -> str:
        """Name of the Lease."""
        return self.lease_name or f"cohort-{self.rollout}"

    @property
    def control(self) -> str:
        """Name of the replicas' Service."""
        return self.control_service or f"{self.rollout}-control"

    def control_ca(self, keys_dir: str) -> str:
        """File of the certificate that replicas show."""
        return self.control_ca_file or f"{keys_dir}/tls.crt"

    def control_token(self, keys_dir: str) -> str:
        """File of the token that replicas want."""
        return self.control_token_file or f"{keys_dir}/control"


class ControllerSettings(Document):
    """All that one controller is told at its start; paths are relative to the settings file."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["ControllerSettings"] = "ControllerSettings"
    rollouts: str = "rollouts"
    state: str = "controller.db"
    proxies: Annotated[tuple[ProxyAddress, ...], Field(min_length=1, max_length=64)]
    keys_dir: str = "keys"
    api: Api = Api()
    poll_interval: Annotated[Duration, Field(ge=0.05, le=10)] = 1.0  # a failure is seen within a second or two
    kube: Kube | None = None

    @model_validator(mode="after")
    def _check(self) -> ControllerSettings:
        names = [proxy.address for proxy in self.proxies]
        refuse([Fault(f"proxies[{i}].address", f"{x} is listed twice") for i, x in enumerate(names) if x in names[:i]])
        return self


KINDS: dict[str, type[CanaryRollout] | type[AnalysisTemplate]] = {
    "CanaryRollout": CanaryRollout,
    "AnalysisTemplate": AnalysisTemplate,
}


def parse_document(text: bytes | str) -> CanaryRollout | AnalysisTemplate:
    """Read one document of the rollouts' folder by its ``kind``.

    Raises:
        DocumentError: With every fault and its field path.
    """
    return validate_document(load(text))


def validate_document(value: Any) -> CanaryRollout | AnalysisTemplate:
    """Validate plain values by their ``kind``: one document of the rollouts' folder.

    Raises:
        DocumentError: With every fault and its field path.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise DocumentError([Fault("kind", f"expected one of {', '.join(KINDS)}, got {kind!r}")])
    document = validate(KINDS[kind], value)
    if isinstance(document, CanaryRollout) and (faults := _named_twice(document.spec)):
        raise DocumentError(faults)
    return document


def _named_twice(spec: RolloutSpec) -> list[Fault]:
    """Of a version behind a Service the pods say the revision; only a controller fills it in."""
    return [
        Fault(f"spec.{arm}.revision", "is read from the pods of the service: remove it, or see revisionFrom")
        for arm, version in (("stable", spec.stable), ("canary", spec.canary))
        if version and version.service and version.revision
    ]


def find_template(name: str, namespace: str, templates: Iterable[AnalysisTemplate]) -> AnalysisTemplate | None:
    """The template that a rollout in a namespace means: its namespace's own before one without a namespace."""
    found = {t.metadata.namespace: t for t in templates if t.metadata.name == name}
    return found.get(namespace) or found.get(None)


def analyses(canary: Canary) -> dict[str, Analysis]:
    """Every analysis of a strategy by its field path relative to the strategy."""
    found: dict[str, Analysis] = {f"steps[{i}].analysis": s.analysis for i, s in enumerate(canary.steps) if s.analysis}
    if canary.analysis is not None:
        found["analysis"] = canary.analysis
    return found


def cross_faults(rollout: CanaryRollout, templates: Iterable[AnalysisTemplate]) -> list[Fault]:
    """What is wrong between a rollout and the templates beside it, with paths in the rollout.

    Templates that are not there, metrics of one name in two templates, and a step that could never end.
    """
    faults = []
    known = list(templates)
    for path, analysis in analyses(rollout.spec.strategy.canary).items():
        metrics: dict[str, str] = {}
        for i, name in enumerate(analysis.names):
            where = f"spec.strategy.canary.{path}.templates[{i}].templateName"
            template = find_template(name, rollout.metadata.namespace, known)
            if template is None:
                faults.append(Fault(where, f"no AnalysisTemplate {name} in namespace {rollout.metadata.namespace}"))
                continue
            for metric in template.spec.metrics:
                if metric.name in metrics:
                    faults.append(Fault(where, f"metric {metric.name} is in {metrics[metric.name]} too"))
                metrics[metric.name] = name
                if metric.is_endless and not isinstance(analysis, Background):
                    faults.append(Fault(where, f"metric {metric.name} has no count: the step would never end"))
    return faults


def template_metrics(rollout: CanaryRollout, templates: Iterable[AnalysisTemplate]) -> Mapping[str, TemplateSpec]:
    """The specs of all templates that a rollout refers to, by name; `cross_faults` must have found none missing."""
    known = list(templates)
    names = {name for analysis in analyses(rollout.spec.strategy.canary).values() for name in analysis.names}
    found = {name: find_template(name, rollout.metadata.namespace, known) for name in sorted(names)}
    return {name: template.spec for name, template in found.items() if template is not None}
