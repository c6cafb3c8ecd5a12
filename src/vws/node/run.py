"""How a node begins: by its credentials, one agent for this host or many for simulated nodes; and how a host joins.

`credentials.json` in the node's directory says who this host is to its site:
{"url", "ca": a path, "nodes": [{"id", "name", "token"}]}. The site writes it for
its own nodes, `join` for a second host.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vws import __version__
from vws.core.errors import Conflict, InvalidRequest, Unavailable, VwsError
from vws.node.agent import AgentConfig, NodeAgent
from vws.node.config import FakeConfig, NodeConfig
from vws.node.fake import FakeHypervisor
from vws.node.link import HttpLink, Service, address_of
from vws.node.state import AgentState, Lock, make_private, write_whole
from vws.node.transfer import Pace
from vws.ports import Hypervisor

log = logging.getLogger(__name__)

# Simulated steps cost nothing but time: as many at once as a node has workspaces.
_FAKE_AGENT = AgentConfig(builds_at_once=64)
JOIN_TIMEOUT_S = 15


@dataclass(frozen=True)
class Identity:
    id: str
    name: str
    token: str


@dataclass(frozen=True)
class Credentials:
    url: str
    ca: Path
    nodes: tuple[Identity, ...]


def credentials(directory: Path) -> Credentials:
    """Read DIRECTORY/credentials.json; InvalidRequest if it is missing or makes no sense."""
    path = directory / "credentials.json"
    try:
        said = json.loads(path.read_bytes())
        nodes = tuple(Identity(n["id"], n["name"], n["token"]) for n in said["nodes"])
        if not nodes:
            raise ValueError("it names no node")
        return Credentials(said["url"], Path(said["ca"]), nodes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"the node's credentials in {path} cannot be read ({error})",
            possible="for a site's own node: vws site start; for a second host: vws node join TOKEN",
        ) from None


# ---------------------------------------------------------------- agents


async def run_agent(directory: Path, config: NodeConfig, *, retire: bool = False) -> int:
    """This host's agent, in `directory` (a site's `node`), until it is told to stop. Returns the exit status.

    SIGTERM, SIGINT: stop; workspaces go on running. SIGUSR1, or `retire` from the start: retire, see agent.py.
    Raises DuplicateNode if an agent runs there already.
    """
    from vws.node.libvirt import LibvirtHypervisor  # the simulated nodes do without libvirt

    who = credentials(directory)
    node = who.nodes[0]
    hypervisor = LibvirtHypervisor(directory, node.id, config, address_of(who.url))
    settings = AgentConfig(builds_at_once=config.builds_at_once, fetch_limit_mbit=config.fetch_limit_mbit)
    pace = Pace(config.fetch_limit_mbit * 125_000)
    return await _run(directory, who, [(node, hypervisor, directory / "agent")], settings, retire=retire, pace=pace)


async def run_fake_agents(directory: Path, count: int, config: FakeConfig, *, retire: bool = False) -> int:
    """The first `count` nodes of the credentials, simulated, in this one process; else as `run_agent`."""
    who = credentials(directory)
    if len(who.nodes) < count:
        raise InvalidRequest(
            f"the credentials in {directory} are for {len(who.nodes)} nodes",
            field="fake_nodes",
            asked=count,
            possible=f"at most {len(who.nodes)}; or start the site anew with --fake-nodes {count}",
        )
    nodes = []
    for number, node in enumerate(who.nodes[:count]):
        own = directory / "fake" / node.id
        nodes.append((node, FakeHypervisor(own, config.of(number)), own / "agent"))
    # A power cut may take what is simulated.
    return await _run(directory, who, nodes, _FAKE_AGENT, retire=retire, durable=False)


async def _run(
    directory: Path,
    who: Credentials,
    nodes: Sequence[tuple[Identity, Hypervisor, Path]],
    settings: AgentConfig,
    *,
    retire: bool,
    durable: bool = True,
    pace: Pace | None = None,
) -> int:
    lock = Lock(directory)
    try:
        service = Service(who.url, who.ca)
    except (OSError, ssl.SSLError) as error:
        lock.release()
        raise InvalidRequest(f"the site's CA in {who.ca} cannot be read ({error})") from None
    try:
        agents: list[NodeAgent] = []
        for identity, hypervisor, place in nodes:
            state = AgentState(place, durable=durable)
            link = HttpLink(service, identity.id, identity.token, state.instance(), pace)
            leave = partial(_leave_together, agents)
            agents.append(NodeAgent(identity.id, hypervisor, link, state, config=settings, when_retired=leave))
        _obey_signals(agents)
        if retire:
            _retire(agents)
        log.info("serving %s as %s", who.url, _names([node for node, _, _ in nodes]))
        await asyncio.gather(*(agent.run() for agent in agents))
    finally:
        await service.close()
        lock.release()
    return 0


def _leave_together(agents: Sequence[NodeAgent]) -> None:
    """Nodes without workspaces wait for the others: until then the service may return and wants to find them all."""
    if all(agent.retired for agent in agents):
        for agent in agents:
            agent.stop()


def _names(nodes: Sequence[Identity]) -> str:
    first = f"{nodes[0].name} ({nodes[0].id})"
    return first if len(nodes) == 1 else f"{len(nodes)} simulated nodes, {first} and on"


def _obey_signals(agents: Sequence[NodeAgent]) -> None:
    def stop() -> None:
        for agent in agents:
            agent.stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGUSR1, _retire, agents)


def _retire(agents: Sequence[NodeAgent]) -> None:
    log.info(
        "told to retire: the ends that are known are enforced, and after the last workspace this process goes, unless "
        "the service answers again"
    )
    for agent in agents:
        agent.retire()


# ---------------------------------------------------------------- joining


def join(directory: Path, token: str, name: str) -> dict[str, Any]:
    """Make this host the node `name` of the site that gave out `token`; write its credentials and the site's CA.

    The token names the service and the fingerprint of its CA, so nothing has to be trusted on first use.
    Returns {"id", "name", "url", "subnet"}. Raises InvalidRequest for a token that is none, Conflict if this directory
    has credentials or the service refuses, Unavailable if it cannot be reached or is not who the token says.
    """
    if (directory / "credentials.json").exists():
        raise Conflict(
            f"{directory} has a node's credentials already; nothing was changed",
            possible="another --dir; or remove the old node (vws node remove) and then that directory",
        )
    url, fingerprint, bearer = _read_join_token(token)
    ca = _site_ca(url, fingerprint)
    make_private(directory)
    write_whole(directory / "ca.crt", ca.encode())
    state = AgentState(directory / "agent")
    body = {"name": name, "instance": state.instance(), "version": __version__}
    said = _ask(f"{url}/v1/nodes/join", ssl.create_default_context(cadata=ca), body, bearer)
    node = {"id": said["node"], "name": name, "token": said["token"]}
    credentials = {"url": url, "ca": str(directory / "ca.crt"), "nodes": [node]}
    write_whole(directory / "credentials.json", json.dumps(credentials, indent=1).encode())
    return {"id": said["node"], "name": name, "url": url, "subnet": said.get("subnet", "")}


def _read_join_token(token: str) -> tuple[str, str, str]:
    """(url, fingerprint, bearer)"""
    try:
        kind, _, text = token.strip().partition(".")
        if kind != "vwsj":
            raise ValueError
        said = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        url, fingerprint, bearer = str(said["u"]), str(said["f"]), str(said["t"])
        if not url.startswith("https://"):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest(
            "this is no join token", field="token", possible="the whole text that `vws node token` printed (vwsj.…)"
        ) from None
    return url.rstrip("/"), fingerprint.replace(":", "").lower(), bearer


def _site_ca(url: str, fingerprint: str) -> str:
    """The CA's certificate in PEM; it may come from anybody, the fingerprint tells whether it is the right one."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    pem = _fetch(urllib.request.Request(f"{url}/v1/ca"), anyone).decode("ascii", "replace")
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except ValueError:
        found = "no certificate"
    if found != fingerprint:
        raise Unavailable(
            f"who answers at {url} is not the site that gave out this token: its CA has the fingerprint {found[:16]}…, "
            f"the token says {fingerprint[:16]}…; nothing was sent to it",
            possible="check the address; if the site was made anew, ask for a new token",
        )
    return pem


def _ask(url: str, trust: ssl.SSLContext, body: dict[str, Any], bearer: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    said = json.loads(_fetch(request, trust))
    if not isinstance(said, dict) or not {"node", "token"} <= said.keys():
        raise Unavailable(f"{url} answered what makes no sense; is it a VWS service of this version?")
    return said


def _fetch(request: urllib.request.Request, trust: ssl.SSLContext) -> bytes:
    direct = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=JOIN_TIMEOUT_S) as response:
            return bytes(response.read(1 << 20))
    except urllib.error.HTTPError as error:
        raise _refusal(error) from None
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"the site at {request.full_url} cannot be reached ({error}); nothing was changed",
            possible="check that the address in the token is reachable from this host ([service] url in site.toml)",
        ) from None


def _refusal(error: urllib.error.HTTPError) -> VwsError:
    try:
        said = json.loads(error.read(8192))
        detail, possible = str(said["detail"]), said.get("possible")
    except (ValueError, KeyError, TypeError):
        detail, possible = f"it answered {error.code}", None
    return Conflict(f"the site refuses: {detail}", possible=possible or "a new token: vws node token")
