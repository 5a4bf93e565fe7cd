"""``gansynth`` with the zoo in it, for tests that run it as a process of its own.

``python -m tests.training.zoo.command fit zoo_wgan_gp ...`` is ``gansynth fit zoo_wgan_gp ...``;
its data are ``--data zoo:16``. Each step of ``zoo_slow`` takes a while.
"""

import time
from typing import Any

from gansynth_cli.main import main
from tests.offered import offered
from tests.training.zoo.members import ZOO, ZooSource
from tests.training.zoo.paired import MMGAN


class Slow(MMGAN):
    name = "zoo_slow"

    def _paint(self, step: Any) -> Any:
        time.sleep(0.005)
        return super()._paint(step)


if __name__ == "__main__":
    # One with options of its own needs another name than the registered one's.
    critic = type("Critic", (ZOO["wgan_gp"].cls,), {"name": "zoo_wgan_gp"})
    generators = {"zoo_slow": Slow, "zoo_wgan_gp": critic}
    with offered("zoo", generators=generators, sources={"zoo": ZooSource}):
        main()
