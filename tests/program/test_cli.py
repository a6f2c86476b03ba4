"""The command: what it prints, keeps and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer

import data
import kernels
import models
import twinkernels
from data import strokes
from kernels import compiling
from twinkernels import cli, recipes, runs

from ..support import processes
from ..support.digits import write_folder

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    (x, y), (xt, yt) = strokes.load(train=600, test=120)
    return data.Dataset(data.Split(x, y), data.Split(xt, yt))


@pytest.fixture(scope="module")
def folder(digits: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("digits"), digits)


@pytest.fixture(scope="module")
def kept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "mlp-512", "--backend", "numpy", "--data", str(folder), "--epochs", "2", "--out", str(out)])
    assert end.value.code == 0
    return out


def process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twinkernels", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


# What it takes -----------------------------------------------------------------------------------------------


def test_version_is_the_packages(run):
    assert run("--version") == (0, [f"twinkernels {twinkernels.__version__}"], [])
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"twinkernels {twinkernels.__version__}\n", "")


def test_without_a_command_help_is_shown(run):
    status, out, err = run()
    assert (status, err) == (0, [])
    assert {name for line in out for name in line.split()} >= set(typer.main.get_command(cli.app).commands)


def test_an_option_is_described_in_the_same_words_wherever_it_is_taken():
    """But for --out, which is a folder here and a page there, and the --data of evaluate, which may be a picture."""
    words: dict[str, set[tuple[str, str]]] = {}
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help or "--help" in parameter.opts, f"{name} {parameter.name}"
            for option in parameter.opts:
                if option.startswith("--") and (name, option) != ("evaluate", "--data") and option != "--out":
                    words.setdefault(option, set()).add((parameter.help, parameter.metavar))
    assert {option for option, said in words.items() if len(said) > 1} == set()
    assert {"--threads", "--backend", "--data", "--seed", "--batch-size", "--epochs"} <= set(words)


# What it prints and keeps ------------------------------------------------------------------------------------


def test_list_shows_every_recipe_with_its_figures(run):
    status, out, err = run("list")
    assert (status, err) == (0, [])
    rows = {line.split()[0]: line for line in out if line[:1].strip()}
    for recipe in recipes.RECIPES.values():
        assert type(recipe.optimizer).__name__ in rows[recipe.name]
        assert recipe.published in rows[recipe.name]
        assert f"{recipe.floor:g}" in rows[recipe.name]


def test_list_shows_what_was_measured_on_each_backend(run, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "FIGURES", tmp_path / "figures.json")
    recipes.FIGURES.write_text('{"cnn-bn": {"numba": 0.98912, "numpy": 0.9899}, "mlp-512": {"numba": 0.9812}}')
    _, out, _ = run("list")
    ends = {line.split()[0]: line.split()[-2:] for line in out if line[:1].strip()}
    assert ends["recipe"] == ["numpy", "numba"]
    assert ends["cnn-bn"] == ["0.9899", "0.9891"]
    assert ends["mlp-512"] == ["–", "0.9812"]
    assert ends["cnn-fast"] == ["–", "–"]


@pytest.mark.parametrize("recipe", recipes.RECIPES)
@pytest.mark.parametrize("backend", kernels.names())
def test_every_recipe_trains(run, folder, recipe, backend):
    status, out, err = run("train", recipe, "--backend", backend, "--data", folder, "--iterations", 4)
    assert (status, err) == (0, [])
    assert out[-1].startswith("test accuracy 0.")
    assert len(out[-1]) == len("test accuracy 0.9903")


def test_train_prints_a_line_an_epoch_and_the_accuracy_of_the_kept_model_last(folder, digits, tmp_path):
    done = process(
        "train",
        "mlp-512",
        "--backend",
        "numpy",
        "--data",
        folder,
        "--epochs",
        3,
        "--batch-size",
        32,
        "--seed",
        7,
        "--threads",
        1,
        "--out",
        tmp_path / "run",
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("epoch")] == [["epoch", str(n)] for n in (1, 2, 3)]
    accuracy = models.load(tmp_path / "run" / "model.safetensors", "numpy").evaluate(*digits.test).accuracy
    assert lines[-1] == f"test accuracy {accuracy:.4f}"
    assert accuracy > 0.5
    again = process("evaluate", tmp_path / "run", "--data", folder, "--backend", "numpy")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[-1] == lines[-1]


def test_out_keeps_configuration_history_and_model(kept, folder):
    assert sorted(str(path.relative_to(kept)) for path in kept.rglob("*.*")) == [
        "checkpoints/step-00000005.safetensors",
        "checkpoints/step-00000010.safetensors",
        "config.json",
        "history.jsonl",
        "model.safetensors",
    ]
    config = json.loads((kept / "config.json").read_text())
    expected = {
        "recipe": "mlp-512",
        "network": "mlp-512",
        "backend": "numpy",
        "data": str(folder),
        "seed": 0,
        "epochs": 2,
        "iterations": None,
        "batch_size": 128,
        "threads": kernels.get_threads(),
    }
    assert {name: config[name] for name in expected} == expected
    assert config["optimizer"]["type"] == "RMSProp"
    epochs = [json.loads(line) for line in (kept / "history.jsonl").read_text().splitlines()]
    assert [(epoch["epoch"], epoch["step"]) for epoch in epochs] == [(1, 5), (2, 10)]
    assert epochs[1]["loss"] < epochs[0]["loss"]


def test_without_out_nothing_is_kept_and_train_says_how_to(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("train", "mlp-512", "--backend", "numpy", "--data", folder, "--iterations", 1)
    assert status == 0
    assert "--out RUN" in out[-2]
    assert list(tmp_path.iterdir()) == []


def test_evaluate_takes_the_file_as_well_as_the_folder(run, kept, folder):
    first = run("evaluate", kept, "--data", folder)
    assert first == run("evaluate", kept / "model.safetensors", "--data", folder)
    assert first[0] == 0
    assert first[1][0].startswith("test loss ")


def test_a_run_in_bfloat16_is_evaluated_and_resumed_in_bfloat16(run, folder, digits, tmp_path):
    out = tmp_path / "run"
    train = ["train", "mlp-512", "--backend", "numpy", "--data", folder, "--iterations", 6]
    status, lines, err = run(*train, "--precision", "bfloat16", "--out", out)
    assert (status, err) == (0, [])
    assert json.loads((out / "config.json").read_text())["precision"] == "bfloat16"
    kept = models.load(out / "model.safetensors", "numpy")
    found = {
        precision: kept.to("numpy", precision=precision).evaluate(digits.test.images, digits.test.labels)
        for precision in ("float32", "bfloat16")
    }
    shown = {precision: f"test loss {tested.loss:.4f} on {folder}" for precision, tested in found.items()}
    assert shown["bfloat16"] in lines
    assert shown["bfloat16"] != shown["float32"]
    for arguments, expected in (([], "bfloat16"), (["--precision", "float32"], "float32")):
        assert run("evaluate", out, "--backend", "numpy", *arguments)[1][0] == shown[expected]
    assert run("train", "--resume", out, "--precision", "float32")[2] == [
        f"twinkernels: {out}: precision of this run is 'bfloat16', 'float32' was asked for"
    ]
    assert run("train", "mlp-512", "--precision", "half")[2] == [
        "twinkernels: run: precision is 'half', expected one of float32, float64, bfloat16"
    ]
    config = json.loads((out / "config.json").read_text())
    del config["precision"]  # as earlier versions wrote it
    assert runs.parse_options(out, json.dumps(config).encode()).precision == "float32"


def test_a_model_in_float64_is_evaluated_in_its_own_precision(run, folder, digits, tmp_path):
    model = models.build("mlp-nobias", "numpy", dtype=np.float64, normalisation=(0.1, 0.3))
    model.save(tmp_path / "wide.safetensors")
    loss = model.evaluate(digits.test.images, digits.test.labels).loss
    loss = model.evaluate(digits.test.images, digits.test.labels).loss
    status, lines, err = run("evaluate", tmp_path / "wide.safetensors", "--backend", "numpy", "--data", folder)
    assert (status, err, lines[0]) == (0, [], f"test loss {loss:.4f} on {folder}")


def test_evaluate_reads_the_runs_own_data_unless_told(run, kept, folder, tmp_path):
    own = run("evaluate", kept)
    assert own == run("evaluate", kept / "model.safetensors")
    assert own == run("evaluate", kept, "--data", folder)
    assert own[1][0].endswith(f" on {folder}")
    alone = tmp_path / "model.safetensors"
    alone.write_bytes((kept / "model.safetensors").read_bytes())
    assert run("evaluate", alone)[1][0].endswith(" on strokes")


def test_evaluate_of_a_run_that_was_handed_its_data_asks_for_it(run, digits, tmp_path):
    runs.run("mlp-512", digits, backend="numpy", iterations=2, out=tmp_path / "run")
    status, out, err = run("evaluate", tmp_path / "run")
    assert (status, out, len(err)) == (2, [], 1)
    assert "was handed its data; say which with --data" in err[0]


def test_every_line_of_figures_names_its_data_but_the_last(run, folder, tmp_path):
    options = ("--data", folder, "--iterations", 7, "--validation", 0.2, "--out", tmp_path / "run")
    for arguments in (*TRAIN, *options), ("train", "--resume", tmp_path / "run"), ("evaluate", tmp_path / "run"):
        status, out, err = run(*arguments)
        assert (status, err) == (0, [])
        figures = [line for line in out if "loss " in line or "accuracy " in line]
        assert any(line.startswith("test loss ") for line in figures)
        assert all(str(folder) in line for line in figures[:-1]), figures
        assert out[-1] == figures[-1]
        assert re.fullmatch(r"test accuracy \d\.\d{4}", out[-1])


def test_threads_sets_the_kernels_threads(run, kept, folder):
    try:
        assert run("evaluate", kept, "--data", folder, "--threads", 2)[0] == 0
        assert kernels.get_threads() == 2
    finally:
        kernels.set_threads(1)


def test_predict_reads_idx_and_pictures(run, kept, digits, tmp_path):
    from PIL import Image, ImageOps

    images = digits.test.images[:3]
    model = models.load(kept / "model.safetensors", "numpy")
    logits = model.predict(images)
    share = np.exp(logits - logits.max(1, keepdims=True))
    expected = [f"{row.argmax()}\t{row.max():.4f}" for row in share / share.sum(1, keepdims=True)]

    many, one = tmp_path / "many-idx3-ubyte.gz", tmp_path / "one-idx3-ubyte"
    data.write_idx(many, images[..., 0])
    data.write_idx(one, images[0, ..., 0])
    bright, paper = tmp_path / "bright.png", tmp_path / "paper.png"
    Image.fromarray(images[1, ..., 0]).save(bright)
    ImageOps.invert(Image.fromarray(images[2, ..., 0])).save(paper)

    status, out, err = run("predict", kept, many, one, bright, paper)
    assert (status, err) == (0, [])
    assert out == [
        *(f"{many}[{at}]\t{line}" for at, line in enumerate(expected)),
        f"{one}\t{expected[0]}",
        f"{bright}\t{expected[1]}",
        f"{paper}\t{expected[2]}",
    ]


def test_predict_reads_folders_and_csv_files_as_it_reads_idx_files(run, kept, digits, tmp_path):
    from PIL import Image

    images, labels = digits.test.images[:4], digits.test.labels[:4]
    data.write_idx(tmp_path / "digits-idx3-ubyte", images[..., 0])
    np.savetxt(tmp_path / "digits.csv", np.c_[labels, images.reshape(4, -1)], fmt="%d", delimiter=",")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    names = ["a.png", "b.PNG", "deep/c.png", "deep/d.png"]
    for name, image in zip(names, images[..., 0], strict=True):
        Image.fromarray(image).save(tmp_path / "folder" / name)
    (tmp_path / "folder" / "notes.txt").write_text("no picture")

    _, expected, _ = run("predict", kept, tmp_path / "digits-idx3-ubyte")
    readings = [line.split("\t", 1)[1] for line in expected]
    status, out, err = run("predict", kept, tmp_path / "digits.csv", tmp_path / "folder")
    assert (status, err) == (0, [])
    assert out == [
        *(f"{tmp_path / 'digits.csv'}[{at}]\t{reading}" for at, reading in enumerate(readings)),
        *(f"{tmp_path / 'folder' / name}\t{reading}" for name, reading in zip(names, readings, strict=True)),
    ]


def test_predict_answers_for_the_others_where_one_is_bad(run, kept, digits, tmp_path):
    from PIL import Image

    folder = tmp_path / "folder"
    folder.mkdir()
    for name, image in zip("abc", digits.test.images[..., 0], strict=False):
        Image.fromarray(image).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:50])
    (folder / "d.heic").write_bytes(b"\0\0\0\x18ftypheic")
    good = [run("predict", kept, folder / f"{name}.png")[1][0] for name in "ac"]

    status, out, err = run("predict", kept, folder, tmp_path / "nowhere.png", folder / "a.png")
    assert (status, out) == (1, [*good, good[0]])
    assert [line.split(": ")[:2] for line in err] == [
        ["twinkernels", str(path)] for path in (folder / "b.png", folder / "d.heic", tmp_path / "nowhere.png")
    ]
    status, out, err = run("predict", kept, folder / "b.png", tmp_path / "nowhere.png")
    assert (status, out, len(err)) == (1, [], 2)


def test_evaluate_reads_labelled_files_and_folders(run, kept, digits, tmp_path):
    from PIL import Image

    images, labels = digits.test
    data.write_idx(tmp_path / "my-images-idx3-ubyte.gz", images[..., 0])
    data.write_idx(tmp_path / "my-labels-idx1-ubyte.gz", labels)
    np.savetxt(tmp_path / "digits.csv", np.c_[labels, images.reshape(len(images), -1)], fmt="%d", delimiter=",")
    for at, (image, label) in enumerate(zip(images[..., 0], labels, strict=True)):
        folder = tmp_path / "pictures" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{at}.png")

    accuracy = models.load(kept / "model.safetensors").evaluate(images, labels).accuracy
    assert 0.2 < accuracy < 1
    for source in ("my-images-idx3-ubyte.gz", "digits.csv", "pictures"):
        status, out, err = run("evaluate", kept, "--data", tmp_path / source)
        assert (status, err) == (0, []), source
        assert out[-1] == f"test accuracy {accuracy:.4f}", source


# What it refuses ---------------------------------------------------------------------------------------------

TRAIN = ("train", "mlp-512", "--backend", "numpy")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "lenet"], "unknown recipe 'lenet'; expected one of mlp-meannorm"),
        (["train", "mlp-512", "--backend", "cuda"], "unknown backend 'cuda'; expected one of numpy, numba"),
        ([*TRAIN, "--epochs", "0"], "--epochs"),
        ([*TRAIN, "--epochs", "many"], "--epochs"),
        ([*TRAIN, "--iterations", "-1"], "--iterations"),
        ([*TRAIN, "--epochs", "1", "--iterations", "1"], "expected one of them"),
        ([*TRAIN, "--batch-size", "0"], "--batch-size"),
        ([*TRAIN, "--seed", "-1"], "--seed"),
        ([*TRAIN, "--threads", "0"], "--threads"),
        ([*TRAIN, "--threads", "9" * 30], "expected at most 4096"),
        ([*TRAIN, "--batch-size", "9" * 15], "batch_size is 999999999999999, expected at most 2147483647"),
        ([*TRAIN, "--out", "blank.png"], "blank.png exists already"),
        ([*TRAIN, "--out", "blank.png/run"], "blank.png/run: Not a directory"),
        ([*TRAIN, "--data", ""], "path is '', expected a path"),
        ([*TRAIN, "--data", "blank.png"], "blank.png is not a folder"),
        (["train", "--resume", "half"], "half/config.json: not a readable configuration"),
        (["list", "cnn-bn"], "unexpected extra argument"),
        ([*TRAIN, "--data", "nowhere"], "nowhere does not exist"),
        ([*TRAIN, "--data", "."], "bad.csv: line 1: 3 columns"),
        ([*TRAIN, "--speed", "2"], "No such option: --speed"),
        (["train"], "Missing argument 'RECIPE'"),
        (["fly"], "No such command 'fly'"),
        (["evaluate", "nowhere.safetensors"], "no model at nowhere.safetensors"),
        (["evaluate", "damaged.safetensors"], "damaged.safetensors: not a readable model"),
        (["evaluate", "damaged.safetensors", "--backend", "cuda"], "unknown backend 'cuda'"),
        (["predict", "kept"], "Missing argument 'IMAGE...'"),
        (["predict", "kept", "nowhere.png"], "nowhere.png: No such file"),
        (["predict", "kept", "damaged.safetensors"], "damaged.safetensors: not a readable picture"),
        (["predict", "kept", "labels-idx1-ubyte"], "expected (N, 28, 28) uint8"),
        (["predict", "kept", "blank.png"], "blank.png: no ink"),
        (["predict", "kept", "two.png"], "two.png: more than one digit"),
        (["evaluate", "kept", "--data", "pairs"], "two.png: more than one digit"),
        (["predict", "kept", "empty"], "empty holds no pictures"),
        (["predict", "kept", "small-images-idx3-ubyte"], "holds (2, 14, 14) uint8, expected (N, 28, 28)"),
        (["predict", "kept", "bad.csv"], "bad.csv: line 1: 3 columns"),
        (["evaluate", "kept", "--data", "empty"], "holds no data"),
        (["evaluate", "kept", "--data", "mixed"], "mixed holds no labels"),
        (["evaluate", "kept", "--data", "small-images-idx3-ubyte"], "has no labels"),
        (["evaluate", "kept", "--data", "blank.png"], "blank.png has no labels"),
        (["evaluate", "kept", "--data", "bad.csv"], "bad.csv: line 1: 3 columns"),
        (["evaluate", "kept", "--data", "labelled"], "11"),
        (["evaluate", "kept", "--data", "strayed"], "strayed/x/a.png lies in no label's folder"),
        (
            ["predict", "kept", "moving.png"],
            "moving.png: not a readable picture (2 pictures in one file, expected one)",
        ),
        ([*TRAIN, "--validation", "1"], "validation is 1.0"),
        ([*TRAIN, "--validation", "1e-5"], "validation is 1e-05 of 20000 training images, which is none"),
    ],
)
def test_a_mistake_ends_with_status_2_and_one_line(run, kept, tmp_path, monkeypatch, arguments, words):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("kept").symlink_to(kept)
    Path("damaged.safetensors").write_bytes(b"\x10\x27" * 20)
    data.write_idx("labels-idx1-ubyte", np.zeros(4, np.uint8))
    Image.new("L", (40, 40), 255).save("blank.png")
    two = np.full((60, 100), 255, np.uint8)
    two[10:50, 20:28] = two[10:50, 70:78] = 0
    Path("pairs/1").mkdir(parents=True)
    for name in ("two.png", "pairs/1/two.png"):
        Image.fromarray(two).save(name)
    data.write_idx("small-images-idx3-ubyte", np.zeros((2, 14, 14), np.uint8))
    Path("bad.csv").write_text("7,0,0\n")
    Path("half").mkdir()
    Path("half/config.json").write_text('{"recipe": "mlp-512"')
    Image.new("L", (28, 28)).save("moving.png", "GIF", save_all=True, append_images=[Image.new("L", (28, 28), 255)])
    for name in ("empty", "mixed", "labelled/0", "labelled/11", "strayed/0", "strayed/x"):
        Path(name).mkdir(parents=True)
    for name in ("mixed/a.png", "labelled/0/a.png", "labelled/11/a.png", "strayed/0/a.png", "strayed/x/a.png"):
        Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(name)
    Path("mixed/cut.png").write_bytes(Path("mixed/a.png").read_bytes()[:50])
    status, out, err = run(*arguments)
    assert status == 2
    assert not any(line.startswith(("epoch", "test")) for line in out)
    assert len(err) == 1
    assert err[0].startswith("twinkernels: ")
    assert words in err[0]


@pytest.mark.parametrize("value", [None, "x", -1, 2.5, [], {}, True, 10**30, {"type": "Exception"}], ids=repr)
def test_a_configuration_that_is_none_ends_with_one_line(run, kept, tmp_path, value):
    config = json.loads((kept / "config.json").read_text())
    names = ("optimizer", "schedule", "loss", "batch_size", "network", "backend", "seed", "threads")
    for name in names:
        if (name, value) in (("seed", 10**30), ("batch_size", True)):
            continue  # a seed may be as large as it likes
        (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
        status, out, err = run("train", "--resume", tmp_path)
        assert (status, out, len(err)) == (2, [], 1), name


def test_a_mistake_leaves_no_traceback_and_no_folder(folder, tmp_path):
    done = process("train", "mlp-512", "--data", tmp_path, "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("twinkernels: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_out_onto_an_existing_run_is_refused_and_changes_nothing(run, kept, folder):
    before = {path: path.read_bytes() for path in kept.rglob("*.*")}
    status, out, err = run(*TRAIN, "--data", folder, "--epochs", 1, "--out", kept)
    assert (status, out, len(err)) == (2, [], 1)
    assert f"{kept} exists already; expected a new folder for the run" in err[0]
    assert {path: path.read_bytes() for path in kept.rglob("*.*")} == before


@pytest.mark.parametrize(
    "command", [("train", "mlp-512", "--out"), ("evaluate",), ("predict",), ("report",), ("profile",)], ids=" ".join
)
def test_an_unfinished_run_says_how_to_go_on(run, kept, folder, tmp_path, command):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("config.json", "history.jsonl"):
        (out / name).write_bytes((kept / name).read_bytes())
    status, printed, err = run(*command, out, *(["digit.png"] if command == ("predict",) else []))
    assert (status, printed, len(err)) == (2, [], 1)
    assert err[0].endswith(f"; twinkernels train --resume {out} goes on with it")


def test_data_that_does_not_fit_is_refused_before_training(run, digits, tmp_path):
    write_folder(tmp_path, data.Dataset(digits.train, data.Split(digits.test.images, digits.test.labels + 10)))
    status, out, err = run(*TRAIN, "--data", tmp_path, "--epochs", 1)
    assert (status, out, len(err)) == (2, [], 1)
    assert "labels" in err[0]


def test_pictures_without_pillow_say_what_to_install(run, kept, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "digit.png").write_bytes(b"\x89PNG")
    status, _, err = run("predict", kept, tmp_path / "digit.png")
    assert (status, len(err)) == (2, 1)
    assert "pip install 'twinkernels[images]'" in err[0]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
@pytest.mark.parametrize("kept", [False, True], ids=["not kept", "kept"])
def test_interrupt_ends_with_status_130_and_one_line(folder, tmp_path, kept):
    command = [sys.executable, "-m", "twinkernels", *TRAIN, "--data", str(folder), "--epochs", "30000"]
    out = tmp_path / "my run"
    if kept:
        command += ["--out", str(out)]
    # A shell starts background jobs with SIGINT ignored, which a child inherits unless it is caught here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stdout is not None
        while not child.stdout.readline().startswith("epoch"):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    goes_on = f"; twinkernels train --resume '{out}' goes on with it" if kept else ""
    assert (child.returncode, err) == (130, f"twinkernels: interrupted{goes_on}\n")


def test_nothing_is_imported_before_interrupts_are_heard():
    program = (
        "import sys; before = {*sys.modules}; import twinkernels.__main__; print(*sorted({*sys.modules} - before))"
    )
    assert processes.run(program) == ["__future__ twinkernels twinkernels.__main__"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
@pytest.mark.parametrize("module", ["twinkernels.streams", "numpy", "rich.progress"])
def test_an_interrupt_while_the_program_is_imported_ends_with_one_line(module):
    program = f"""
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = ["train", "mlp-512", "--backend", "numpy", "--iterations", "1"]
from twinkernels.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "twinkernels: interrupted\n")


