"""Clients that show certificates, at a gateway that asks for them."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2
import pytest
from certificates import Issued, Issuer
from gateway_process import Process

pytestmark = pytest.mark.services


def test_only_a_good_certificate_of_the_named_issuer_opens_the_connection(tmp_path: Path) -> None:
    servers, clients, others = (Issuer(tmp_path, name) for name in ("servers", "clients", "others"))
    own = servers.issue("gateway")
    options = ["--tls-certificate", str(own.certificate), "--tls-key", str(own.key)]
    options += ["--client-ca", str(clients.own.certificate)]

    def context(shown: Issued | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(servers.own.certificate))
        if shown is not None:
            made.load_cert_chain(shown.certificate, shown.key)
        return made

    good, ended, foreign = clients.issue("door"), clients.issue("ended", days=-1), others.issue("foreign")
    with Process(tmp_path, *options, tls=True) as made:
        made.ready(verify=context(good))
        with made.client(verify=context(good)) as client:
            assert client.get("/v1/livez").status_code == 200
            assert client.get("/v1/subjects", headers={"authorization": ""}).status_code == 401  # it is no token
        # TLS 1.3 tells a client of it with the first answer; 1.2 within the handshake.
        for shown in (None, ended, foreign, servers.issue("server"), own):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                tried = context(shown)
                tried.maximum_version = version
                with pytest.raises(httpx2.TransportError), made.client(verify=tried) as client:
                    client.get("/v1/livez")
        with pytest.raises(httpx2.HTTPError), httpx2.Client(trust_env=False) as client:
            client.get(f"http://127.0.0.1:{made.port}/v1/livez")
        with made.client(verify=context(good)) as client:
            assert client.get("/v1/livez").status_code == 200
        assert "Traceback" not in made.end()
