"""The images of one request, found again on disk: the same files, rendered the same way."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cxr_max.errors import ImageError
from cxr_max.image_cache import user_cache
from cxr_max.radiograph import VERSIONS, EncodedImage, Rendering
from cxr_max.shards import sha256_of


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Files that were read when a teacher was asked, and how they were rendered then."""

    paths: tuple[Path, ...]
    source_sha256: tuple[str, ...]
    """Of each file at that time."""
    rendering: str
    """As ``radiograph.rendering_id`` gave it: ``mimic_jpg-1@1024``."""

    def encoded(self) -> tuple[EncodedImage, ...]:
        """What the teacher was sent.

        Raises:
            ImageError: a file is missing, unreadable, or another than the teachers saw.
        """
        return tuple(self._one(*pair) for pair in zip(self.paths, self.source_sha256, strict=True))

    def _one(self, path: Path, expected: str) -> EncodedImage:
        require_source(path, expected)
        kind, version, long_side = parts_of(self.rendering)
        if version != str(VERSIONS.get(kind)):
            raise ImageError(
                f"{path.name} was rendered as {kind}-{version} when the teachers were asked, and this cxr-max"
                f" makes {kind}-{VERSIONS.get(kind)} of it, which is another picture: use the version that built"
                " the release, or build it again."
            )
        return rendered_again(path, kind, long_side)


def require_source(path: Path, expected: str) -> None:
    """Refuse a file that is not the one that teachers were asked about.

    Args:
        expected: its sha256 then.

    Raises:
        ImageError: the file is missing or another.
    """
    try:
        identity = path.stat()
        found = _sha256(path, identity.st_size, identity.st_mtime_ns)
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read ({error.strerror}): check --images.") from error
    if found != expected:
        raise ImageError(
            f"{path.name} is not the file that the teachers saw (sha256 {found[:12]}, not {expected[:12]}):"
            " check that --images names the same copy of the data set."
        )


def parts_of(rendering: str) -> tuple[str, str, int | None]:
    """Name, version and long side in pixels of what ``rendering_id`` gave, such as ``mimic_jpg-1@1024``."""
    named, _, size = rendering.partition("@")
    kind, _, version = named.rpartition("-")
    return kind, version, None if size == "full" else int(size)


def rendered_again(path: Path, kind: str, long_side: int | None) -> EncodedImage:
    """A file rendered by a rendering's name, as the present version does it.

    Raises:
        ImageError: see ``radiograph.encode``.
    """
    rendering: Rendering = "mimic_jpg" if kind == "as_is" else kind  # type: ignore[assignment]
    return user_cache().encoded(path, rendering, long_side)


@lru_cache(maxsize=2**20)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Of the file while it has this identity: training looks at it once per epoch, and hashing costs more."""
    return sha256_of(path)