CLOSED = "twinkernels: standard output is closed; > /dev/null throws away what is printed\n"
FULL = "twinkernels: standard output: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no /dev and no sh")
@pytest.mark.parametrize(
    ("command", "status", "err"),
    [
        ("list >&-", 2, CLOSED),
        ("train mlp-512 --backend numpy --iterations 1 >&-", 2, CLOSED),
        ("list >/dev/full", 2, FULL),
        ("--version >/dev/full", 2, FULL),
        ("fly 2>&-", 2, ""),
        ("fly <&-", 2, "twinkernels: No such command 'fly'.\n"),
        ("list >/dev/null 2>&-", 0, ""),
    ],
)
def test_closed_and_full_streams_end_without_a_traceback(command, status, err):
    shell = ["sh", "-c", f'exec "$0" -m twinkernels {command}', sys.executable]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", err)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes")
@pytest.mark.parametrize("command", [["list"], ["--help"], ["train", "mlp-512", "--backend", "numpy", "--epochs", "9"]])
def test_output_that_nobody_reads_ends_quietly_with_status_141(folder, command):
    if command[0] == "train":
        command = [*command, "--data", str(folder)]
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "twinkernels", *command]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_are_printed_without_what_steers_a_terminal(run, digits, folder, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    odd, shown = "a\x1b[31m\t\n\u202e\udc80\u202fb", "a?[31m????\u202fb"
    os.symlink(folder, odd)
    status, printed, err = run(*TRAIN, "--data", odd, "--iterations", 1, "--out", f"run{odd}")
    assert (status, err) == (0, [])
    assert printed[-2] == f"kept in run{shown}"
    assert printed[-3].endswith(f" on {shown}")
    Image.fromarray(digits.test.images[0, ..., 0]).save(tmp_path / f"{odd}.png")
    (tmp_path / f"{odd}2.png").write_bytes(b"")
    status, printed, err = run("predict", f"run{odd}", f"{odd}.png", f"{odd}2.png")
    assert status == 1
    assert printed[0].startswith(f"{shown}.png\t")
    assert len(err) == 1
    assert err[0].startswith("twinkernels: a?[31m")
    assert err[0].isprintable()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(folder):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "twinkernels", *TRAIN, "--data", str(folder), "--epochs", "10"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True, env=os.environ | {"TERM": "xterm"}
    ) as child:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 1 << 16)
            except OSError:  # how Linux says that the other end is closed
                break
        out = child.stdout.read()
    os.close(ours)
    assert child.returncode == 0
    assert b"training" in seen
    assert b"/50" in seen
    assert "\x1b" not in out
    lines = out.splitlines()
    assert sum(line.startswith("epoch") for line in lines) == 10
    assert lines[-1].startswith("test accuracy ")


