"""Sources of labelled cases: shared parts, and the kinds that come with gansynth.

A kind is named before the colon (``nnunet:004``); docs/sources.md has layouts and ``--read`` keys.
"""

from gansynth.core.hookspecs import Register, hookimpl, lazily

BUILT_IN = {
    "nifti": ("gansynth.data.nifti:open_volumes", "gansynth.data.nifti:check"),
    "msd": ("gansynth.data.nifti:open_msd", "gansynth.data.nifti:check_msd"),
    "h5": ("gansynth.data.h5:H5Source", "gansynth.data.h5:check_h5"),
    "slices": ("gansynth.data.slices:SliceSource", "gansynth.data.slices:check_slices"),
    "pictures": (
        "gansynth.data.pictures:open_pictures",
        "gansynth.data.pictures:check_pictures",
    ),
}
"""Kind -> opener and check; imported on first use."""
WRITERS = {
    "hdf5": "gansynth.data.h5:HdfWriter",
    "nifti": "gansynth.data.case_writer:NiftiWriter",
    "png": "gansynth.sampling.png_writer:PngWriter",
}
READERS = {
    "analyze": "gansynth.data.readers.nibabel_formats:Analyze",
    "analyze-img": "gansynth.data.readers.nibabel_formats:AnalyzeVoxels",
    "dicom": "gansynth.data.readers.dicom:DicomSeries",
    "dicom-seg": "gansynth.data.readers.dicom_seg:DicomSegmentation",
    "itk": "gansynth.data.readers.itk:Itk",
    "mgh": "gansynth.data.readers.nibabel_formats:FreeSurfer",
    "nifti": "gansynth.data.readers.nibabel_formats:Nifti",
    "numpy": "gansynth.data.readers.arrays:NumpyArray",
    "picture": "gansynth.data.readers.arrays:Picture",
}


@hookimpl
def register_sources(register: Register) -> None:
    """Register the kinds of this folder."""
    for kind, (opener, _) in BUILT_IN.items():
        register(kind, lazily(opener))


@hookimpl
def register_checks(register: Register) -> None:
    """Register the checks of these kinds."""
    for kind, (_, check) in BUILT_IN.items():
        register(kind, lazily(check))


@hookimpl
def register_writers(register: Register) -> None:
    """Register the formats of samples."""
    for name, target in WRITERS.items():
        register(name, lazily(target))


@hookimpl
def register_readers(register: Register) -> None:
    """Register formats of volumes."""
    for name, target in READERS.items():
        register(name, lazily(target))
