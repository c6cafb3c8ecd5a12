"""What only an endorser of images does: sign a list of them (S/MIME), for sites that read HEPiX image lists.

Apart from service/smime.py, since the service never sees a private key. The message is as VMcaster writes it: the list
in plain sight and its signature beside it, so that it can be read without verifying, and is verified by
`openssl cms -verify`.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

from vws.core.errors import InvalidRequest
from vws.core.image_lists import Endorser, ImageList, check, written
from vws.service.smime import slashed


def endorser_of(certificate: x509.Certificate, email: str = "", name: str = "") -> Endorser:
    return Endorser(slashed(certificate.subject), slashed(certificate.issuer), email, name)


def sign(
    made: ImageList,
    certificate: x509.Certificate,
    key_pem: bytes,
    passphrase: bytes | None = None,
    chain: Iterable[x509.Certificate] = (),
) -> bytes:
    """The signed message. chain: certificates between the endorser's and the authority's.

    Raises InvalidRequest if the list is not this endorser's, or the key cannot sign for the certificate.
    """
    check(made, endorser_of(certificate), made.created_at)
    key = _key(key_pem, passphrase)
    if key.public_key() != certificate.public_key():
        raise InvalidRequest("the key is not the certificate's", field="key", possible="the key of this certificate")
    builder = PKCS7SignatureBuilder().set_data(written(made)).add_signer(certificate, key, hashes.SHA256())
    for each in chain:
        builder = builder.add_certificate(each)
    return builder.sign(Encoding.SMIME, [PKCS7Options.DetachedSignature])


def _key(pem: bytes, passphrase: bytes | None) -> RSAPrivateKey | EllipticCurvePrivateKey:
    possible = "an RSA or EC private key in PEM"
    try:
        key = load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidRequest(f"the key cannot be used: {error}", field="key", possible=possible) from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise InvalidRequest("S/MIME has no signatures with such a key", field="key", possible=possible)
    return key
