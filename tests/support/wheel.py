"""Builds the wheel, installs it in an environment of its own, and runs every command there, outside the checkout.

    python -m tests.support.wheel [FOLDER]

It needs a network for what the wheel requires, and a few minutes. FOLDER is kept; without one a temporary folder is
used and removed. Exit status 1 and the command's output where one does not do what it should.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
TWINS = """
from twinkernels.bench import case, twins

double = twins(numpy=lambda x: x + x, other=lambda x: 2 * x)
case(double, "small")(lambda draw: {"x": draw.normal(8)})
"""
ASSET = re.compile(r'(?:src|href)="([^"#:]+)"')


def main() -> None:
    """Everything, in the folder that is named or in one that is removed again."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m tests.support.wheel", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where all of it stays; else it is removed again")
    chosen = parser.parse_args().folder
    if chosen is not None:
        check(chosen.absolute())
    else:
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder))


def check(folder: Path) -> None:
    """Build, install and run in a folder."""
    python = _environment(folder / "build", "build")
    subprocess.run(
        [python, "-m", "build", "--wheel", "--outdir", str(folder / "dist"), str(ROOT)], check=True, stdout=sys.stderr
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    python = _environment(folder / "installed", f"{wheel}[plots,draw,study,images]")
    empty = folder / "empty"
    empty.mkdir()
    installed = Installed(python, empty)

    assert installed("-c", "import twinkernels; print(twinkernels.__file__)").startswith(str(folder))
    version = installed("-c", "import importlib.metadata as m; print(m.version('twinkernels'))").strip()
    assert installed.command("--version") == f"twinkernels {version}\n"
    assert installed("-m", "twinkernels", "--version") == f"twinkernels {version}\n"
    assert "cnn-record" in installed.command("list")
    trained = installed.command("train", "mlp-512", "--epochs", "1", "--out", "run")
    assert installed.command("evaluate", "run").splitlines()[-1] == trained.splitlines()[-1]
    digit = "data.load('strokes').test.images[0, ..., 0]"
    installed("-c", f"import data; from PIL import Image; Image.fromarray({digit}).save('a.png')")
    assert installed.command("predict", "run", "a.png").startswith("a.png\t")
    assert "report in" in installed.command("report", "run", "--no-profile")
    assert "picture in profile-mlp-512.png" in installed.command("profile", "mlp-512")
    assert "page in explore-strokes.html" in installed.command("explore", "strokes")
    study = "--factor", "smoothing", "--trials", "0"
    assert "0 of 75 trainings" in installed.command("study", *study)
    (empty / "own.py").write_text(TWINS, encoding="utf-8")
    assert installed.command("check", "own.py").endswith("2 of 2 hold\n")
    assert "double/small" in installed.command("bench", "own.py")
    installed.draws()
    print(f"{wheel.name} is whole")


def _environment(path: Path, requirement: str) -> str:
    """A fresh environment with one requirement; its Python."""
    venv.create(path, with_pip=True)
    python = path / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
    return str(python)


class Installed:
    """Programs of an environment, run in an empty folder with nothing of the checkout in sight."""

    def __init__(self, python: str, folder: Path) -> None:
        self._python = python
        self._options = {
            "cwd": folder,
            "env": {name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "stdout": subprocess.PIPE,
            "text": True,
        }

    def __call__(self, *arguments: str) -> str:
        """What Python prints."""
        return self._run([self._python, *arguments])

    def command(self, *arguments: str) -> str:
        """What the command prints."""
        return self._run([str(Path(self._python).with_name("twinkernels")), *arguments])

    def _run(self, arguments: list[str]) -> str:
        print(" ".join(arguments[1:3]), file=sys.stderr)
        done = subprocess.run(arguments, stderr=subprocess.STDOUT, timeout=900, **self._options)  # type: ignore[call-overload]
        if done.returncode:
            sys.exit(f"{arguments} ended with {done.returncode}:\n{done.stdout}")
        return str(done.stdout)

    def draws(self) -> None:
        """The page that `draw` serves comes with all it refers to."""
        command = [str(Path(self._python).with_name("twinkernels")), "draw", "--port", "0"]
        with subprocess.Popen(command, **self._options) as child:  # type: ignore[call-overload]
            address = child.stdout.readline().split()[0]
            page = urllib.request.urlopen(address, timeout=60).read().decode()
            assets = ASSET.findall(page)
            assert len(assets) >= 3, assets
            for name in assets:
                assert urllib.request.urlopen(f"{address}{name.lstrip('/')}", timeout=60).read(), name
            child.send_signal(signal.SIGINT)
            child.wait(60)


if __name__ == "__main__":
    main()
