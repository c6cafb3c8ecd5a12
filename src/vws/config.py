"""A site's directory and its configuration file, `site.toml`.

Unknown keys are errors: a mistyped setting that is silently ignored is a broken promise.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from vws.core.errors import InvalidRequest
from vws.core.image_quota import ImageRules
from vws.core.information import SiteInformation
from vws.core.membership import VO, User, UserGroup
from vws.core.pools import Pool, PoolConfig, pools_of
from vws.core.quantities import parse_duration
from vws.core.rates import Configured, check_configured
from vws.core.standing import Patience
from vws.core.tariff import Tariff
from vws.core.wire import from_json
from vws.node.config import FakeConfig, NodeConfig
from vws.planning import PlanningConfig, rules_of
from vws.policies import Members, PolicyConfig, check_policy

# What would be done all the time.
EVERY_S_MIN = 60


@dataclass(frozen=True)
class ServiceConfig:
    """[service] in site.toml. host and port: where it listens; url: how others reach it (default from these two).

    store: `sqlite` (a file in the site's directory) or a PostgreSQL URL. user: who it runs as when started by root.
    guest_network: cut into one subnet of length node_prefix per node. silent_after_s, lost_after_s: core/standing.py.
    """

    name: str = "site"
    host: str = "127.0.0.1"
    port: int = 7443
    url: str = ""
    store: str = "sqlite"
    user: str = "vws"
    guest_network: str = "10.64.0.0/10"
    node_prefix: int = 24
    silent_after_s: float = 25.0
    lost_after_s: float = 60.0
    image_bytes_max: int = 64 * 1024**3

    @property
    def public_url(self) -> str:
        return self.url or f"https://{self.host}:{self.port}"

    @property
    def patience(self) -> Patience:
        return Patience(self.silent_after_s, self.lost_after_s)


@dataclass(frozen=True)
class ImagesConfig:
    """[images] in site.toml. policy: the file that says which images whom may run, relative to the site's directory;
    "": everybody may run all. quota_mib: of each user, None for no limit. gc_every, lists_every: how often what nothing
    points at is dropped, and image lists of others are read again: a duration, or off. bucket: of S3, "" for the site's
    directory; prefix, endpoint, region: where in it, and where it is; credentials: a file as boto3 reads it, "" for
    what it finds by itself.
    """

    policy: str = ""
    quota_mib: int | None = None
    keep_untagged_days: float = 30.0
    gc_every: str = "1d"
    lists_every: str = "6h"
    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    credentials: str = ""

    @property
    def rules(self) -> ImageRules:
        """Raises InvalidRequest naming the setting that cannot be."""
        rounds = _every("gc_every", self.gc_every), _every("lists_every", self.lists_every)
        return ImageRules(self.quota_mib, self.keep_untagged_days * 86400, *rounds)

    def check(self) -> None:
        """Raise InvalidRequest naming the setting that cannot be."""
        for name, value in (("quota_mib", self.quota_mib or 0), ("keep_untagged_days", self.keep_untagged_days)):
            if value < 0:
                raise InvalidRequest(f"images.{name} is negative", field=f"images.{name}", asked=value)
        _ = self.rules
        if not self.bucket and (self.prefix or self.endpoint or self.region or self.credentials):
            raise InvalidRequest("[images] says where a bucket is, but not which", field="images.bucket")
        if self.bucket and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket):
            raise InvalidRequest(f"{self.bucket[:70]!r} cannot be a bucket", field="images.bucket")
        if self.endpoint and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", self.endpoint):
            raise InvalidRequest(
                "images.endpoint is no URL", field="images.endpoint", possible="https://HOST:PORT, without a password"
            )


def _every(name: str, text: str) -> float | None:
    """Seconds; None for off."""
    try:
        every_s = None if text == "off" else float(parse_duration(text))
        if every_s is None or every_s >= EVERY_S_MIN:
            return every_s
        problem = "it is shorter than a minute"
    except ValueError as error:
        problem = str(error)
    raise InvalidRequest(
        f"images.{name} is {text[:40]!r}: {problem}", field=f"images.{name}", asked=text[:40],
        possible="a duration such as 1d or 6h, or off",
    )  # fmt: skip


@dataclass(frozen=True)
class SiteConfig:
    """The whole of site.toml: [service], [images], [site] (what guests ask of it), [planning], [rates] (how long
    things take), [node] (this host as a node), [fake] (simulated nodes instead of it), [policy], [tariff] (what time
    costs), and the users' [vos.NAME], [groups.NAME] and [users.NAME]; [pools.NAME] are addresses that it sets
    aside."""

    service: ServiceConfig = field(default_factory=ServiceConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    site: SiteInformation = field(default_factory=SiteInformation)
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    rates: Configured = field(default_factory=Configured)
    node: NodeConfig = field(default_factory=NodeConfig)
    fake: FakeConfig = field(default_factory=FakeConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    tariff: Tariff = field(default_factory=Tariff)
    vos: dict[str, VO] = field(default_factory=dict)
    groups: dict[str, UserGroup] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    pools: dict[str, PoolConfig] = field(default_factory=dict)

    @property
    def address_pools(self) -> dict[str, Pool]:
        """Raises InvalidRequest naming the key that is wrong."""
        return pools_of(self.pools, guest_network=self.service.guest_network)

    @property
    def members(self) -> Members:
        return Members(self.vos, self.groups, self.users)


@dataclass(frozen=True)
class SiteDirectory:
    """Where everything of a site is. `service` belongs to the service's user, `node` to root."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "site.toml"

    @property
    def service(self) -> Path:
        return self.path / "service"

    @property
    def tls(self) -> Path:
        return self.service / "tls"

    @property
    def node(self) -> Path:
        return self.path / "node"

    @property
    def policy(self) -> Path:
        """Modules with functions of the site's own policy."""
        return self.path / "policy"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def credentials(self) -> Path:
        return self.node / "credentials.json"

    @property
    def ca(self) -> Path:
        return self.path / "ca.crt"

    @property
    def url(self) -> Path:
        return self.path / "url"

    @property
    def admin_token(self) -> Path:
        return self.path / "admin.token"

    @property
    def is_joined(self) -> bool:
        """Whether it is a host's that joined a site elsewhere: with an agent, without a service."""
        return self.credentials.exists() and not self.service.exists()

    def pid_file(self, process: str) -> Path:
        return self.path / f"{process}.pid"

    def log_file(self, process: str) -> Path:
        return self.logs / f"{process}.log"


def default_directory() -> Path:
    """VWS_DIR, else /var/lib/vws for root and ~/.local/share/vws for others."""
    if os.environ.get("VWS_DIR"):
        return Path(os.environ["VWS_DIR"])
    return Path("/var/lib/vws") if os.geteuid() == 0 else Path.home() / ".local/share/vws"


def host_name() -> str:
    """This host's name as a node or a site may be called."""
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname().split(".")[0].lower())
    return label.strip("-")[:40].strip("-") or "site"


