"""All works, in the order in which they are measured."""

from typing import Final

from bench.images import IMAGES
from bench.reads import READS
from bench.uploads import UPLOADS
from bench.work import Work

WORKS: Final[tuple[Work, ...]] = (*READS, *UPLOADS, *IMAGES)
