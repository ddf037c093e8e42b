"""The health check of the data plane."""

from registry_control.common.version import version
from tests.tenants import Tenants


def test_the_health_check_shows_the_version(tenants: Tenants) -> None:
    response = tenants.anonymous.http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "version": version()})
