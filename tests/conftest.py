"""What every test may ask for: the shared data, where present, and a small folder of pictures to learn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

Shell = Callable[..., tuple[int, str, str]]

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURES_PER_CLASS = 12

# Files whose tests take long: whole commands, trainings, processes, exports. `make quick` leaves them out.
SLOW = (
    "test_adapt_*",
    "test_adaptation_acquisition",
    "test_adaptation_training",
    "test_cli*",
    "test_core_memory",
    "test_cyclegan_training",
    "test_demo_pictures",
    "test_deploy_features",
    "test_deploy_onnx",
    "test_deploy_predictor",
    "test_engine_precision",
    "test_engine_processes",
    "test_engine_resume",
    "test_recipes_*",
    "test_start_up",
    "test_style_any",
    "test_style_evaluation",
    "test_style_export",
    "test_style_methods",
    "test_style_networks",
    "test_style_pruning",
    "test_style_tiling",
    "test_style_train",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of the files above as slow; a single slow test in another file carries the mark itself."""
    for item in items:
        if any(item.path.match(f"{pattern}.py") for pattern in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    """Tests share a machine with others: two threads for torch, one where two workers share the tests."""
    beside_others = "PYTEST_XDIST_WORKER" in os.environ
    torch.set_num_threads(1 if beside_others else 2)
    if beside_others:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tests of tiny sizes: they gain nothing from more threads, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights: $REGRAFT_SHARED, else `shared` beside the checkout."""
    folder = Path(os.environ.get("REGRAFT_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir() or not (folder / "weights").is_dir():
        pytest.skip(f"no shared data at {folder}: set REGRAFT_SHARED to a folder with data/ and weights/")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folder per class: `ember` (reddish), `frost` (bluish), 12 PNG pictures of 48 px each, all different."""
    folder = tmp_path / "pictures"
    draw = np.random.default_rng(0)
    for name, tint in (("ember", (150, 60, 30)), ("frost", (30, 80, 150))):
        (folder / name).mkdir(parents=True)
        for number in range(PICTURES_PER_CLASS):
            coarse = np.clip(draw.integers(-60, 105, (6, 6, 3)) + np.array(tint), 0, 255).astype(np.uint8)
            picture = Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)
            picture.save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    """Run `regraft …` in this process, in an empty folder; gives exit code, stdout and stderr."""
    from regraft import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["regraft", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        found = capsys.readouterr()
        return code, found.out, found.err

    return call
