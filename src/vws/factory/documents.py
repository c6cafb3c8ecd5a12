"""What is said of an appliance by who built it: a bill of materials (CycloneDX) and the provenance (SLSA, in-toto).

Both are made of the build's inputs alone, so that they too are the same for the same recipe and the same versions of
packages: no time of day, no name of a machine, and not the address from which a package came, as that differs from
site to site and says nothing that the package's sha256 does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid5

from vws import __version__, guest
from vws.core.manifest import digest
from vws.core.recipe import Recipe
from vws.core.site import Image
from vws.factory.debian import DATE_S, Package
from vws.factory.disk import NAMESPACE
from vws.factory.recipes import Source
from vws.guest.debs import sha256_of

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:vws:build:recipe:1"
BUILDER = "urn:vws:builder:image-build"
GUEST = Path(guest.__file__).parent


def bill_of_materials(recipe: Recipe, image: Image, packages: Iterable[Package]) -> bytes:
    """CycloneDX 1.6 as JSON: every Debian package of which something is in the appliance."""
    # Loaded here, as it takes longer than all else that `vws` loads.
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    name = f"{recipe.name}@{recipe.version}"
    whole = Component(type=ComponentType.OPERATING_SYSTEM, name=recipe.name, version=recipe.version, bom_ref=name)
    whole.description = recipe.about
    bom = Bom(
        serial_number=uuid5(NAMESPACE, digest(image)),
        metadata=BomMetaData(component=whole, timestamp=datetime.fromtimestamp(DATE_S, UTC)),
        components=[_component(each) for each in packages],
    )
    bom.register_dependency(whole, bom.components)
    made: str = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    return made.encode() + b"\n"


def _component(package: Package) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)] if package.sha256 else []
    purl = _purl(package)
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=purl.to_string(),
        hashes=hashes,
    )


def _purl(package: Package) -> Any:
    from packageurl import PackageURL

    said = {"arch": package.architecture} | ({"upstream": package.source} if package.source else {})
    return PackageURL("deb", "debian", package.name, package.version, said)


def packages_in(bill: bytes) -> tuple[Package, ...]:
    """What a bill of materials that was made here lists. Raises ValueError for what is none."""
    from packageurl import PackageURL

    said = json.loads(bill)
    if not isinstance(said, dict):
        raise ValueError("it is no table")
    found = []
    for each in said.get("components") or ():
        if not isinstance(each, dict):
            raise ValueError("its components are no tables")
        purl = PackageURL.from_string(str(each.get("purl")))
        if purl.type == "deb" and isinstance(purl.qualifiers, dict):
            hashes = {one.get("alg"): str(one.get("content")) for one in each.get("hashes") or ()}
            architecture = str(purl.qualifiers.get("arch", ""))
            source = str(purl.qualifiers.get("upstream", ""))
            found.append(Package(purl.name, str(purl.version), architecture, hashes.get("SHA-256", ""), source))
    return tuple(found)


def provenance(
    recipe: Recipe, image: Image, packages: Sequence[Package], sources: Sequence[Source], tools: Mapping[str, str]
) -> bytes:
    """An in-toto statement: of what, by which builder, the image was made."""
    files = [{"name": each.role, "digest": {"sha256": each.sha256}} for each in image.files]
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": recipe.name, "digest": {"sha256": digest(image)}}, *files],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"name": recipe.name, "version": recipe.version, "recipe": _recipes(sources)},
                "internalParameters": {"date": DATE_S},
                "resolvedDependencies": [
                    *({"name": each.name, "digest": {"sha256": each.sha256}} for each in sources),
                    *(_dependency(each) for each in packages),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {"vws": __version__, **tools},
                    "builderDependencies": [{"name": "vws.guest", "digest": {"sha256": _guest_files()}}],
                }
            },
        },
    }
    return json.dumps(statement, indent=1).encode() + b"\n"


def _guest_files() -> str:
    """The sha256 of names and contents of all that VWS brings into guests."""
    files = sorted(path for path in GUEST.rglob("*") if path.is_file() and path.suffix != ".pyc")
    lines = [f"{sha256_of(path)}  {path.relative_to(GUEST)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _recipes(sources: Iterable[Source]) -> list[str]:
    return [each.name for each in sources if each.name.endswith((".yaml", ".yml"))]


def _dependency(package: Package) -> dict[str, Any]:
    said: dict[str, Any] = {"uri": _purl(package).to_string(), "name": package.name}
    return said | ({"digest": {"sha256": package.sha256}} if package.sha256 else {})
