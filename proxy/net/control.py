"""The control port, in a cluster: ``GET /state /stats`` and ``POST /abort``, for the controllers of the other replicas.

They have the installation's own certificate pinned, and its token. Plans are not taken here: each replica's controller
feeds its own proxy, by the admin API.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from proxy.document import MAX_DOCUMENT_BYTES
from proxy.net.admin import AccessRules, Handler, errors_are_json, replica_routes
from proxy.net.credentials import Pair, control_context
from proxy.net.start import read_token

if TYPE_CHECKING:
    from proxy.net.supervisor import Supervisor


def control_app(
    supervisor: Supervisor, token_file: Path, now: Callable[[], float], admit: Callable[[web.Request], None]
) -> web.Application:
    """The application of the control port.

    Args:
        token_file: Read at each request, so that a token can be replaced; one that cannot be read leaves the last.
        now: Monotonic seconds.
        admit: Called for each request that may be made.
    """
    rules = AccessRules(read_token(token_file, "control.tokenFile"), now, hosts=frozenset())

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            rules.expect(read_token(token_file, "control.tokenFile"))
        except ValueError:
            pass
        rules.check(request)
        admit(request)
        return await handler(request)

    app = web.Application(middlewares=[errors_are_json, guard], client_max_size=MAX_DOCUMENT_BYTES)
    app.add_routes(replica_routes(supervisor))
    return app


class ControlTls:
    """What the port shows.

    Attributes:
        context: For the server; it stays the same when the certificate is renewed.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.context: ssl.SSLContext = control_context(pair)

    def renew(self, pair: Pair | None) -> None:
        """Show another certificate from the next handshake on."""
        if pair is not None and pair != self._pair:
            control_context(pair, self.context)
            self._pair = pair
