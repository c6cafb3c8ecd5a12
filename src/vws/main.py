"""Where everything is wired: the processes of a site, each a sub-command of `python -m vws.main`.

    service --dir DIR                 the API, the planner, the store
    agent --dir DIR [--fake-nodes N]  this host as a node, or N simulated ones (--retire: until nothing is leased)
    bootstrap --dir DIR ...           what `site init` and `site start` need from the store before the service runs;
                                      answers with JSON on stdout

Users call `vws site start`, which starts these (vws/supervisor.py).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import gc
import json
import logging
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any

from vws.config import ImagesConfig, SiteConfig, SiteDirectory, load
from vws.core.errors import VwsError
from vws.core.information import Informed
from vws.planning import rules_of
from vws.policies import choose, needs_modules, price_of
from vws.ports import Blobs
from vws.processes import write_file
from vws.store.blobs import FileBlobs

log = logging.getLogger("vws")

FILES_MAX = 65_536


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="vws.main", description="The processes of a VWS site; see `vws site`.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("service", "agent", "bootstrap"):
        command = commands.add_parser(name)
        command.add_argument("--dir", type=Path, required=True)
    commands.choices["agent"].add_argument("--fake-nodes", type=int, default=0)
    commands.choices["agent"].add_argument("--retire", action="store_true", help="leave once nothing is leased here")
    bootstrap_parser = commands.choices["bootstrap"]
    bootstrap_parser.add_argument("--admin", help="make an admin token for this user")
    bootstrap_parser.add_argument("--replace-nodes", default="", help="ids of nodes to take out first, by commas")
    bootstrap_parser.add_argument("--nodes", default="", help="names of nodes to enrol, by commas")
    bootstrap_parser.add_argument("--simulate-image", help="list a simulated image under this name")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run = {"service": _service, "agent": _agent, "bootstrap": _bootstrap}[options.command]
    directory = SiteDirectory(options.dir.absolute())
    try:
        return run(directory, options)
    except VwsError as error:
        print(f"vws: {error.problem}" + (f" ({error.possible})" if error.possible else ""), file=sys.stderr)
        return 1


# ---------------------------------------------------------------- service


def _service(directory: SiteDirectory, options: argparse.Namespace) -> int:
    config = load(directory)
    lock = _only_one(directory, "service")
    listener = _listen(config)
    _allow_connections()
    _become_service_user(directory, config)
    _certificates(directory, config)
    from vws.serving import Serving

    services = _build(directory, config)
    services.images.sweep()
    services.exports.converted.sweep()
    services.saves.sweep()
    services.image_lists.sweep()
    services.keys.sweep()
    # A commit gives the interpreter up at each of its statements and must get it back soon: with Python's usual 5 ms a
    # turn, a lease request waited mostly for busy threads to finish theirs.
    sys.setswitchinterval(0.0005)
    app = Serving(services, ca_pem=(directory.tls / "ca.crt").read_bytes())
    server = _server(app, directory)
    _on_stop(server, app.close)
    services.reconciler.start()
    services.contexts.start()
    services.clusters.start()
    services.image_policy.start()
    services.housekeeper.start()
    log.info("serving %s as uid %d", config.service.public_url, os.geteuid())
    _spare_the_collector()
    try:
        server.run(sockets=[listener])
    finally:
        services.housekeeper.stop()
        services.image_policy.stop()
        services.clusters.stop()
        services.contexts.stop()
        services.reconciler.stop()
        services.site.store.close()
        lock.close()
    return 0


def _allow_connections() -> None:
    """Each guest that waits for news holds one, and systems give 1,024 files unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _spare_the_collector() -> None:
    """Leave what is there at the start (code, schemas) out of later collections: each full one stopped every thread
    for 50 to 90 ms, in the middle of somebody's request."""
    gc.collect()
    gc.freeze()


def _only_one(directory: SiteDirectory, process: str) -> Any:
    """Hold the lock by which a directory has one process of each kind, and write its pid file."""
    lock = open(directory.path / f".{process}.lock", "w")  # noqa: SIM115 - held as long as the process lives
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(f"vws: the {process} of {directory.path} already runs (vws site status)", file=sys.stderr)
        raise SystemExit(1) from None
    write_file(directory.pid_file(process), f"{os.getpid()}\n", 0o644)
    return lock


def _listen(config: SiteConfig) -> socket.socket:
    host, port = config.service.host, config.service.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        print(f"vws: cannot listen on {host}:{port}: {error.strerror} ([service] in site.toml)", file=sys.stderr)
        raise SystemExit(1) from None
    listener.listen(2048)
    return listener


def _become_service_user(directory: SiteDirectory, config: SiteConfig) -> None:
    from vws.privilege import CannotDrop, drop

    if needs_modules(config.policy, config.tariff):
        sys.path.append(str(directory.policy))
    needed = [directory.service, *_code_paths()]
    if config.images.policy:
        # Its folder: who edits a file often puts another one in its place.
        needed.append((directory.path / config.images.policy).parent)
    try:
        drop(config.service.user, needed)
    except CannotDrop as error:
        print(f"vws: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    os.chdir(directory.service)


def _code_paths() -> list[Path]:
    """Where the interpreter and every module come from: they are still imported after root is given up."""
    places = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable), Path(__file__).parents[1]]
    return places + [Path(entry) for entry in sys.path if entry]


