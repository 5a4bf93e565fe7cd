import gzip
import multiprocessing
import tracemalloc
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.volumes import read_volume
from gansynth.runtime import nifti
from gansynth.runtime.errors import (
    EnvironmentFault,
)
from gansynth.runtime.files import (
    free_name,
    in_units,
    path_inside,
    publish_dir,
    read_json,
    remove_temporaries,
    write_bytes_atomic,
    write_json_atomic,
)
from tests.disks import files_of_at_most
from tests.expected import raises_fault
from tests.processes import until

AFFINE = np.array([[2, 0, 0, -5], [0, 1.5, 0, 3], [0, 0, 1, 7], [0, 0, 0, 1]], float)
GZIP_HEADER = 10  # without a file name; its time stamp and system byte mean nothing


def volume(shape: tuple[int, ...] = (7, 6, 5), dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(1).integers(0, 100, shape).astype(dtype)


def packed(array, **header) -> bytes:
    """A .nii.gz file's bytes, header fields overwritten as asked."""
    return gzip.compress(plain(array, **header), mtime=0)


def plain(array, **header) -> bytes:
    image = nib.Nifti1Image(array, AFFINE)
    data = image.to_bytes()
    fields = nib.Nifti1Header(data[:348], check=False)
    for key, value in header.items():
        fields[key] = value
    return bytes(fields.binaryblock) + data[348:]


def store(path, data: bytes):
    path.write_bytes(data)
    return path


@pytest.fixture(params=["zlib", pytest.param("isal", marks=pytest.mark.extra("fast"))])
def decoder(request, monkeypatch):
    """What decompresses: with the extra ``fast``, and without."""
    if request.param == "zlib":
        monkeypatch.setattr(nifti, "_IGZIP", None)
    else:
        assert nifti._IGZIP is not None


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_sound_file_reads_as_nibabel_reads_it(tmp_path, dtype, ending):
    path = tmp_path / f"x{ending}"
    nib.save(nib.Nifti1Image(volume(dtype=dtype), AFFINE, dtype=dtype), path)
    array, affine, spacing, *_ = read_volume(path)
    theirs: Any = nib.load(path)
    assert array.dtype == dtype
    assert np.array_equal(array, np.asanyarray(theirs.dataobj))
    assert np.allclose(affine, theirs.affine)
    assert spacing == (2.0, 1.5, 1.0)


@pytest.mark.usefixtures("decoder")
def test_nifti_2_big_endian_files_and_slopes_are_read(tmp_path):
    nib.save(nib.Nifti2Image(volume(), AFFINE), tmp_path / "x.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "x.nii.gz").array, volume())
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(volume(), AFFINE, header), tmp_path / "x.nii")
    array = read_volume(tmp_path / "x.nii").array
    assert array.dtype.isnative
    assert np.array_equal(array, volume())
    path = store(tmp_path / "x.nii.gz", packed(volume(), scl_slope=0.5, scl_inter=-3))
    assert np.allclose(read_volume(path).array, volume() * 0.5 - 3)


@pytest.mark.usefixtures("decoder")
def test_an_almost_empty_label_map_is_no_bomb(tmp_path):
    labels = np.zeros((256, 256, 64), np.uint8)
    labels[5, 5, 5] = 1
    path = store(tmp_path / "x.nii.gz", packed(labels))
    assert labels.nbytes / path.stat().st_size > 500
    assert read_volume(path).array.sum() == 1
    with raises_fault("nifti.announced-voxels-too-large"):
        read_volume(path, max_bytes=100)


@pytest.mark.fault(2)
@pytest.mark.usefixtures("decoder")
def test_sixty_flipped_bits_are_all_caught(tmp_path):
    data = packed(volume((12, 11, 10)))
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        position = rng.integers(GZIP_HEADER, len(data))
        damaged[position] ^= 1 << int(rng.integers(8))
        with raises_fault("nifti.gzip-damaged"):
            read_volume(store(tmp_path / "x.nii.gz", bytes(damaged)))


@pytest.mark.fault(1)
@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("share", [0.02, 0.99, "all but its checksum"])
def test_a_cut_off_gzip_file_is_called_truncated(tmp_path, share):
    data = packed(volume((20, 20, 20)))
    kept = -8 if isinstance(share, str) else int(share * len(data))
    path = store(tmp_path / "x.nii.gz", data[:kept])
    with raises_fault("nifti.gzip-truncated", names=f"byte {path.stat().st_size}"):
        read_volume(path)


HUGE = {"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}
BOMB = {"dim": [3, 1000, 1000, 1000, 1, 1, 1, 1]}  # 2 GB by 100 KB, as its header says
HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "announces much, plain": ("x.nii", lambda: plain(volume(), **HUGE),
                              "nifti.announced-voxels-too-large"),
    "announces much": ("x.nii.gz", lambda: packed(volume(), **HUGE),
                       "nifti.announced-voxels-too-large"),
    "more than announced": ("x.nii.gz", lambda: padded(plain(volume()), 16 << 20),
                            "nifti.more-bytes-than-announced"),
    "bomb": ("x.nii.gz", lambda: padded(plain(volume(), **BOMB), 100 << 20),
             "nifti.decompression-bomb"),
}  # fmt: skip


def padded(data: bytes, zeros: int) -> bytes:
    return gzip.compress(data + bytes(zeros), 1)


@pytest.mark.fault(4, of="announces")
@pytest.mark.fault(5, of="more|bomb")
@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("how", HOSTILE)
def test_a_file_that_would_fill_the_memory_is_refused_before_it_does(tmp_path, how):
    name, data, expected = HOSTILE[how]
    path = store(tmp_path / name, data())
    tracemalloc.start()
    try:
        with raises_fault(expected):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < (4 if "announces" in how else 8) << 20
    finally:
        tracemalloc.stop()


@pytest.mark.fault(8, of="singular|voxel-sizes")
@pytest.mark.fault(14, of="image-axes|not-numbers")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"srow_x": [0, 0, 0, 0]}, "nifti.affine-singular-or-not-finite"),
        ({"srow_y": [0, np.nan, 0, 0]}, "nifti.affine-singular-or-not-finite"),
        (
            {"srow_x": [2, 2, 0, 0], "srow_y": [2, 2 + 1e-7, 0, 0]},
            "nifti.affine-singular-or-not-finite",
        ),
        ({"srow_x": [2e5, 0, 0, 0]}, "nifti.affine-voxels-out-of-range"),
        ({"pixdim": [1, 1, 0, 1, 1, 1, 1, 1]}, "nifti.voxel-sizes-out-of-range"),
        ({"pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1]}, "nifti.voxel-sizes-out-of-range"),
        ({"pixdim": [1, 1, 1, 1e-30, 1, 1, 1, 1]}, "nifti.voxel-sizes-out-of-range"),
        ({"dim": [4, 7, 6, 5, 2, 1, 1, 1]}, "nifti.image-axes-differ"),
        ({"dim": [2, 7, 30, 1, 1, 1, 1, 1]}, "nifti.image-axes-differ"),
        ({"dim": [3, 7, -6, 5, 1, 1, 1, 1]}, "nifti.announced-layout-impossible"),
        ({"datatype": 128, "bitpix": 24}, "nifti.voxels-not-numbers"),
        ({"datatype": 77}, "nifti.header-not-nifti"),
        ({"magic": b"ni1"}, "nifti.magic-not-single-file"),
        ({"vox_offset": 0}, "nifti.announced-layout-impossible"),
    ],
)
def test_a_nonsensical_header_field_is_named(tmp_path, fields, expected):
    with raises_fault(expected):
        read_volume(store(tmp_path / "x.nii.gz", packed(volume(), **fields)))