def compile_three(*_: object) -> None:
    for done, name in enumerate(("conv2d", "linear", "adam")):
        compiling.tell(name, done, 3)
    compiling.tell("", 3, 3)


def test_what_is_compiled_is_said_at_its_start_and_at_its_end(run, folder, monkeypatch):
    real = models.Trainer.run_step
    once = iter([compile_three])
    monkeypatch.setattr(models.Trainer, "run_step", lambda *a: (next(once, lambda: None)(), real(*a))[1])
    status, out, err = run(*TRAIN, "--data", folder, "--iterations", 2)
    assert (status, err) == (0, [])
    assert out[1:3] == ["compiling 3 kernels, once for this machine", "compiled in 0 s"]
    assert not compiling.watched()


# From Python -------------------------------------------------------------------------------------------------


def test_run_from_python_equals_the_command(digits, kept):
    outcome = runs.run("mlp-512", digits, backend="numpy", epochs=2)
    expected = models.load(kept / "model.safetensors", "numpy")
    for name, array in outcome.model.parameters().items():
        np.testing.assert_array_equal(array, expected.parameters()[name])
    assert outcome.test == expected.evaluate(*digits.test)


def test_run_takes_pairs_as_other_libraries_hand_them_over(digits, tmp_path):
    pairs = tuple(tuple(half) for half in digits)
    expected = runs.run("mlp-512", digits, backend="numpy", iterations=2).test
    assert runs.run("mlp-512", pairs, backend="numpy", iterations=2, out=tmp_path / "run").test == expected
    assert runs.resume(tmp_path / "run", pairs).test == expected
    assert runs.run("mlp-512", data.Dataset(*pairs), backend="numpy", iterations=2).test == expected
    with pytest.raises(TypeError, match="source: train is a ndarray, expected a pair"):
        runs.run("mlp-512", tuple(digits.train), backend="numpy")


