import multiprocessing
import pickle

import pytest

from gansynth.hosts.mixer import BatchCounter
from gansynth.runtime.errors import UsageFault
from tests.processes import forked

PROCESSES, TICKS = 4, 2000


def test_a_batch_counter_runs_from_0_to_1(tmp_path):
    batch_counter = BatchCounter(tmp_path / "sub" / "batches", total=4)
    assert batch_counter.now() == 0
    assert [batch_counter.tick() for _ in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert batch_counter.now() == 1


def test_a_batch_counter_goes_on_where_earlier_sessions_ended(tmp_path):
    batch_counter = BatchCounter(tmp_path / "batches", total=10, start=5)
    assert batch_counter.now() == 0.5
    assert [batch_counter.tick(), batch_counter.tick()] == [0.5, 0.6]


def test_processes_together_draw_every_ticket_once(tmp_path):
    total = PROCESSES * TICKS
    batch_counter = BatchCounter(tmp_path / "batches", total=total + 1)
    first = batch_counter.tick()  # open in the parent, which a fork then inherits

    together = multiprocessing.get_context("fork").Barrier(PROCESSES)

    def work(number: int) -> None:
        together.wait()
        told = "\n".join(repr(batch_counter.tick()) for _ in range(TICKS))
        (tmp_path / f"process-{number}").write_text(told)

    assert forked(work, PROCESSES) == [0] * PROCESSES
    texts = [path.read_text() for path in tmp_path.glob("process-*")]
    drawn = [first, *(float(line) for text in texts for line in text.split())]
    assert sorted(drawn) == [place / (total + 1) for place in range(total + 1)]


def test_a_copy_by_pickle_counts_on(tmp_path):
    batch_counter = BatchCounter(tmp_path / "batches", total=10)
    batch_counter.tick()
    copy = pickle.loads(pickle.dumps(batch_counter))
    assert [copy.tick(), batch_counter.tick(), copy.now()] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(("total", "start"), [(0, 0), (-1, 0), (10, -1)])
def test_a_training_of_no_batches_is_refused(tmp_path, total, start):
    with pytest.raises(UsageFault, match="expected at least 1"):
        BatchCounter(tmp_path / "batches", total, start)
