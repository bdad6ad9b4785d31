"""What the rollout is told, and what it asks for in return: frozen values, no I/O.

Events come in: observations of proxies and documents, the clock, measurements, what people ask for. Commands go out;
whoever executes them feeds the results back as events. Every command may be executed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controller.analysis import Outcome, Reading
from controller.spec import CanaryRollout, CohortProvider, TemplateSpec
from controller.state import ProxyView
from controller.version import Version


class Verb(StrEnum):
    """What a person may ask for."""

    START = "Start"
    PROMOTE = "Promote"
    PROMOTE_FULL = "PromoteFull"
    PAUSE = "Pause"
    RESUME = "Resume"
    ABORT = "Abort"
    RETRY = "Retry"
    SET_WEIGHT = "SetWeight"


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody asks for something.

    Attributes:
        uid: Of this request, for the record.
        revision: The one that is meant; None: whichever is on trial.
        version: For Start.
        weight_bp: For SetWeight.
        reason: For Abort, in the words of whoever asks.
    """

    verb: Verb
    uid: str
    by: str
    revision: str | None = None
    version: Version | None = None
    weight_bp: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Documented:
    """The document, or a template that it refers to, is there in a good version; the same one again changes nothing."""

    document: CanaryRollout
    templates: Mapping[str, TemplateSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Missing:
    """The document is no longer there."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """Which split secrets there are.

    Attributes:
        offered: Id of the one that a new revision uses.
        known: Ids of all.
    """

    offered: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """A proxy answered; the view's `seen` is the time of the answer."""

    view: ProxyView


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A proxy did not answer, or (``refused``) would not take the plan."""

    address: str
    error: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class LatchFailed:
    """A proxy could not be latched; it will be tried again."""

    address: str
    error: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A reading that was asked for.

    Attributes:
        attempt: Of the trial that it was asked for; ``index`` likewise, None for the analysis in the background.
    """

    attempt: int
    index: int | None
    metric: str
    reading: Reading


Event = Asked | Documented | Missing | Keyed | Observed | Unanswered | LatchFailed | Tick | Measured


@dataclass(frozen=True, slots=True)
class SetLatch:
    """Latch every proxy that does not show it yet; before anything else, also before the state is stored."""

    id: str
    revision: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Give every proxy the plan in force."""

    generation: int


@dataclass(frozen=True, slots=True)
class Measure:
    """Read a metric and answer with `Measured`."""

    attempt: int
    index: int | None
    metric: str
    provider: CohortProvider


@dataclass(frozen=True, slots=True)
class Record:
    """Keep a measurement for people to look at."""

    revision: str
    index: int | None
    metric: str
    value: float | None
    outcome: Outcome
    message: str


@dataclass(frozen=True, slots=True)
class Tell:
    """An event for people: one word of reason and a sentence."""

    reason: str
    message: str
    is_warning: bool = False


Command = SetLatch | Publish | Measure | Record | Tell
