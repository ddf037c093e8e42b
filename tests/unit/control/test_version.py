import tomllib

from registry_control.common.version import version
from registry_control.settings.environment import PROJECT_ROOT


def test_the_version_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert version() == project["project"]["version"]
