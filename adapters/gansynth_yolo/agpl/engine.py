"""The ultralytics package itself: its version, without network, and silent on stdout.

Licence: AGPL-3.0; see this package's docstring. Nothing is imported from it before ``engine`` runs.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.metadata
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gansynth_yolo.libraries import check_release

LEAST, BELOW = (8, 4), (8, 5)
"""Releases whose data set and trainer we know: at least, and below."""
_ENVIRONMENT = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false"}
_SERVICES = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")


def version() -> str:
    """The installed release of ultralytics; the package is not imported.

    Raises:
        EnvironmentFault: it is not installed, or not one that this adapter works with.
    """
    return check_release("ultralytics", LEAST, BELOW)


def engine() -> Any:
    """Import ultralytics so that it opens no connection and leaves the user's settings alone.

    Raises:
        EnvironmentFault: see ``version``.
    """
    version()
    if "ultralytics" not in sys.modules:
        # Read once, when it is imported: no look for a network, no pip, settings of its own.
        os.environ.update(_ENVIRONMENT, YOLO_CONFIG_DIR=str(_settings_folder()))
    _cure_torchvision()
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # it would tell where it keeps the settings that we throw away
    try:
        with silent_stdout():
            module = importlib.import_module("ultralytics")
            utils: Any = importlib.import_module("ultralytics.utils")
    finally:
        logging.disable(disabled)
    # In memory only: its own way of setting one writes a file, perhaps the user's.
    dict.update(utils.SETTINGS, dict.fromkeys(_SERVICES, False))
    utils.ONLINE = False
    return module


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Send what ultralytics prints, logs and shows of its progress to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        for handler in logging.getLogger("ultralytics").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
        yield


def _settings_folder() -> Path:
    """A folder for its settings that goes with this process; with the fonts it would download."""
    from matplotlib import get_data_path

    folder = Path(tempfile.mkdtemp(prefix="gansynth-ultralytics-"))
    owner = os.getpid()

    def remove() -> None:  # workers inherit this by fork
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    (folder / "Ultralytics").mkdir()
    font = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in _FONTS:
        shutil.copyfile(font, folder / "Ultralytics" / name)
    return folder


def _cure_torchvision() -> None:
    from gansynth.runtime import torchvision_compat

    torchvision_compat.apply()
