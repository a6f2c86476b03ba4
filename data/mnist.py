"""The MNIST database of handwritten digits (Y. LeCun, C. Cortes, C. Burges): found, or downloaded once."""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from data.errors import DataFormatError, DataNotFoundError
from data.files import BLOCK, plain, regular, replacing
from data.folder import find, read_folder
from data.splits import Dataset

if TYPE_CHECKING:
    from rich.progress import Progress

VARIABLE = "TWINKERNELS_DATA"
MIRRORS = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")
# Of the uncompressed content: the mirrors compress it differently.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MAX_DOWNLOAD = 1 << 28  # bytes of a file: the largest of the four has 9.9 MB, and pooch counts part of a piece as whole
TIMEOUT = 5.0  # seconds of silence after which a mirror is given up


def load() -> Dataset:
    """MNIST from the folder $TWINKERNELS_DATA if that is set, else from the cache, downloaded where missing.

    Raises DataNotFoundError where the folder holds no data, and where no mirror delivers it, with one
    sentence that says how to go on; DataFormatError for a damaged file.
    """
    if folder := os.environ.get(VARIABLE):
        try:
            return read_folder(folder)
        except DataNotFoundError as error:
            raise DataNotFoundError(f"${VARIABLE}: {error}") from None
    import pooch

    cache = Path(pooch.os_cache("twinkernels")) / "mnist"
    if any(find(cache, name) is None for name in SHA256):
        download(cache)
    return read_folder(cache)


def download(folder: Path) -> None:
    """Fetch into ``folder`` what it lacks of the four files, with a progress bar where stderr is a terminal.

    Each mirror in turn; a file appears whole and verified or not at all. Raises DataNotFoundError where every
    mirror fails.
    """
    import requests
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    failures = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        for mirror in MIRRORS:
            host = urlsplit(mirror).netloc
            try:
                if not _answers(mirror):
                    raise requests.ConnectionError
                for name in SHA256:
                    if find(folder, name) is None:
                        _fetch(mirror, name, folder, progress)
                return
            except requests.RequestException as error:
                status = getattr(error.response, "status_code", None)
                failures.append(f"{host}: " + (f"HTTP status {status}" if status else "no connection"))
            except DataFormatError as error:
                failures.append(f"{host}: {error}")
    raise DataNotFoundError(
        f"MNIST is not in {folder} and could not be downloaded ({'; '.join(failures)}): set ${VARIABLE} or "
        f"pass --data PATH to name a folder that holds it, or pass --data strokes, which needs no download"
    )


def _answers(mirror: str) -> bool:
    """Whether a mirror answers at all within TIMEOUT.

    The timeout of a request covers neither the name's look-up nor the sum over a host's many addresses, which
    behind a silent firewall is minutes; a thread that may be left behind covers everything.
    """
    import pooch

    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            url = f"{mirror}{next(iter(SHA256))}.gz"
            pooch.HTTPDownloader(timeout=TIMEOUT)(url, None, None, check_only=True)
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return answered.is_set()


def _fetch(mirror: str, name: str, folder: Path, progress: "Progress") -> None:
    import pooch

    bar = _Bar(progress, name)
    path = folder / f"{name}.gz"
    with replacing(path) as beside:
        fetch = pooch.HTTPDownloader(bar, chunk_size=1 << 16, timeout=TIMEOUT)
        fetch(f"{mirror}{name}.gz", str(beside), None)
        if _content_sha256(beside, path) != SHA256[name]:
            raise DataFormatError(f"{name}.gz had a wrong checksum and was removed")


def _content_sha256(beside: Path, path: Path) -> str | None:
    """Of the plain bytes of what will be the file at ``path``; None where it is damaged."""
    import hashlib  # here, as it loads OpenSSL

    digest = hashlib.sha256()
    try:
        with regular(beside) as file, plain(file, path) as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except DataFormatError:
        return None
    return digest.hexdigest()


class _Bar:
    """The progress bar that pooch expects, over a task of rich's. It sees every piece, and so ends what has no end."""

    def __init__(self, progress: "Progress", name: str) -> None:
        self.total = 0  # pooch sets it
        self._name = name
        self._received = 0
        self._progress = progress
        self._task = progress.add_task(name, total=None)

    def update(self, count: int) -> None:
        self._received += count
        if self._received > MAX_DOWNLOAD:
            raise DataFormatError(f"{self._name}.gz is larger than {MAX_DOWNLOAD} bytes")
        self._progress.update(self._task, total=self.total, advance=count)

    def reset(self) -> None:
        self._received = 0
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Nothing to do: rich closes all bars together."""
