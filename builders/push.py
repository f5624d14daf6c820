"""A release -> a data set repository of the Hugging Face Hub, the same tree however often it was interrupted.

Shards are uploaded first, and what the Hub holds already is not sent again. Nothing of them is
visible before the one commit that adds all files, the manifest among them, so a repository never shows half a
release.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.builders.published import MANIFEST, Watch, data_use_of, sealed_files
from cxr_max.builders.release import read_manifest
from cxr_max.data_use import check_outlet
from cxr_max.errors import RequestError, UnfinishedError
from cxr_max.shards import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub._commit_api import CommitOperation
    from huggingface_hub.hf_api import RepoFile

_KIND: Final = "dataset"
_SHARDS: Final = "data/*.parquet"
_AT_ONCE: Final = 16
"""Files that are asked about in one request: what is there already costs no more than that."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is on the Hub now."""

    url: str
    repo: str
    revision: str
    """The commit whose files were held against the manifest."""
    tag: str | None
    files: int
    bytes: int
    changed: bool
    """False where the Hub had it all already."""
    simulated: bool


def push(
    folder: Path, repo: str, *, private: bool = False, tag: str | None = None, api: "HfApi | None" = None,
    watch: Watch = lambda *_: None,
) -> Pushed:  # fmt: skip
    """Publish a release. The same call again goes on where one was interrupted.

    Args:
        folder: the release.
        repo: ``ORG/NAME``; made if it is not there.
        private: of a repository that is made; one that is there stays as it is.
        tag: given to the commit; one that is there already must hold the same files.

    Raises:
        DataUseError: the terms of the images forbid it; nothing was sent.
        RequestError: the release is not sealed or not whole, or the Hub does not allow it.
        UnfinishedError: the Hub cannot be reached or broke off.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo):
        raise RequestError(f"{repo!r} is no name of a repository: give --repo ORG/NAME.")
    manifest = read_manifest(folder)
    check_outlet(manifest["source"]["title"], manifest["source"]["data_use"], "hub")
    files = sealed_files(folder, manifest, watch)
    check_outlet(manifest["source"]["title"], data_use_of(files, manifest), "hub")
    files |= {MANIFEST: folder / MANIFEST}
    hub = _Hub(api or _api(), repo)
    with _named(repo):
        hub.api.create_repo(repo, repo_type=_KIND, private=private or None, exist_ok=True)
        tagged = hub.tagged(tag)
        if tagged is not None:
            hub.require(files, tagged, f"The tag {tag} of {repo} holds another release: choose another tag.")
        there = hub.tree("main")
        changed = not _same(files, there) or bool(hub.stale(files, there))
        revision = hub.upload(files, there, manifest, watch) if changed else hub.head()
        hub.require(files, revision, f"{repo} does not hold what was sent: run the same command again.")
        if tag is not None and tagged is None:
            hub.api.create_tag(repo, tag=tag, revision=revision, repo_type=_KIND, exist_ok=True)
    size = sum(path.stat().st_size for path in files.values())
    url = f"{hub.api.endpoint}/datasets/{repo}"
    return Pushed(url, repo, revision, tag, len(files), size, changed, bool(manifest["simulated"]))


def _api() -> "HfApi":
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise RequestError(
            "There is no token for the Hub: run hf auth login, or set HF_TOKEN to one that may write."
        )
    return HfApi(library_name="cxr-max")


@contextmanager
def _named(repo: str) -> Iterator[None]:
    """The Hub's refusals and silences in a sentence; no header and no token is in it."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise RequestError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403, 404):
            raise RequestError(
                f"The Hub does not let this token write to {repo} (HTTP {status}): check the name, and that the"
                " token has write access to it."
            ) from error
        raise UnfinishedError(
            f"The Hub answered HTTP {status}: the same command again goes on from here."
        ) from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        raise UnfinishedError(
            f"The connection to the Hub broke ({type(error).__name__}): the same command again goes on from here."
        ) from error


@dataclass(frozen=True, slots=True)
class _Hub:
    """One repository."""

    api: "HfApi"
    repo: str

    def tree(self, revision: str) -> dict[str, "RepoFile"]:
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.repo, repo_type=_KIND, revision=revision, recursive=True)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def tagged(self, tag: str | None) -> str | None:
        """The commit that a tag stands for; ``None`` where there is no such tag."""
        if tag is None:
            return None
        refs = self.api.list_repo_refs(self.repo, repo_type=_KIND)
        return next((ref.target_commit for ref in refs.tags if ref.name == tag), None)

    def head(self) -> str:
        refs = self.api.list_repo_refs(self.repo, repo_type=_KIND)
        return next(ref.target_commit for ref in refs.branches if ref.name == "main")

    def stale(self, files: Mapping[str, Path], there: Mapping[str, Any]) -> list[str]:
        """Shards that would be loaded with the release and are none of it.

        Raises:
            RequestError: they are no earlier release's, so that they are not ours to remove.
        """
        strangers = [name for name in there if name not in files and fnmatch(name, _SHARDS)]
        if strangers and MANIFEST not in there:
            raise RequestError(
                f"{self.repo} holds other data, such as {strangers[0]}, which would be loaded with the release:"
                " choose another --repo, or remove it there."
            )
        return strangers

    def upload(
        self, files: Mapping[str, Path], there: Mapping[str, Any], manifest: Mapping[str, Any], watch: Watch
    ) -> str:
        """Send what is missing, and commit everything at once; the commit's id."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        stale = self.stale(files, there)
        new = [name for name, path in files.items() if not _equal(path, there.get(name))]
        adding = [CommitOperationAdd(name, files[name]) for name in sorted(new, key=lambda name: name == MANIFEST)]
        self._send_shards(adding, watch)
        removing = [CommitOperationDelete(name, is_folder=False) for name in stale]
        operations: list[CommitOperation] = [*adding, *removing]
        rows = manifest["counts"]["trajectories"]["rows"]
        simulated = " of simulated teachers" if manifest["simulated"] else ""
        message = f"{rows} trajectories{simulated}, digest {manifest['trajectories_digest'][:12]}"
        return str(self.api.create_commit(self.repo, operations, commit_message=message, repo_type=_KIND).oid)

    def _send_shards(self, adding: Sequence["CommitOperationAdd"], watch: Watch) -> None:
        total, done = sum(one.upload_info.size for one in adding), 0
        for start in range(0, len(adding), _AT_ONCE):
            watch("Uploading (bytes)", done, total)
            some = adding[start : start + _AT_ONCE]
            self.api.preupload_lfs_files(self.repo, some, repo_type=_KIND, free_memory=False)
            done += sum(one.upload_info.size for one in some)
        watch("Uploading (bytes)", done, total)

    def require(self, files: Mapping[str, Path], revision: str, otherwise: str) -> None:
        if not _same(files, self.tree(revision)):
            raise RequestError(otherwise)


def _same(files: Mapping[str, Path], there: Mapping[str, "RepoFile"]) -> bool:
    return all(_equal(path, there.get(name)) for name, path in files.items())


def _equal(path: Path, there: "RepoFile | None") -> bool:
    """By hash: sha256 of what is stored apart from git (LFS or Xet), git's own of the rest."""
    if there is None or there.size != path.stat().st_size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == sha256_of(path))
    content = path.read_bytes()
    blob = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return bool(there.blob_id == blob)
