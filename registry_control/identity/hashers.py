"""How passwords are hashed."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class Argon2(Argon2PasswordHasher):
    """Argon2id with the parameters that OWASP recommends.

    Django's own take 100 MiB of memory and eight threads for each hash: a few sign-ins at once would keep the
    processor from everything else.
    """

    time_cost = 2
    memory_cost = 19 * 1024  # KiB
    parallelism = 1
