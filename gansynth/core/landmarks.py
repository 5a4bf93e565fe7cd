"""Landmarks of an image, by which a part of it is known, in other grey values, turned or resized.

The longest side is averaged to a fixed number of cells, of values and some ranks. Landmarks are the
strongest extrema of differences of Gaussians in place and scale, but for those on edges, which lie
anywhere along them (as in SIFT, Lowe 2004), and those beside empty space. Each has the directions
of the gradient around, in steps of its scale, as -1, 0 or 1 along each axis, times the extremum's
sign: an inverted image has the same landmarks, and a flipped one's are known without its pixels.

Landmarks of two images are paired where each is the other's nearest, in all turns and flips, and
counted where one movement, small turn and change of size (Umeyama 1991) brings one to the other.
Those of one image lie within a fraction of a cell, those of two people seldom do. Of many images,
those with most words in common are compared: a word is a few of a landmark's values, turned upright
(Indyk and Motwani 1998), and rare words weigh more (Sivic and Zisserman 2003).
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import other_axes

Floats = npt.NDArray[np.float32]
Signs = npt.NDArray[np.int8]

AGREED = {2: 8.0, 3: 5.0}
"""Landmarks that count as the same, weighted by their closeness (to 1), from which images do."""
KEPT_LANDMARKS = 128
_SIDE = {2: 128, 3: 64}  # cells along the longest side
_FINER = 1.5  # most cells for a voxel: between few voxels, all images look alike
_RANKS, _BINS = 0.3, 4096  # share of ranks; grey values
# What is a landmark.
_FINEST, _SCALES = {2: 1.8, 3: 1.2}, {2: 8, 3: 7}  # sigma in cells, and how many, 3 to the octave
_LEAST_STRENGTH = 0.0025  # of an extremum
_EDGE = {2: 0.15, 3: 0.1}  # of an extremum: least to most curvature
_RIM = 0.8  # share of its strength that it loses at the rim, where images are cropped
_STEP = 2.0  # of the gradients around, in sigmas
_INSIDE = 0.8  # share of these that lie inside the body
_EVEN = 0.06  # of the range of the cells: how far those of the background may be from its value
_OUTER = 0.3  # share of the outermost cells that are background, if there is one
_LEAST_SHOWN = 0.2  # share of all cells that show a body, if there is a background
# When two are the same.
_SAME = {2: 0.7, 3: 0.78}  # correlation from which they may be,
_DOUBTFUL, _SURE = 0.15, 0.25  # their weight there, and how much more makes it grow by 1
_SIZES, _NEAR = np.arange(-3, 4) / 3, 0.35  # changes of size, as powers of 2: tried, tolerated
_SMALLEST, _LEAST_TRACE = 0.45, 0.13  # of size and, from all axes, of a turn's matrix: 20 degrees
_TURN, _SLACK = 0.3, 1.3  # turn in radians that is tolerated at first; distance in cells
_SPREAD = {2: 0.0, 3: 0.55}  # least spread of those that agree, as a share of either image's all
# Which images are compared.
_WORDS, _LENGTH = 24, 12  # words of a landmark, and values in each
_COMMON = 0.02  # share of images from which a word says nothing
_CANDIDATES, _PAIRS = 3, {2: 2000, 3: 200}  # for each image; in all, if they are few
_COLUMNS = 500
_PARTNERS, _ALL_PAIRS = 12, 8000  # candidates of each among all images; in all, if they are few
_FREQUENT = 256  # images that may share a word which counts
_VOTES = 0.25  # share of ``AGREED`` that landmarks which stand upright alike must give to one turn


class Landmarks(NamedTuple):
    """An image's index, places (N, axes) in cells, scales (N,), directions (N, points, axes)."""

    image: int
    places: Floats
    scales: Floats
    around: Floats


# -- making them -----------------------------------------------------------------------------------


