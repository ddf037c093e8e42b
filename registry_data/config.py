"""The configuration of the data plane, which `registry_data.main` creates from the Django settings."""

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of the data plane; `registry_control.settings` validates the environment variables."""

    public_host: str  # host and port as clients write them in image names
    service: str  # the audience (`aud`) of tokens
    version: str = ""  # of the product, as /healthz shows it
    database_threads: int = 8
    storage_threads: int = 8
    blob_lease: timedelta = timedelta(hours=24)
    piece_size: int = 1024 * 1024  # bytes of a body that are hashed and written at once
    page_size: int = 1000  # default and maximum number of entries of a list
    challenges_with_basic: bool = (
        False  # challenge with Basic instead of Bearer; both are accepted either way
    )
    read_only: bool = False  # reject pushes and deletions
    idle_time: float = 60  # seconds until a transfer without progress times out
    # Requests per minute; 0 means no limit.
    rate_limit: int = 0  # per principal
    rate_limit_anonymous: int = 0  # per client address
    public_origin: str | None = None  # scheme://host of all URLs; None: taken from the request
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # whose X-Forwarded-* headers are used

    @property
    def limits_rates(self) -> bool:
        """Whether any rate limit is configured."""
        return bool(self.rate_limit or self.rate_limit_anonymous)

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            ValueError: a number of threads or a size is less than 1.
        """
        for name in ("database_threads", "storage_threads", "piece_size", "page_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