def _build(directory: SiteDirectory, config: SiteConfig) -> Any:
    from vws.ambient import SystemClock, TimeIds
    from vws.service import build
    from vws.service.site import Settings
    from vws.store.sql import SqlStore

    service = config.service
    url = f"sqlite:///{directory.service / 'site.db'}" if service.store == "sqlite" else service.store
    settings = Settings(
        service.name,
        service.public_url,
        service.guest_network,
        service.node_prefix,
        service.image_bytes_max,
        service.patience,
        config.rates,
        choose(config.policy, config.members),
        config.tariff,
        price_of(config.tariff),
        rules_of(config.planning),
        Informed(config.site, config.vos, config.users),
        config.address_pools,
        images=config.images.rules,
        image_policy=directory.path / config.images.policy if config.images.policy else None,
    )
    blobs = blobs_of(directory, config.images)
    blobs.check()
    return build(SqlStore.open(url), blobs, SystemClock(), TimeIds(), settings, directory.service)


def blobs_of(directory: SiteDirectory, images: ImagesConfig) -> Blobs:
    """Where this site's files of images are. Unavailable if that cannot be had."""
    if not images.bucket:
        return FileBlobs(directory.service / "blobs")
    from vws.store.s3_blobs import S3Blobs

    credentials = str(directory.path / images.credentials) if images.credentials else ""
    return S3Blobs.connect(images.bucket, images.prefix, images.endpoint, images.region, credentials)


def _server(app: Any, directory: SiteDirectory) -> Any:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            ssl_certfile=str(directory.tls / "server.crt"),
            ssl_keyfile=str(directory.tls / "server.key"),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
            ws_max_size=1 << 20,
            # A user may stop an ssh for a while (Ctrl-Z) without losing it.
            ws_ping_interval=30,
            ws_ping_timeout=600,
        )
    )


def _on_stop(server: Any, release: Any) -> None:
    """Let waiting long polls and followers go as soon as the process is told to stop."""
    handle = server.handle_exit

    def stop(number: int, frame: Any) -> None:
        release()
        handle(number, frame)

    server.handle_exit = stop


# ---------------------------------------------------------------- agent


def _agent(directory: SiteDirectory, options: argparse.Namespace) -> int:
    config = load(directory)
    lock = _only_one(directory, "agent")
    import uvloop

    from vws.node import run

    uvloop.install()  # asyncio's own keeps 256 KiB per TLS connection, which hundreds of simulated nodes feel
    try:
        if options.fake_nodes:
            agents = run.run_fake_agents(directory.node, options.fake_nodes, config.fake, retire=options.retire)
        else:
            agents = run.run_agent(directory.node, config.node, retire=options.retire)
        status = int(asyncio.run(agents))
        # What is left of an agent that died is its pid file, by which `vws site stop` knows.
        directory.pid_file("agent").unlink(missing_ok=True)
        return status
    finally:
        lock.close()


# ---------------------------------------------------------------- bootstrap


def _bootstrap(directory: SiteDirectory, options: argparse.Namespace) -> int:
    """Write what the site needs before its service runs; the answer on stdout holds secrets and goes to a pipe."""
    config = load(directory)
    _become_service_user(directory, config)
    _certificates(directory, config)
    services = _build(directory, config)
    from vws.core.site import Role
    from vws.service.access import SITE

    answer: dict[str, Any] = {"ca": (directory.tls / "ca.crt").read_text()}
    try:
        if options.nodes:
            replacing = filter(None, options.replace_nodes.split(","))
            enrolled = services.nodes.enroll(options.nodes.split(","), replacing=list(replacing))
            answer["nodes"] = [{"id": node.id, "name": node.name, "token": token} for node, token in enrolled]
        if options.simulate_image:
            services.images.simulate(options.simulate_image)
        if options.admin:
            _, answer["admin_token"] = services.access.create_token(SITE, options.admin, Role.ADMIN, None)
    finally:
        services.site.store.close()
    json.dump(answer, sys.stdout)
    return 0


def _certificates(directory: SiteDirectory, config: SiteConfig) -> None:
    from urllib.parse import urlsplit

    from vws.ambient import SystemClock
    from vws.service import certificates

    now = SystemClock().now()
    directory.tls.mkdir(parents=True, exist_ok=True)
    names = {"localhost", "127.0.0.1", config.service.host, urlsplit(config.service.public_url).hostname}
    wanted = sorted(name for name in names if name and name not in ("0.0.0.0", "::"))
    if not (directory.tls / "ca.crt").exists():
        certificates.make_ca(directory.tls, config.service.name, now)
    if not certificates.server_is_good(directory.tls, wanted, now):
        certificates.make_server(directory.tls, wanted, now)


if __name__ == "__main__":
    sys.exit(main())
