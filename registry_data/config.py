"""What the data plane may be told; `main` makes it from the installation's settings."""

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network


@dataclass(frozen=True, slots=True)
class Config:
    """The data plane's own settings, checked where the environment is read."""

    public_host: str  # with its port, as clients write it
    service: str  # the audience that tokens name
    database_threads: int = 8
    storage_threads: int = 8
    blob_lease: timedelta = timedelta(hours=24)
    piece_size: int = 1024 * 1024  # bytes of a body that are hashed and written at once
    page_size: int = 1000  # entries of a list without `n`, and at most
    asks_for_basic: bool = False  # challenge for secret keys, not for tokens; both work either way
    read_only: bool = False  # refuse pushes and deletions
    idle_time: float = 60  # seconds without a byte of a body that somebody is sending
    # Requests a minute; 0 for any number.
    rate_limit: int = 0  # of a principal
    rate_limit_anonymous: int = 0  # of an address
    public_origin: str | None = None  # scheme://host of all URLs; None: those of the request
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # whose X-Forwarded-* headers are believed

    @property
    def limits_rates(self) -> bool:
        """Whether anybody can ask too often."""
        return bool(self.rate_limit or self.rate_limit_anonymous)

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: naming the setting.
        """
        for name in ("database_threads", "storage_threads", "piece_size", "page_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