def landmarks(cells: Floats) -> str:
    """Return the landmarks of a levelled image as text; empty if it has none."""
    ndim, sigmas = cells.ndim, _FINEST[cells.ndim] * 2 ** (np.arange(_SCALES[cells.ndim]) / 3)
    layers = _smoothed(cells, sigmas)
    bands = np.diff(layers, axis=0)
    places = _extrema(bands, sigmas)
    inside = shown_in(cells)[_cells_around(places, sigmas, cells.shape)].mean(axis=1)
    places = places[inside >= _INSIDE][:KEPT_LANDMARKS]
    if not len(places):
        return ""
    signs = np.sign(bands[tuple(places.T)])
    around = np.zeros((len(places), *_points(ndim).shape))
    for scale in np.unique(places[:, 0]):
        here = places[:, 0] == scale
        at = _cells_around(places[here], sigmas, cells.shape)
        slopes = np.stack(np.gradient(layers[scale]), -1)[at]
        steep = np.linalg.norm(slopes, axis=2, keepdims=True)
        slopes /= steep + steep.mean(axis=1, keepdims=True) / 2 + 1e-9
        around[here] = slopes / np.maximum(slopes.std(axis=(1, 2), keepdims=True), 1e-9)
    around = np.clip(np.rint(around * signs[:, None, None]), -1, 1)
    rows = np.hstack([places, _packed(around.reshape(len(places), -1))]).astype(np.uint8)
    return f"{ndim}/{base64.b64encode(rows.tobytes()).decode()}"


def levelled(image: Floats, spacing: Sequence[float]) -> Floats:
    """Return cells of an image, of a fixed size at most, from 0 to 1.

    Args:
        image: with 2 or 3 axes, finite, without constant borders.
        spacing: of its voxels; only the proportions of the axes matter.
    """
    size = np.array(image.shape) * np.array(spacing)
    side = min(_SIDE[image.ndim], _FINER * max(image.shape))
    shape = np.maximum(np.rint(size / size.max() * side).astype(int), 4)
    cells = averaged(image, shape.tolist()).astype(np.float32)
    levels = ((cells - cells.min()) * ((_BINS - 1) / max(float(np.ptp(cells)), 1e-9))).astype(int)
    counts = np.bincount(levels.ravel(), minlength=_BINS)
    ranks = ((np.cumsum(counts) - counts / 2) / cells.size).astype(np.float32)[levels]
    low, high = np.percentile(cells, (1, 99))
    values = (np.clip(cells, low, high) - low) / max(high - low, 1e-9)
    return np.asarray(_RANKS * ranks + (1 - _RANKS) * values, np.float32)


def unpadded(image: Floats) -> Floats:
    """Crop an image of constant borders."""
    varying = [span(np.ptp(image, axis=plane) > 0) for plane in other_axes(image.ndim)]
    return image[tuple(varying)]


def span(inside: npt.NDArray[np.bool_]) -> slice:
    """Return the slice from the first to the last true element; all if there is none."""
    indices = np.flatnonzero(inside)
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(None)


def shown_in(cells: npt.NDArray[np.floating], least: float = _LEAST_SHOWN) -> npt.NDArray[np.bool_]:
    """Return which cells show a body: neither an even background nor beside it.

    All, where that is less than a share ``least`` of them.
    """
    from scipy.ndimage import binary_dilation, label

    outer = np.ones(cells.shape, bool)
    outer[(slice(1, -1),) * cells.ndim] = False
    low, high = np.percentile(cells, (1, 99))
    even = _EVEN * (high - low)
    values = np.sort(cells[outer])
    near = np.searchsorted(values, values + even, "right") - np.arange(len(values))
    begin = int(near.argmax())  # of the fullest interval of values
    background = np.median(values[begin : begin + near[begin]])
    alike = np.abs(cells - background) <= even
    if alike[outer].mean() < _OUTER:
        return np.ones(cells.shape, bool)
    regions, _ = label(alike)
    outside = alike & np.isin(regions, regions[outer & alike])
    shown = ~binary_dilation(outside, np.ones((3,) * cells.ndim, np.bool_))
    return shown if shown.mean() >= least else np.ones(cells.shape, bool)


