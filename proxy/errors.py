"""Errors of the data plane by blame: whose fault it is decides the answer and the counter."""

from __future__ import annotations


class ProxyError(Exception):
    """What went wrong with one exchange.

    Attributes:
        status: The status code that the client gets.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class DownstreamError(ProxyError):
    """The client's fault: it gets ``status``, then its connection is closed."""


class UpstreamError(ProxyError):
    """The service's fault.

    Attributes:
        kind: The label of ``cohort_upstream_failures_total``: connect, timeout, reset, truncated, protocol or overflow.
    """

    def __init__(self, kind: str, message: str, status: int = 502) -> None:
        super().__init__(status, message)
        self.kind = kind


class InternalError(ProxyError):
    """Our own fault, or a limit of this proxy that is reached."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(status, message)