HOLED = volume(dtype="float32")
HOLED[0, 0, :2], HOLED[1, 1, 1] = np.nan, np.inf


@pytest.mark.fault(1, 6)
@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("x.nii", plain(volume())[:400], "nifti.shorter-than-announced"),
        ("x.nii.gz", gzip.compress(plain(volume())[:-10]), "nifti.voxels-truncated"),
        ("x.nii.gz", packed(HOLED), "nifti.voxels-not-finite"),
        ("x.nii.gz", b"", "nifti.header-too-short"),
        ("x.nii.gz", b"version https://git-lfs.github.com/spec/v1\n", "nifti.header-too-short"),
        ("x.nii", b"", "nifti.header-too-short"),
        ("x.nii.gz", gzip.compress(b"short", mtime=0), "nifti.header-too-short"),
        ("x.nii", bytes(2000), "nifti.voxel-sizes-out-of-range"),
    ],
)
def test_a_cut_or_foreign_nifti_file_is_refused(tmp_path, name, data, expected):
    with raises_fault(expected):
        read_volume(store(tmp_path / name, data))


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("{", 10**6, "files.not-valid-json"),
        ("[1]", 10**6, "files.top-level-type-differs"),
        ("[" * 100_000, 10**6, "files.not-valid-json"),
        ('{"a": "long enough"}', 10, "files.document-too-large"),
    ],
    ids=["cut", "list", "deep", "large"],
)
def test_unusable_json_is_a_data_fault(tmp_path, text, most, expected):
    path = tmp_path / "x.json"
    path.write_text(text)
    with raises_fault(expected):
        read_json(path, most=most)


