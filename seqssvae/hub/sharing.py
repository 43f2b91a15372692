"""Run directories are written to a repository of the Hugging Face Hub, and read from one.

A repository holds what a run directory holds: `latest.json` and one checkpoint, and a card beside them. What is read is
not trusted: files of known names alone are fetched, none of them a pickle, and each is checked before it is used, as
those of any run are. `HF_TOKEN` and `HF_ENDPOINT` are those of huggingface_hub.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from seqssvae.errors import HubError, MissingPackageError, RunError
from seqssvae.runs.checkpoints import CHECKPOINTS, LATEST, MANIFEST, CheckpointFiles
from seqssvae.runs.files import (
    CALIBRATION,
    CARRIED,
    CONFIG,
    LAST,
    LIMITS,
    METRICS,
    OPTIMIZER,
    STATE,
    STEPS,
    VOCABULARY,
    WEIGHTS,
)
from seqssvae.runs.run import RunDirectory
from seqssvae.runs.storage import parse_json, read_file
from seqssvae.runs.writer import refuse_existing
from seqssvae.runs.writing import explained

CARD = "README.md"
FILES = (CONFIG, VOCABULARY, STATE, METRICS, WEIGHTS, LAST, OPTIMIZER, STEPS, CALIBRATION, *CARRIED, MANIFEST)
"""Files of a checkpoint that are written and read; of others no use is made."""
LARGEST = 1 << 34
"""Most bytes of a file of weights."""
MOST_BYTES = {**LIMITS, LATEST: 1 << 16, MANIFEST: 1 << 16}
"""Most bytes of the others."""

_PATH = re.compile(rf"{LATEST}|{CHECKPOINTS}/[0-9]{{8,19}}b?/(?P<name>[a-z_]+\.[a-z]+)", re.ASCII)


def push_run(run: str | Path, repository: str, card: str, private: bool | None = None, token: str | None = None) -> str:
    """Write the latest checkpoint of a run directory into a repository, which is made if need be.

    What another run left there is replaced, in one commit.

    Args:
        run: The run directory.
        repository: `USER/NAME`.
        card: The text of the repository's README.md.
        private: Whether a repository that is made is private; None: as your account has it.
        token: Of the hub; None: that of `HF_TOKEN`, or of `hf auth login`.

    Returns:
        The address of the repository.

    Raises:
        RunError: If the run cannot be read.
        HubError: If there is no token, no network, or the hub refuses.
        MissingPackageError: If huggingface_hub is not installed.
    """
    check_pushable(repository, token)
    token = _checked(token)
    hub, files = _hub(), CheckpointFiles(run)
    if files.folder == Path(run):
        raise RunError(f"{run} is of an earlier version; open it by SequenceSSVAE.load and save it to push it.")
    place = f"{CHECKPOINTS}/{files.folder.name}"
    latest = read_file(Path(run) / LATEST, MOST_BYTES[LATEST])
    if parse_json(latest, LATEST).get("checkpoint") != files.folder.name:
        raise RunError(f"{run} was trained further meanwhile; push it again.")
    added = {CARD: card.encode("utf-8"), LATEST: latest}
    added[f"{place}/{MANIFEST}"] = read_file(files.folder / MANIFEST, MOST_BYTES[MANIFEST])
    known = [name for name in FILES if name != MANIFEST and name in files]
    added |= {f"{place}/{name}": files.read(name, MOST_BYTES.get(name, LARGEST)) for name in known}
    with _explained(repository):
        api = hub.HfApi(token=token)
        url = api.create_repo(repository, private=private, exist_ok=True)
        there = {sibling.rfilename for sibling in api.model_info(repository).siblings or ()}
        gone = sorted(path for path in there - {*added} if path.startswith(f"{CHECKPOINTS}/"))
        operations = [hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=of) for path, of in added.items()]
        operations += [hub.CommitOperationDelete(path_in_repo=path) for path in gone]
        api.create_commit(repository, operations, commit_message=f"Checkpoint {files.folder.name} of a run of seqssvae")
    return str(url)


def check_pushable(repository: str, token: str | None = None) -> None:
    """Check that there is a token to write to the hub with, and a name, before there is any work done for it.

    Raises:
        HubError: If there is no token, or the name is none of a repository.
        MissingPackageError: If huggingface_hub is not installed.
    """
    hub = _hub()
    with _explained(repository):
        import_module("huggingface_hub.utils").validate_repo_id(repository)
    if _checked(token) is None and hub.get_token() is None:
        raise HubError("There is no token to write to the hub with: set HF_TOKEN, or log in by hf auth login.")


def pull_run(repository: str, path: str | Path, revision: str | None = None, token: str | None = None) -> None:
    """Make a run directory of what a repository holds, once all of it is there and right.

    Args:
        repository: `USER/NAME`.
        path: The directory, which must not exist.
        revision: A branch, tag or commit; None for the main branch.
        token: As of `push_run`; public repositories need none.

    Raises:
        RunError: If the directory exists, the repository holds no run, or a file of it is not what it should be.
        HubError: If there is no such repository or revision, or no network.
        MissingPackageError: If huggingface_hub is not installed.
    """
    hub, path, token = _hub(), Path(path), _checked(token)
    refuse_existing(path)
    if os.path.isdir(path) and any(path.iterdir()):  # left by a run that was stopped before its first step
        raise RunError(f"The directory {path} is not empty; name another one.")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with explained(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        staged = Path(folder) / "run"
        with _explained(repository):
            api = hub.HfApi(token=token)
            info = api.model_info(repository, revision=revision, files_metadata=True)
            known = {one.rfilename: one.size for one in info.siblings or () if _is_known(one.rfilename)}
            if LATEST not in known:
                raise RunError(f"The repository {repository} holds no run of seqssvae: there is no {LATEST} in it.")

            def fetch(name: str) -> None:
                size = known[name]
                if size is None or size > MOST_BYTES.get(name.rpartition("/")[2], LARGEST):
                    raise RunError(f"The repository {repository}: {name} has {size} bytes, which is too many.")
                api.hf_hub_download(repository, name, revision=info.sha, local_dir=staged)

            fetch(LATEST)
            chosen = f"{CHECKPOINTS}/{_latest(staged, repository)}/"
            for name in known:
                if name.startswith(chosen):
                    fetch(name)
        shutil.rmtree(staged / ".cache", ignore_errors=True)  # huggingface_hub's notes of what it has fetched
        _check(staged, repository)
        if path.is_dir():
            path.rmdir()
        os.rename(staged, path)


def _check(staged: Path, repository: str) -> None:
    """Read all of a run, so that what is wrong with it is found before there is a run directory."""
    directory = RunDirectory(staged)
    try:
        directory.read_checkpoint()
        _ = directory.network_pool
        for name in FILES:
            if name != MANIFEST and name in directory.files:
                directory.files.read(name, MOST_BYTES.get(name, LARGEST))
    except RunError as error:
        raise RunError(f"The repository {repository}: {str(error).replace(f'{staged}/', '')}") from error


def _latest(staged: Path, repository: str) -> str:
    """The name of the checkpoint that was fetched as the latest."""
    content = read_file(staged / LATEST, MOST_BYTES[LATEST])
    return str(parse_json(content, f"The repository {repository}: {LATEST}").get("checkpoint"))


def _checked(token: str | None) -> str | None:
    """A token without blanks around it, which must be one that can be sent."""
    token = None if token is None else token.strip()
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise HubError("The token is not one: it must be letters, digits and signs of ASCII without blanks.")
    return token


def _is_known(path: str) -> bool:
    match = _PATH.fullmatch(path)
    return match is not None and (match["name"] is None or match["name"] in FILES)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"Sharing needs the package {error.name}, which is not installed: pip install 'seqssvae[hub]'."
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Raise a sentence in place of what the library says."""
    from huggingface_hub import errors

    try:
        yield
    except (HubError, RunError):
        raise
    except errors.HFValidationError as error:
        raise HubError(f"{repository!r} is no name of a repository; give one as USER/NAME.") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"The repository {repository} has no such revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"There is no repository {repository}, or it is private and your token does not open it."
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise HubError(f"Your token is not one that may use {repository}: set HF_TOKEN to another.") from error
        text = " ".join((error.server_message or str(error)).split())
        raise HubError(f"The hub did not do it for {repository}: {text}") from error
    except Exception as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        if not names & {"TransportError", "ConnectionError", "TimeoutError", "LocalEntryNotFoundError"}:
            raise
        if "LocalProtocolError" in names:  # whose text may hold what was sent
            raise HubError(f"The hub cannot be asked for {repository}: the request is not one.") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HubError(f"The hub cannot be reached ({reason}); is there a network?") from error
