"""Prometheus itself scrapes a running product as docs/deployment.md says, and evaluates the alerts."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.stack import ROOT, Stack
from tests.services.tools import require_tool
from tests.services.waiting import wait_until

pytestmark = pytest.mark.clients

RULES: Final = ROOT / "deploy" / "prometheus" / "rules.yml"
CASES: Final = ROOT / "tests" / "deployment" / "alerts.yml"


def _alerts() -> dict[str, str]:
    """The expressions of the alerts by their names."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    return {rule["alert"]: rule["expr"] for rule in rules}


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool = require_tool("promtool")
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(CASES)]):
        done = subprocess.run([str(promtool), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    tested = [each for case in cases for each in case["alert_rule_test"]]
    assert {each["alertname"] for each in tested if each["exp_alerts"]} == _alerts().keys()
    assert {each["alertname"] for each in tested if not each["exp_alerts"]} == _alerts().keys()


@pytest.mark.only_on("sqlite")
def test_a_prometheus_server_scrapes_the_product_and_evaluates_the_alerts(
    stack: Stack, tmp_path: Path
) -> None:
    # given the configuration in the documentation, with the paths and the address of this test
    key = tmp_path / "stowage.key"
    key.write_text(stack.credentials.secret_key + "\n", encoding="ascii")
    configuration = _documented(stack, key)
    with _prometheus(configuration, tmp_path) as address:

        def ask(path: str, **query: str) -> Any:
            answer = httpx.get(f"{address}/api/v1/{path}", params=query, timeout=10).json()
            assert answer["status"] == "success", answer
            return answer["data"]

        # when it has scraped the control plane, then it has accepted all figures
        wait_until(lambda: all(each["lastScrape"] > "1" for each in ask("targets")["activeTargets"]))
        wait_until(lambda: bool(ask("query", query="stowage_build_info")["result"]))
        (target,) = ask("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        names = ask("label/__name__/values")
        used = {name for expression in _alerts().values() for name in re.findall(r"stowage_\w+", expression)}
        assert used <= set(names)
        described = ask("metadata")
        assert all(described[name][0]["help"] for name in names if "stowage" in name)

        # and it evaluates all alerts without an error, and those of a product that is down do not fire
        wait_until(lambda: all(each["health"] == "ok" for each in ask("rules")["groups"][0]["rules"]))
        assert [rule["name"] for rule in ask("rules")["groups"][0]["rules"]] == [*_alerts()]
        firing = {
            each["labels"]["alertname"] for each in ask("alerts")["alerts"] if each["state"] == "firing"
        }
        assert firing.isdisjoint({"StowageDown", "StowageWorkerSilent"})

        # and without the key it is told that it may not
        key.write_text("wrong\n", encoding="ascii")
        wait_until(lambda: ask("targets")["activeTargets"][0]["health"] == "down")
        assert "401" in ask("targets")["activeTargets"][0]["lastError"]


def _documented(stack: Stack, key: Path) -> dict[str, Any]:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", text, flags=re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(block)
    (job,) = found["scrape_configs"]
    assert (job["job_name"], found["rule_files"]) == ("stowage", ["stowage-rules.yml"])
    job |= {"scheme": "http", "static_configs": [{"targets": [stack.control_address]}]}
    job["authorization"]["credentials_file"] = str(key)
    intervals = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    return {**found, "global": intervals, "rule_files": [str(RULES)]}


@contextmanager
def _prometheus(configuration: dict[str, Any], folder: Path) -> Iterator[str]:
    path, port = folder / "prometheus.yml", free_port()
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    command = [
        str(require_tool("prometheus")),
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    address = f"http://127.0.0.1:{port}"
    server = Child(command, log=folder / "prometheus.log", stop_signal=Signals.SIGTERM)

    def is_ready() -> bool:
        try:
            return httpx.get(f"{address}/-/ready").is_success
        except httpx.TransportError:
            return False

    try:
        server.wait_until(is_ready, timeout=30)
        yield address
    finally:
        server.stop()
