"""Reads data sets as another process on another machine does: ``python -m tests.data.reread``.

Requests, kind -> ``SourceRequest`` as JSON, come by stdin. What is found goes to stdout, with a
matrix product, which is known to differ between the machines that are pretended.
"""

import json
import sys
from typing import Any

import numpy as np

from gansynth.core.schema import content_hash
from gansynth.core.source import CaseSource, SourceRequest, case_content
from gansynth.sampling.run_source import open_source


def found_in(source: CaseSource) -> dict[str, Any]:
    """Hashes of each case: of what its files hold, and of the arrays that are made of that."""
    found = {}
    for case_id in (*source.train_ids, *source.held_out_ids):
        case = source.load(case_id)
        found[case_id] = [case_content(source, case_id), content_hash(case.image, case.labels)]
    return found


def product() -> str:
    left, right = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
    return content_hash(left @ right)


if __name__ == "__main__":
    requests = json.load(sys.stdin)
    sources = {kind: open_source(SourceRequest(**doc)) for kind, doc in requests.items()}
    each = {kind: found_in(source) for kind, source in sources.items()}
    json.dump({"product": product(), "kinds": each}, sys.stdout)