def averaged(image: npt.NDArray[np.floating], shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return means over a grid of cells of fractional size in voxels.

    They are differences of sums up to the cells' edges: no matrix, whose product each CPU rounds in
    its own way.
    """
    means = image.astype(np.float64)
    for axis, cells in enumerate(shape):
        length = image.shape[axis]
        edges = np.linspace(0, length, cells + 1)
        voxels = np.minimum(edges.astype(int), length - 1)  # in which the edges lie
        parts = (edges - voxels).reshape([-1 if a == axis else 1 for a in range(means.ndim)])
        here = means.take(voxels, axis)
        upto = np.cumsum(means, axis).take(voxels, axis) - (1 - parts) * here
        means = np.diff(upto, axis=axis) * (cells / length)
    return means


def _smoothed(cells: Floats, sigmas: npt.NDArray[np.float64]) -> Floats:
    from scipy.ndimage import gaussian_filter

    layers = [gaussian_filter(cells, sigmas[0], mode="nearest")]
    for before, sigma in itertools.pairwise(sigmas):
        more = float(np.sqrt(sigma**2 - before**2))
        layers.append(gaussian_filter(layers[-1], more, mode="nearest", truncate=3))
    return np.stack(layers)


def _extrema(bands: Floats, sigmas: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return scale and place (N, 1 + axes) of extrema inside an image, the strongest first."""
    from scipy.ndimage import maximum_filter

    ndim = bands.ndim - 1
    strength = np.abs(bands)
    around = np.stack([maximum_filter(band, 3, mode="nearest") for band in strength])
    peaks = (strength == around) & (strength > _LEAST_STRENGTH)
    peaks[1:] &= strength[1:] >= around[:-1]
    peaks[:-1] &= strength[:-1] >= around[1:]
    inside = np.zeros(peaks.shape, np.bool_)
    inside[(slice(None), *[slice(1, -1)] * ndim)] = True
    places = np.argwhere(peaks & inside)
    curved = np.abs(np.linalg.eigvalsh(_curvatures(bands, places)))
    places = places[curved.min(axis=1) >= _EDGE[ndim] * curved.max(axis=1)]
    middle = (np.array(bands.shape[1:]) - 1) / 2
    off_middle = np.abs(places[:, 1:] / middle - 1).max(axis=1)
    # The wide ones survive noise, and few grey levels.
    weights = strength[tuple(places.T)] * sigmas[places[:, 0]] * (1 - _RIM * off_middle)
    return np.asarray(places[np.argsort(-weights, kind="stable")])


def _cells_around(
    places: npt.NDArray[np.intp], sigmas: npt.NDArray[np.float64], shape: Sequence[int]
) -> tuple[npt.NDArray[np.intp], ...]:
    """Return the indices (N, points) of the cells where gradients around places are taken."""
    ndim = len(shape)
    offsets = _points(ndim) * _STEP * sigmas[places[:, 0], None, None]
    at = np.rint(places[:, None, 1:] + offsets).astype(int)
    return tuple(np.moveaxis(np.clip(at, 0, np.array(shape) - 1), -1, 0))


def _curvatures(bands: Floats, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return the second derivatives (N, axes, axes) at places."""
    axes = np.eye(bands.ndim, dtype=int)[1:]
    ndim = len(axes)
    found = np.zeros((len(places), ndim, ndim))

    def at(offset: npt.NDArray[np.intp]) -> Floats:
        return np.asarray(bands[tuple((places + offset).T)])

    for i, j in itertools.product(range(ndim), repeat=2):
        along, across = axes[i] + axes[j], axes[i] - axes[j]
        if i == j:
            found[:, i, i] = at(axes[i]) + at(-axes[i]) - 2 * at(0 * axes[i])
        else:
            found[:, i, j] = (at(along) + at(-along) - at(across) - at(-across)) / 4
    return found


@cache
def _points(ndim: int) -> npt.NDArray[np.float64]:
    """Return where the gradients around a landmark are taken (points, axes), in steps."""
    side, most = (5, 5.2) if ndim == 2 else (3, 2.1)
    grid = np.indices([side] * ndim).reshape(ndim, -1).T - (side - 1) / 2
    return np.asarray(grid[(grid**2).sum(axis=1) <= most])


def _packed(signs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return five of -1, 0 and 1 as one of 0 to 242."""
    padded = np.pad(signs + 1, ((0, 0), (0, -signs.shape[1] % 5)))
    return np.asarray(padded.reshape(len(signs), -1, 5) @ 3.0 ** np.arange(5))


def read_landmarks(text: str, image: int = 0) -> Landmarks:
    """Return the landmarks that a text holds."""
    ndim = int(text[0])
    points = _points(ndim)
    rows = np.frombuffer(base64.b64decode(text[2:]), np.uint8)
    rows = rows.reshape(-1, 1 + ndim + -(-points.size // 5))
    signs = rows[:, 1 + ndim :, None] // 3 ** np.arange(5) % 3 - 1.0
    around = signs.reshape(len(rows), -1)[:, : points.size]
    around = around / np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-9)
    scales = (_FINEST[ndim] * 2 ** (rows[:, 0] / 3)).astype(np.float32)
    return Landmarks(
        image,
        rows[:, 1 : 1 + ndim].astype(np.float32),
        scales,
        around.reshape(-1, *points.shape).astype(np.float32),
    )


# -- comparing them --------------------------------------------------------------------------------


def candidates(
    known: Sequence[Landmarks],
    others: Sequence[Landmarks],
    ndim: int,
    fewest: int = _CANDIDATES,
    frequent: int = _CANDIDATES,
) -> Iterator[tuple[int, int]]:
    """Yield pairs (known, other) with most words in common.

    Args:
        fewest: pairs of each other image, at least.
        frequent: images that may have a word which counts, at least.
    """
    if not known or not others:
        return
    words, place = np.unique(_words(known, ndim), return_inverse=True)
    first = _word_table(known, place.ravel(), len(words))
    counts = np.bincount(first.indices, minlength=len(words))
    rare = counts <= max(frequent, _COMMON * len(known))
    weighted = first.copy()
    weighted.data *= (rare / np.sqrt(np.maximum(counts, 1)))[first.indices]
    weighted.eliminate_zeros()
    index = weighted.T.tocsr()
    least = max(fewest, _PAIRS[ndim] // len(others))
    for start in range(0, len(others), _COLUMNS):
        some = others[start : start + _COLUMNS]
        if others is known:
            table = first[start : start + _COLUMNS]
        else:
            table = _word_table(some, _places(_words(some, ndim), words), len(words))
        common = table @ index
        for row in range(common.shape[0]):
            own = slice(common.indptr[row], common.indptr[row + 1])
            most = np.argsort(-common.data[own], kind="stable")[:least]
            for one in common.indices[own][most]:
                yield int(one), start + row


def candidate_scores(
    known: Sequence[Landmarks], there: Sequence[Landmarks], ndim: int
) -> Iterator[tuple[int, int, float]]:
    """Yield each candidate pair, an index of ``known`` and of ``there``, and how many agree."""
    pairs = sorted(candidates(known, there, ndim), key=itemgetter(1))
    for column, rows in itertools.groupby(pairs, itemgetter(1)):
        turns = turned(there[column], ndim)
        for row, _ in rows:
            yield row, column, agreement(known[row], there[column], turns, ndim)


def likely_pairs(images: Sequence[Landmarks], ndim: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of images with the same landmarks, as indices of ``images``.

    Each is compared with those that have most words in common with it, and in the turns that such
    landmarks vote for: of two pictures of different things, hardly any turn is left.
    """
    stood = [_stood_upright(image, ndim) for image in images]
    pairs = set[tuple[int, int]]()
    partners = max(_PARTNERS, _ALL_PAIRS // max(len(images), 1))
    for one, other in candidates(images, images, ndim, 1 + partners, _FREQUENT):
        if one != other:
            pairs.add((min(one, other), max(one, other)))
    for one, group in itertools.groupby(sorted(pairs), itemgetter(0)):
        here, turns_here = _normed(stood[one][0]), stood[one][1]
        for _, other in group:
            there, turns_there = _normed(stood[other][0]), stood[other][1]
            _, row, column, weights = _mutual((here @ there.T)[None], ndim)
            between = _between(ndim)[turns_here[row], turns_there[column]]
            votes = np.bincount(between, weights, 1)
            turns = np.flatnonzero(votes >= _VOTES * AGREED[ndim])
            if len(turns):
                moved = turned(images[other], ndim, turns)
                if agreement(images[one], images[other], moved, ndim, turns) >= AGREED[ndim]:
                    yield one, other


def _stood_upright(image: Landmarks, ndim: int) -> tuple[Signs, npt.NDArray[np.intp]]:
    """Return an image's landmarks upright, as signs (N, values), and the turn of each."""
    upright = np.sign(_upright(image.around, ndim)).reshape(len(image.places), -1)
    return upright.astype(np.int8), _upright_turns(image.around, ndim)


def _normed(signs: Signs) -> Floats:
    values = signs.astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9))


@cache
def _between(ndim: int) -> npt.NDArray[np.intp]:
    """Return which turn of another image brings it to one, by the turns that stand both upright."""
    matrices = [turn for turn, _ in _turns(ndim)]
    number_of = {tuple(turn.ravel().tolist()): number for number, turn in enumerate(matrices)}
    between = [[number_of[tuple((a.T @ b).ravel().tolist())] for b in matrices] for a in matrices]
    return np.array(between, np.intp)


def _words(images: Sequence[Landmarks], ndim: int) -> npt.NDArray[np.int32]:
    """Return the words of all landmarks of some images, (landmarks, words)."""
    around = np.concatenate([image.around for image in images])
    values = np.sign(_upright(around, ndim)).reshape(len(around), -1) + 1
    words = (values @ _digits(ndim)).astype(np.int32)
    words += np.arange(_WORDS, dtype=np.int32) * np.int32(3**_LENGTH)
    return words


def _word_table(images: Sequence[Landmarks], place: npt.NDArray[np.intp], count: int) -> Any:
    """Return how often images have each of ``count`` words, a sparse float32 (images, words).

    ``place``: which of them each word of the images is; -1 where it is none.
    """
    from scipy.sparse import csr_matrix

    image = np.repeat(np.arange(len(images)), [_WORDS * len(one.places) for one in images])
    known = place >= 0
    ones = np.ones(int(known.sum()), np.float32)
    return csr_matrix((ones, (image[known], place[known])), (len(images), count))


def _places(words: npt.NDArray[np.int32], listed: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Return where words stand in a sorted list; -1 where they do not."""
    place = np.minimum(np.searchsorted(listed, words.ravel()), len(listed) - 1)
    return np.where(listed[place] == words.ravel(), place, -1)


@cache
def _digits(ndim: int) -> Floats:
    """Return what a landmark's values, 0 to 2, are multiplied with to be words (values, words)."""
    rng, digits = np.random.default_rng(0), np.zeros((_points(ndim).size, _WORDS), np.float32)
    for word in range(_WORDS):
        digits[rng.choice(len(digits), _LENGTH, replace=False), word] = 3.0 ** np.arange(_LENGTH)
    return digits


def _upright(around: Floats, ndim: int) -> Floats:
    """Turn and flip landmarks so that their mean direction is positive, largest axis first."""
    best = _upright_turns(around, ndim)
    matrices, orders, _ = _all_turns(ndim)
    moved = around @ matrices[best].transpose(0, 2, 1)
    return np.take_along_axis(moved, orders[best][..., None], axis=1)


def _upright_turns(around: Floats, ndim: int) -> npt.NDArray[np.intp]:
    heights = around.sum(axis=1) @ _all_turns(ndim)[2]
    return np.asarray(heights.argmax(axis=1), np.intp)


@cache
def _turns(ndim: int) -> tuple[tuple[Floats, npt.NDArray[np.intp]], ...]:
    """Return matrices of all turns and flips, and which point then lies at each point."""
    points, found = _points(ndim), []
    for order in itertools.permutations(range(ndim)):
        for signs in itertools.product((1, -1), repeat=ndim):
            turn = np.eye(ndim)[list(order)] * np.array(signs)[:, None]
            moved = points @ turn.T
            nearest = ((points[:, None] - moved) ** 2).sum(axis=2).argmin(axis=1)
            found.append((turn.astype(np.float32), nearest))
    return tuple(found)


@cache
def _all_turns(ndim: int) -> tuple[Floats, npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return ``_turns`` as arrays, and what tells how upright each makes a direction."""
    matrices = np.stack([turn for turn, _ in _turns(ndim)])
    orders = np.stack([order for _, order in _turns(ndim)])
    return matrices, orders, (2.0 ** -np.arange(ndim) @ matrices).T


def turned(image: Landmarks, ndim: int, turns: npt.NDArray[np.intp] | None = None) -> Floats:
    """Return what is around an image's landmarks in all turns and flips: (turns, N, values).

    ``turns``: numbers of those that are wanted.
    """
    chosen = range(len(_turns(ndim))) if turns is None else turns
    each = [(image.around @ _turns(ndim)[n][0].T)[:, _turns(ndim)[n][1]] for n in chosen]
    return np.stack(each).reshape(len(each), len(image.places), -1)


def agreement(
    known: Landmarks,
    other: Landmarks,
    other_turned: Floats,
    ndim: int,
    turns: npt.NDArray[np.intp] | None = None,
) -> float:
    """Return how many landmarks of two images agree, at most over turns and flips.

    Below ``AGREED`` it is no more than an upper bound, or 0 where those that agree lie close
    together: one object that both show, such as a marker, makes no image of the other.

    Args:
        known: landmarks of one image.
        other: those of another.
        other_turned: of ``turned``.
        ndim: number of axes.
        turns: numbers of these turns; all if None.
    """
    if not len(known.places) or not len(other.places):
        return 0.0
    flat = known.around.reshape(len(known.places), -1)
    close = (other_turned.reshape(-1, flat.shape[1]) @ flat.T).reshape(*other_turned.shape[:2], -1)
    turn, here, there, weights = _mutual(close, ndim)
    bounds = np.bincount(turn, weights, len(close))
    extent = _extent(known.places), _extent(other.places)
    best = 0.0
    for number in np.argsort(-bounds, kind="stable"):
        least = max(AGREED[ndim], best)
        if bounds[number] < least:
            return best or float(bounds[number])
        mine = turn == number
        row, column = here[mine], there[mine]
        matrix, _ = _turns(ndim)[number if turns is None else turns[number]]
        sizes = np.log2(other.scales[row] / known.scales[column])
        pairs = known.places[column], other.places[row] @ matrix.T, sizes, weights[mine]
        best = max(best, _moved_together(*pairs, extent, least))
    return best


def _mutual(
    close: Floats, ndim: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return turn, row and column of the close (turns, N, M) of which each is the other's nearest.

    The last are the weights with which they count.
    """
    nearest, back = close.argmax(axis=2), close.argmax(axis=1)
    mutual = np.take_along_axis(back, nearest, 1) == np.arange(close.shape[1])
    turn, row = np.nonzero(mutual & (close.max(axis=2) >= _SAME[ndim]))
    column = nearest[turn, row]
    weights = np.minimum((close[turn, row, column] - _SAME[ndim]) / _SURE + _DOUBTFUL, 1)
    return turn, row, column, weights


def _extent(places: Floats) -> float:
    """Return how far places lie from their middle, root mean square."""
    return float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _moved_together(
    one: Floats,
    other: Floats,
    sizes: Floats,
    weights: Floats,
    extent: tuple[float, float],
    least: float,
) -> float:
    """Return the weight of the pairs that a movement, small turn and change of size explains.

    Where that cannot reach ``least``, it may be 0. ``extent``: of all landmarks of either image.
    """
    best = 0.0
    for size in _SIZES:
        near = np.abs(sizes - size) <= _NEAR
        if weights[near].sum() < max(least, best):
            continue
        here, there, weight = one[near], other[near], weights[near]
        between, between_there = here[:, None] - here, there[:, None] - there
        slack = 1.5 * _SLACK + _TURN * np.linalg.norm(between, axis=2)
        agree = np.linalg.norm(between_there - between * 2**size, axis=2) <= slack
        sums = np.einsum("ij,j->i", agree, weight)
        for start in np.argsort(-sums, kind="stable")[:4]:
            # What a movement explains is part of what agrees with one of its pairs.
            if sums[start] >= max(least, best):
                best = max(best, _explained(here, there, weight, extent, agree[start]))
    return best


def _explained(
    here: Floats,
    there: Floats,
    weight: Floats,
    extent: tuple[float, float],
    chosen: npt.NDArray[np.bool_],
) -> float:
    ndim = here.shape[1]
    for slack in (2 * _SLACK, 1.4 * _SLACK, _SLACK):
        if chosen.sum() < ndim + 2:
            return 0.0
        turn, size, moved = _similarity(here[chosen], there[chosen])
        if np.trace(turn) < ndim - _LEAST_TRACE or not _SMALLEST < size < 1 / _SMALLEST:
            return 0.0
        off = np.linalg.norm(size * here @ turn.T + moved - there, axis=1) / (slack * max(1, size))
        chosen = off <= 1
    if not chosen.any():
        return 0.0
    # A copy's landmarks are spread over all of one image at least, which may be a part of another.
    spread = max(_extent(here[chosen]) / extent[0], _extent(there[chosen]) / extent[1])
    if spread < _SPREAD[ndim]:
        return 0.0
    # Many landmarks at one place say no more than one.
    distinct = len(np.unique(np.rint(here[chosen] / 3), axis=0))
    return min(float((weight * (1 - off**2))[chosen].sum()), float(distinct))


def _similarity(here: Floats, there: Floats) -> tuple[Floats, float, Floats]:
    """Return the turn, size and movement that bring places nearest to others (Umeyama)."""
    middle, middle_there = here.mean(axis=0), there.mean(axis=0)
    here, there = here - middle, there - middle_there
    left, spread, right = np.linalg.svd(there.T @ here)
    turn, size = left @ right, float(spread.sum() / max(float((here**2).sum()), 1e-9))
    return turn, size, middle_there - size * turn @ middle
