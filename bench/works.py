"""All that is done to every side, in this order."""

from typing import Final

from bench.images import IMAGES
from bench.reads import READS
from bench.uploads import UPLOADS
from bench.work import Work

WORKS: Final[tuple[Work, ...]] = (*READS, *UPLOADS, *IMAGES)
