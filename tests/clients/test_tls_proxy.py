"""The product behind nginx with TLS, as most installations run it."""

from collections.abc import Callable

import httpx
import pytest

from tests.services.nginx import TlsProxy
from tests.services.stack import Stack

pytestmark = pytest.mark.clients


def test_both_planes_answer_through_a_proxy_with_tls(
    make_stack: Callable[..., Stack], tls_proxy: TlsProxy
) -> None:
    product = make_stack(**tls_proxy.environment).start()
    with (
        tls_proxy.forwarding(control=product.control_address, data=product.data_address),
        httpx.Client(verify=tls_proxy.client_context()) as client,
    ):
        assert client.get(f"{tls_proxy.control_url}/healthz").status_code == 200
        assert client.get(f"https://{tls_proxy.registry_host}/v2/").status_code == 401