@pytest.mark.fault(19)
@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/../../x", "link/x", ".", "a\0b"])
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to(tmp_path)
    assert path_inside(home, "./a/../x", key="x") == (home / "x").resolve()
    with raises_fault("files.path-leads-out-of-folder"):
        path_inside(home, name, key="dataset.json: training: 0")


@pytest.mark.fault(31, 32)
def test_a_full_disk_is_told_with_bytes_needed_and_free_and_leaves_the_old_file(tmp_path):
    path = store(tmp_path / "x", b"old")
    with (
        files_of_at_most(4096),
        pytest.raises(EnvironmentFault, match=r"10.0 kB needed, [\d.]+ .?B free"),
    ):
        write_bytes_atomic(path, bytes(10_000))
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"old"
    with pytest.raises(EnvironmentFault, match="the folder is not there; choose another"):
        write_bytes_atomic(tmp_path / "gone" / "x", b"1")


@pytest.mark.fault(43)
def test_nan_never_reaches_a_json_file(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


@pytest.mark.fault(29)
def test_a_killed_writer_leaves_a_whole_file_and_what_is_removed(tmp_path):
    path = tmp_path / "x"
    (tmp_path / ".run.tmp-4").mkdir()

    def write() -> None:
        for version in range(10**6):
            write_bytes_atomic(path, bytes([version % 256]) * (1 << 20))

    for _ in range(2):
        writer = multiprocessing.get_context("fork").Process(target=write)
        writer.start()
        until(lambda: path.exists() and any(tmp_path.glob(".x.tmp*")), step=0.0)
        writer.kill()
        writer.join()
        data = path.read_bytes()
        assert (len(data), len(set(data))) == (1 << 20, 1)
        remove_temporaries(tmp_path)
        assert list(tmp_path.iterdir()) == [path]


def test_a_published_folder_is_not_overwritten(tmp_path):
    for name in ("t", "final"):
        (tmp_path / name).mkdir()
        store(tmp_path / name / "x", name.encode())
    with raises_fault("files.exists-already"):
        publish_dir(tmp_path / "t", tmp_path / "final")
    assert (tmp_path / "final" / "x").read_bytes() == b"final"


@pytest.mark.parametrize(
    ("size", "says"),
    [(0, "0 bytes"), (999, "999 bytes"), (1e3, "1.0 kB"), (999_960, "1.0 MB"), (4.2e9, "4.2 GB")],
)
def test_a_size_is_told_in_a_unit_that_fits(size, says):
    assert in_units(size) == says


def test_a_free_name_counts_the_number_at_its_end_up(tmp_path):
    for taken in ("g0", "g1", "own", "own-2"):
        (tmp_path / taken).mkdir()
    free = {"new": "new", "g0": "g2", "own": "own-3", "g2": "g2"}
    assert {asked: free_name(tmp_path / asked).name for asked in free} == free
