"""All front ends on one port: people's under /v1, guests' under /context/v1."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from vws.frontends.metadata.app import PREFIX, Metadata
from vws.frontends.rest.app import close_app, create_app
from vws.service import Services


class Serving:
    """One ASGI app for one event loop."""

    def __init__(self, services: Services, *, ca_pem: bytes) -> None:
        self.rest: Any = create_app(services, ca_pem=ca_pem)
        self.metadata = Metadata(services.contexts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self.rest
        if scope["type"] == "lifespan":
            self.metadata.open()
        elif scope["type"] == "http" and scope["path"].startswith(PREFIX):
            app = self.metadata
        await app(scope, receive, send)

    def close(self) -> None:
        """Let all who wait go at once. From any thread, and from a signal handler."""
        self.metadata.close()
        close_app(self.rest)
