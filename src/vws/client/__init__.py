"""The Python client of a VWS site, as the command line uses it.

    with Client.from_environment() as vws:
        lease = vws.request_lease(groups=[{"image": "demo", "count": 3}], duration_s=3600)
        lease = vws.wait_lease(lease["id"], timeout_s=120)

Answers are plain dicts and lists, as the REST API gives them. Every change is sent under a client token and repeated
under the same one when the connection breaks, so that it happens once however often it was sent. What the site
refuses is raised as `ApiError`; a site that cannot be reached as `ConnectionFailed`.

Importing this module is cheap: the HTTP and WebSocket libraries are imported when they are first needed. Proxies of
the environment are not used, for a site is mostly near and often this machine.
"""

from vws.client.errors import ApiError, ConnectionFailed, VwsClientError
from vws.client.operations import Client
from vws.client.tunnel import Tunnel

__all__ = ["ApiError", "Client", "ConnectionFailed", "Tunnel", "VwsClientError"]
