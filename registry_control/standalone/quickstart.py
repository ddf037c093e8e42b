"""The text that `up` prints when all processes are ready: addresses, and commands to paste.

It contains no secret, because logs are stored: the commands read them from the credentials file.
"""

import shlex
from pathlib import Path
from typing import Final

from registry_control.standalone.credentials import Credentials

_TRY: Final = """\
Paste this into another terminal for a first push and pull:

  secret() {{ python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["secret_key"])' {file}; }}
  curl -fsS {api}/namespaces -H "X-Auth-Token: $(secret)" \\
    -H 'Content-Type: application/json' -d '{{"name": "hello"}}'
  secret | docker login {registry} --username key --password-stdin
  tar -c manage.py | docker import - {registry}/hello/world:1
  docker push {registry}/hello/world:1
  docker pull {registry}/hello/world:1
"""

_NO_KEY: Final = """\
{file} contains no valid key. To create one:

  python manage.py create_key default operator --permission-set ContainerRegistryFullAccess
"""


def quickstart(
    *, control_url: str, registry_host: str, region: str, file: Path, credentials: Credentials | None
) -> str:
    """Return the text. `credentials` is the content of the file if its key is valid."""
    lines = [
        f"ready: the registry is {registry_host}",
        f"  management API   {control_url}/registry/v1/regions/{region}/namespaces",
        f"  its description  {control_url}/api/docs/",
        f"  administration   {control_url}/admin/",
    ]
    if credentials is None:
        return "\n".join([*lines, "", _NO_KEY.format(file=file)])
    lines[-1] += f"  (user {credentials.admin_username}; the password is in {file})"
    commands = _TRY.format(
        api=f"{control_url}/registry/v1/regions/{region}",
        registry=registry_host,
        file=shlex.quote(str(file)),
    )
    return "\n".join([*lines, "", commands])