def test_validation_images_are_held_out_of_training_and_normalisation(digits):
    recipe = replace(recipes.RECIPES["mlp-512"], validation=1 / 6, epochs=1)
    outcome = runs.run(recipe, digits, backend="numpy", seed=3)
    train, validation = data.split(digits.train, 100, 3)
    assert outcome.model.normalisation == data.statistics(train)
    assert outcome.history.step == [4]  # 500 images in batches of 128
    assert outcome.history.validation_accuracy == [outcome.model.evaluate(*validation).accuracy]


def test_validation_can_be_asked_for_and_is_kept(run, folder, tmp_path):
    out = tmp_path / "run"
    assert run(*TRAIN, "--data", folder, "--epochs", 1, "--validation", 0.25, "--out", out)[0] == 0
    assert json.loads((out / "config.json").read_text())["validation"] == 0.25
    epoch = json.loads((out / "history.jsonl").read_text())
    assert epoch["step"] == 4  # 450 of 600 images in batches of 128
    assert 0 < epoch["validation_accuracy"] < 1
    status, _, err = run("train", "--resume", out, "--validation", 0.5)
    assert (status, len(err)) == (2, 1)
    assert "validation of this run is 0.25, 0.5 was asked for" in err[0]


def test_a_learning_rate_can_be_asked_for_and_is_kept(run, folder, tmp_path):
    out = tmp_path / "run"
    assert run(*TRAIN, "--data", folder, "--epochs", 1, "--lr", 0.003, "--out", out)[0] == 0
    assert json.loads((out / "config.json").read_text())["optimizer"]["learning_rate"] == 0.003
    (out / "model.safetensors").unlink()
    assert run("train", "--resume", out, "--lr", 0.003)[0] == 0
    status, _, err = run("train", "--resume", out, "--lr", 0.5)
    assert (status, len(err)) == (2, 1)
    assert "learning_rate of this run is 0.003, 0.5 was asked for" in err[0]
    status, _, err = run(*TRAIN, "--lr", -1)
    assert (status, len(err)) == (2, 1)


def test_a_recipe_has_one_length():
    with pytest.raises(ValueError, match="expected one of them"):
        replace(recipes.RECIPES["mlp-512"], iterations=3)
    with pytest.raises(ValueError, match="epochs"):
        runs.run("mlp-512", epochs=0)


def complete(backend: str) -> bool:
    try:
        module = kernels.get(backend).backend
    except ImportError:
        return False
    return all(hasattr(module, name) for name in kernels.kernel_names())
