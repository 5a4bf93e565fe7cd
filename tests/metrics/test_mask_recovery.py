"""Label maps drawn with images fit these images: a segmenter trained on real cases finds them."""

import pytest

from benchmarks.measures import label_recovery
from gansynth.core.sample_request import SampleRequest
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.metrics.faithfulness import SegmenterOptions, train_segmenter
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.testing import ToySource

# For twelve cases and a minute: as many steps for each of the two, and small networks.
TINY = {
    **{"with_mask": "yes", "objective": "wgan-gp", "n_critic": 1, "width": 16, "batch_size": 16},
    **{"lr_generator": 3e-4, "lr_discriminator": 3e-4, "diversity": "no"},
    **{"steps": 600, "log_every": 100, "checkpoint_every": 600},
}


@pytest.mark.slow
def test_drawn_masks_are_recovered_above_shuffled_ones(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", generator="dcgan", own=TINY, edits=())
    run, source = load_run(tmp_path / "run"), ToySource(2)
    schema = run.generator.schema
    batches = CaseBatches(CaseCache(source), run.space)
    options = SegmenterOptions(steps=120, batch_size=8)
    judge = train_segmenter(batches, schema, run.space.size, options)
    drawn = SampleDrawer(run, source, SampleRequest(seed=1)).draw_raw(0, 32)
    samples = [(s.image, s.labels) for s in drawn if s.labels is not None]
    real = [(c.image, c.labels) for c in source.cases(source.held_out_ids) if c.labels is not None]
    found = label_recovery(judge, real, samples, schema)
    assert found["synthetic"] > 0.6 * found["real"]
    assert found["synthetic"] > 1.5 * found["shuffled"]
