"""Hooks ``Serving`` into DeepMedic's choice, loading and sampling of cases, and its training.

Module globals with the names of DeepMedic 0.8 are replaced in the running process. A forked process
inherits them, and finds functions sent by name (``load_subj_and_sample``). Cases for validation
always go to the original functions.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from gansynth.runtime.errors import EnvironmentFault
from gansynth_deepmedic.host.serving import Serving
from gansynth_deepmedic.host.watching import WatchedSaver, WatchedSession

Function = Callable[..., Any]
_POLL_SECONDS = 1.0


def patch(serving: Serving) -> None:
    """Replace functions in the modules of the checkout.

    Raises:
        EnvironmentFault: the checkout has no such function, or it takes other arguments.
    """
    _patch_sampling(serving)
    _patch_training(serving)
    session = import_module("deepmedic.frontEnd.trainSession")
    run = session.TrainSession.run_session

    @functools.wraps(run)
    def run_session(*arguments: Any, **named: Any) -> Any:
        serving.began = True
        return run(*arguments, **named)

    session.TrainSession.run_session = run_session
    # Imported by name there.
    session.do_training = import_module("deepmedic.routines.training").do_training  # type: ignore[attr-defined]


def _patch_sampling(serving: Serving) -> None:
    """Replace the functions that sample a subepoch."""
    sampling: Any = import_module("deepmedic.dataManagement.sampling")
    training: Any = import_module("deepmedic.routines.training")

    def draw(original: Function, arguments: dict[str, Any]) -> Any:
        kind, processes = arguments["train_val_or_test"], int(arguments["num_parallel_proc"])
        call = functools.partial(original, **arguments)
        return serving.draw(call, training=kind == "train", processes=processes)

    def choose(original: Function, arguments: dict[str, Any]) -> Any:
        return serving.choose(
            functools.partial(original, **arguments), arguments["n_total_subjects"]
        )

    def share(original: Function, arguments: dict[str, Any]) -> Any:
        return serving.share(original(**arguments), arguments["n_samples"])

    def shuffle(original: Function, arguments: dict[str, Any]) -> Any:
        return serving.shuffle(functools.partial(original, **arguments))

    # Imported by name there.
    _replace(training, "get_samples_for_subepoch", draw, "train_val_or_test", "num_parallel_proc")
    _replace(sampling, "choose_random_subjects", choose, "n_total_subjects")
    _replace(sampling, "get_n_samples_per_subj", share, "n_samples")
    _replace(sampling, "shuffle_samples", shuffle)
    _patch_cases(serving, sampling)
    _end_with_parent(sampling)


def _patch_cases(serving: Serving, sampling: Any) -> None:
    """Replace the functions that open and sample a case."""
    read, mask = sampling.load_volume, sampling.comp_valid_sampling_mask_excluding_edges
    weights = "paths_to_wmaps_per_sampl_cat_per_subj"

    def sample(original: Function, arguments: dict[str, Any]) -> Any:
        return serving.sample(original, arguments, read, mask)

    def load(original: Function, arguments: dict[str, Any]) -> Any:
        return serving.open(functools.partial(original, **arguments), arguments[weights])

    # This module has the original by name, and validates with it: before it is replaced.
    import_module("deepmedic.routines.testing")
    _replace(sampling, "load_imgs_of_subject", load, weights)
    _replace(
        *(sampling, "load_subj_and_sample", sample, "job_idx", "train_val_or_test", "log"),
        *("sampling_type", "inp_shapes_per_path", "augm_img_prms", "augm_sample_prms"),
    )


def _patch_training(serving: Serving) -> None:
    training: Any = import_module("deepmedic.routines.training")

    def batches(original: Function, arguments: dict[str, Any]) -> Any:
        if arguments["train_or_val"] != "train":
            return original(**arguments)
        result = original(
            **{**arguments, "sessionTf": WatchedSession(arguments["sessionTf"], serving.step)}
        )
        serving.trained()
        return result

    def infer(original: Function, arguments: dict[str, Any]) -> Any:
        means = original(**arguments)
        serving.validated(means)
        return means

    def train(original: Function, arguments: dict[str, Any]) -> Any:
        with serving.remembering():
            _check(serving, arguments)
            prefix = str(arguments["fileToSaveTrainedCnnModelTo"])
            saver = WatchedSaver(arguments["saver_all"], lambda path: serving.saved(path, prefix))
            serving.code = original(**{**arguments, "saver_all": saver})
            return serving.code

    _replace(training, "process_in_batches", batches, "train_or_val", "sessionTf")
    _replace(training, "inference_on_whole_volumes", infer)
    _replace(
        *(training, "do_training", train, "fileToSaveTrainedCnnModelTo", "saver_all"),
        *("sessionTf", "trainer", "n_epochs", "n_subepochs", "paths_per_chan_per_subj_train"),
        *("paths_per_chan_per_subj_val", "paths_to_lbls_per_subj_val"),
        "paths_to_masks_per_subj_val",
    )


def _check(serving: Serving, arguments: dict[str, Any]) -> None:
    """Compare DeepMedic's configuration with the order."""
    others = [path for case in arguments["paths_per_chan_per_subj_val"] or () for path in case]
    for key in ("paths_to_lbls_per_subj_val", "paths_to_masks_per_subj_val"):
        others += arguments[key] or ()
    serving.check_lists(arguments["paths_per_chan_per_subj_train"], others)
    trained = arguments["trainer"].get_num_epochs_trained_tfv().eval(session=arguments["sessionTf"])
    serving.begin(int(arguments["n_epochs"]), int(arguments["n_subepochs"]), int(trained))


def _replace(
    module: Any, name: str, by: Callable[[Function, dict[str, Any]], Any], *needed: str
) -> None:
    """Replace a function; ``by`` gets the original and its arguments by name (EnvironmentFault)."""
    original = getattr(module, name, None)
    signature = None if original is None else inspect.signature(original)
    lacks = [a for a in needed if signature is None or a not in signature.parameters]
    if original is None or signature is None or lacks:
        problem = f"takes no {lacks[0]}" if original is not None and lacks else "is missing"
        raise EnvironmentFault(
            f"{module.__file__}: {name} {problem}, expected a checkout of DeepMedic 0.8.4"
        )

    @functools.wraps(original)
    def replaced(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        return by(original, dict(bound.arguments))

    setattr(module, name, replaced)


def _end_with_parent(sampling: Any) -> None:
    """End the processes that DeepMedic forks with it, even if it is killed."""
    original = sampling.init_sampling_proc

    @functools.wraps(original)
    def init_sampling_proc() -> None:
        original()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()

    sampling.init_sampling_proc = init_sampling_proc


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
