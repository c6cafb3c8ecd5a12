"""The site's CA and the service's certificate, as a strict TLS client sees them."""

import socket
import ssl
import threading
import time

import pytest

from vws.service.certificates import make_ca, make_server, server_is_good


@pytest.fixture
def tls(tmp_path):
    make_ca(tmp_path, "here", time.time())
    make_server(tmp_path, ["127.0.0.1", "localhost"], time.time())
    return tmp_path


def handshake(tls, name, ca=None):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tls / "server.crt", tls / "server.key")
    client = ssl.create_default_context(cafile=str(ca or tls / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    a, b = socket.socketpair()

    def serve():
        try:
            server.wrap_socket(a, server_side=True).close()
        except ssl.SSLError:
            a.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return client.wrap_socket(b, server_hostname=name).version()
    finally:
        b.close()
        thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_strict_client_trusts_the_service_by_the_sites_ca(tls, name):
    assert handshake(tls, name) == "TLSv1.3"


def test_another_name_and_another_ca_are_not_trusted(tls, tmp_path_factory):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls, "example.org")
    other = tmp_path_factory.mktemp("other")
    make_ca(other, "there", time.time())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls, "localhost", other / "ca.crt")


def test_keys_are_private(tls):
    for key in ("ca.key", "server.key"):
        assert (tls / key).stat().st_mode & 0o777 == 0o600


def test_a_certificate_is_good_while_it_names_all_and_lasts(tls):
    now = time.time()
    assert server_is_good(tls, ["localhost"], now)
    assert not server_is_good(tls, ["localhost", "vws.example.org"], now)
    assert not server_is_good(tls, ["localhost"], now + 350 * 86400)
    (tls / "server.crt").write_text("nonsense")
    assert not server_is_good(tls, ["localhost"], now)
