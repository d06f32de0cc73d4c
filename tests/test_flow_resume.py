"""Going on from a checkpoint: bit for bit what the uninterrupted run did."""

import math

import numpy as np
import pytest

import gfsim
from gfsim.errors import GfsimError, InvalidInput
from gfsim.flow.checkpoint import Checkpoint
from gfsim.flow.simulate import resume, simulate


def problem(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((30, 4))
    y = X[:, 0] ** 2 - X[:, 1] ** 2
    objective = gfsim.Objective(gfsim.FeedForward((4, 5, 1), "square"), X, y, reduction="mean")
    return objective, 0.05 * rng.standard_normal(objective.model.n_params)


@pytest.mark.parametrize("method", ["auto", "dp5", "dp8", "ndf", "rkc", "euler", "rk4"])
def test_every_checkpoint_goes_on_to_the_same_bits(method):
    objective, w = problem()
    options = {"step": 0.01} if method in ("euler", "rk4") else {"rtol": 1e-5}
    event = gfsim.norm_level(0.3, terminal=0)
    whole = simulate(objective, w, t_end=20.0, method=method, events=[event], save_every=7, **options)
    assert whole.ok
    kept = [c for c in whole.checkpoints if c.t < 20.0]  # the last one may lie on the end itself
    assert len(kept) >= 3
    for checkpoint in (kept[0], kept[len(kept) // 2], kept[-1]):
        rest = resume(objective, checkpoint, t_end=20.0, events=[event])
        assert rest.ok
        np.testing.assert_array_equal(rest.final, whole.final)
        assert rest.t[-1] == whole.t[-1]
        assert rest.counts.accepted == whole.counts.accepted
        assert rest.counts.velocity == whole.counts.velocity
        assert [e.t for e in rest.events] == [e.t for e in whole.events if e.t > checkpoint.t]


def test_a_cut_run_near_a_saddle_ends_as_the_whole_one(tmp_path):
    objective, _ = problem()
    rng = np.random.default_rng(3)
    saddle = gfsim.find_saddle(objective, [1], rng=rng)
    n, z = saddle.directions(rng)
    options = {
        "t_end": math.inf,
        "clock": saddle.clock,
        "blocks": saddle.blocks,
        "rtol": 1e-6,
        "events": [gfsim.norm_level(0.1, saddle.index_z)],
    }
    whole = simulate(objective, saddle.start(1e-5, z, n), method="auto", save_every=10, **options)
    assert "ndf" in {phase.method for phase in whole.phases}
    for k, checkpoint in enumerate(whole.checkpoints):
        loaded = Checkpoint.load(checkpoint.save(tmp_path / f"{k}.pickle"))
        rest = resume(objective, loaded, t_end=math.inf, events=options["events"])
        np.testing.assert_array_equal(rest.final, whole.final)
        assert rest.t[-1] == whole.t[-1]
        assert rest.phases == whole.phases


def test_what_cannot_go_on_is_refused(tmp_path):
    objective, w = problem()
    with pytest.raises(InvalidInput, match=r"BDF.*cannot be saved"):
        simulate(objective, w, t_end=1.0, method="BDF", save_every=5)
    checkpoint = simulate(objective, w, t_end=5.0, method="dp5", save_every=2).checkpoints[0]
    with pytest.raises(InvalidInput, match="before the checkpoint"):
        resume(objective, checkpoint, t_end=checkpoint.t)
    other = gfsim.Objective(gfsim.FeedForward((4, 6, 1), "square"), objective.X, objective.y)
    with pytest.raises(InvalidInput, match="25 weights"):
        resume(other, checkpoint, t_end=9.0)
    (tmp_path / "no.pickle").write_bytes(b"nothing")
    with pytest.raises(GfsimError, match="no checkpoint"):
        Checkpoint.load(tmp_path / "no.pickle")
