"""``deepmedic:trainConfig.cfg``: the training and validation cases of a DeepMedic configuration."""

from __future__ import annotations

from gansynth.sources.base import SourceRequest
from gansynth.sources.volumes import VolumeSource
from gansynth_deepmedic.configs import Listed, TrainConfig
from gansynth_deepmedic.files import HostCase


class DeepMedicSource(VolumeSource):
    """The cases of one configuration: fold 0 trains on its training lists, ``all`` on everything.

    Attributes:
        config: the configuration.
    """

    config: TrainConfig

    def listed(self, case_id: str) -> Listed:
        """The files of a case.

        Raises:
            DataFault: there is no such case.
        """
        raise NotImplementedError

    def host_case(self, case_id: str) -> HostCase:
        """A case as DeepMedic's files have it; reads the image only if units depend on it."""
        raise NotImplementedError


def open_deepmedic(request: SourceRequest) -> DeepMedicSource:
    """Open ``deepmedic:trainConfig.cfg``.

    Raises:
        UsageFault: no such file, or options that do not fit.
        DataFault: a configuration, list or case that cannot be used.
        IntegrityFault: a subject is on both sides, or a listed case is a synthetic one.
    """
    raise NotImplementedError