def load(directory: SiteDirectory) -> SiteConfig:
    """The configuration of an initialised site. InvalidRequest names the key that is wrong."""
    try:
        return read(directory.config)
    except FileNotFoundError:
        raise InvalidRequest(
            f"there is no site in {directory.path}",
            field="dir",
            asked=str(directory.path),
            possible="make one with `vws site init`, or name another with --dir or VWS_DIR",
        ) from None


def read(path: Path) -> SiteConfig:
    """The configuration in a file. InvalidRequest names the key that is wrong, OSError the file that cannot be read."""
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not TOML: {error}", field="site.toml") from None
    config = from_json(SiteConfig, data, "site.toml")
    # Here, where somebody reads what is wrong, and not in an agent's log.
    check_policy(config.policy, config.members, config.tariff)
    check_configured(config.rates)
    rules_of(config.planning)
    _ = config.address_pools
    config.images.check()
    config.node.traits()
    config.node.check()
    for fake in (config.fake, *map(config.fake.like, config.fake.kinds)):
        fake.traits()
        _ = fake.cache_bytes
    return config


def render_joined(isolation: str) -> str:
    """The text of site.toml on a host that joins a site elsewhere."""
    return "# Configuration of this host as a node; the admin guide explains every key.\n\n" + _node_section(isolation)


def render(config: ServiceConfig, isolation: str) -> str:
    """The text of a new site.toml."""
    url = f"url = {_quoted(config.url)}\n" if config.url else ""
    return f"""# Configuration of this VWS site; the admin guide explains every key. Restart the site after a change.

[service]
name = {_quoted(config.name)}
host = {_quoted(config.host)}
port = {config.port}
{url}store = {_quoted(config.store)}
user = {_quoted(config.user)}

{_node_section(isolation)}
[fake]
# nodes = 200      simulated nodes instead of this host, for trials and capacity studies
"""


def _node_section(isolation: str) -> str:
    return f"""[node]
# "namespace": this host's node lives in network, mount and process-name namespaces of its own; "host": it uses the
# machine's own libvirtd and network, as on a production node.
isolation = {_quoted(isolation)}
"""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise InvalidRequest("a setting holds control characters", asked=text[:40])
    return f'"{escaped}"'
