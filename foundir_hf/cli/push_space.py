"""`foundir push-space`: the page as a Space of Hugging Face."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from .common import UsageError, WorkError, check_writable


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "push-space",
        help="upload the web page to Hugging Face as a Space, or write its folder",
        description="The folder has the page, this package as source and its weights; nothing has to be published before.",
    )
    parser.add_argument("repository", nargs="?", metavar="OWNER/NAME", help="the Space; it is made if need be")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write the folder there, new or empty, and keep it")
    parser.add_argument("--dry-run", action="store_true", help="upload nothing; list the files and their size")
    parser.add_argument("--private", action="store_true", help="make the Space for yourself only")
    parser.set_defaults(run=run, checks_first=True)


def run(arguments: argparse.Namespace) -> None:
    """Builds the folder and uploads it."""
    if arguments.repository is None and arguments.output is None and not arguments.dry_run:
        raise UsageError("`push-space` needs OWNER/NAME, --output DIR, or --dry-run.")
    if arguments.repository is not None and arguments.repository.count("/") != 1:
        raise UsageError(f"`repository` must be OWNER/NAME, got {arguments.repository!r}.")
    if arguments.output is not None:
        check_writable(arguments.output)
    from ..space.push import build_space

    with tempfile.TemporaryDirectory(prefix="foundir-space-") as temporary:
        folder = arguments.output or Path(temporary) / "space"
        try:
            files = build_space(folder)
        except ValueError as error:
            raise UsageError(str(error)) from error
        size = sum((folder / file).stat().st_size for file in files) / 1e6
        if arguments.dry_run:
            for file in files:
                print(file)
        print(f"{len(files)} files, {size:.1f} MB" + (f" in {arguments.output}" if arguments.output else ""))
        if arguments.repository is not None and not arguments.dry_run:
            _upload(folder, arguments.repository, arguments.private)


def _upload(folder: Path, repository: str, private: bool) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        # What an earlier version had and this one has not goes too.
        api.upload_folder(
            repo_id=repository, repo_type="space", folder_path=folder, delete_patterns="*", commit_message="foundir push-space"
        )
    except Exception as error:  # the Hub client raises a dozen unrelated types
        raise WorkError(f"{repository}: cannot be uploaded: {' '.join(str(error).split())}") from error
    print(url)
