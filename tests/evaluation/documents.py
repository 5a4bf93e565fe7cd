"""Made-up documents of evaluations: everything, next to nothing, and what is between."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}|`]("
KINDS = ("meningioma", "glioma", "pituitary")


def figure(
    metric: str, name: str, title: str, real: float, value: float, width: float, **more: Any
) -> dict[str, Any]:
    """A figure whose value is held against a band of other real people."""
    return {
        "metric": metric, "name": name, "title": title, "what": f"{name} of images",
        "better": "lower", "value": value, "low": value - 0.6 * width, "high": value + 0.7 * width,
        "real": real, "real_low": real - 0.5 * width, "real_high": real + 0.8 * width,
        "difference": value - real, "difference_low": value - real - width,
        "difference_high": value - real + width, "p": None, "images": 32, "splits": 40,
        "finding": "like real" if abs(value - real) < width else "unlike real", "note": "",
    } | more  # fmt: skip


NO_DIFFERENCE = dict.fromkeys(("difference", "difference_low", "difference_high"))


def figures() -> list[dict[str, Any]]:
    """One of each kind, on either side of its band and far out."""
    spectrum, intensities = "Radial power spectrum", "Intensities"
    precision, test = "Precision and recall", "Classifier two-sample test"
    return [
        figure("spectrum", "distance", spectrum, 0.08, 0.31, 0.09, what="mean |log of ratio|"),
        figure("histogram", "distance T1", intensities, 0.021, 0.028, 0.012),
        figure("histogram", "distance FLAIR", intensities, 0.025, 0.045, 0.02, real_low=-0.111,
               finding="unclear", difference_low=-0.004),
        figure("diversity", "MS-SSIM", "Diversity", 0.42, 0.47, 0.03, better="real",
               note="Of 200 pairs."),
        figure("frechet", "distance", "Fréchet distance of features", 12.4, 161.0, 3.0),
        figure("precision", "precision", precision, 0.84, 0.86, 0.06, better="higher"),
        figure("precision", "recall", precision, 0.83, 0.55, 0.07, better="higher"),
        figure("c2st", "logistic regression", test, 0.51, 0.93, 0.06, better="half", p=0.0004,
               **NO_DIFFERENCE),
    ]  # fmt: skip


def spectra() -> list[dict[str, Any]]:
    """Two channels; in the second one band is not known."""
    frequency = np.geomspace(0.016, 0.5, 14).round(4).tolist()
    ends = {"ratio": 0.7, "low": 0.6, "high": 0.9, "real_low": 0.8, "real_high": 1.2}
    found = [
        {"channel": channel, "frequency": frequency, **{key: [ends[key]] * 14 for key in ends}}
        for channel in ("T1", "FLAIR")
    ]
    for key in ("ratio", "low", "high"):
        found[1][key][3] = None
    return found


def intensities() -> list[dict[str, Any]]:
    """Each channel, whole and within the lesion, with a high peak of background."""
    edges, flat = np.linspace(-1, 3, 41).tolist(), [0.2] * 39
    comparison = {"edges": edges, "real": [14.0, *flat], "synthetic": [*flat, 0.4]}
    told = [(channel, label) for channel in ("T1", "FLAIR") for label in (None, "lesion")]
    return [{"channel": channel, "label": label, **comparison} for channel, label in told]


def points(counts: tuple[int, int, int], *, kinds: bool) -> list[dict[str, Any]]:
    """Points of each kind on a grid; synthetic samples miss one of them."""
    found: list[dict[str, Any]] = []
    for side, count in zip(("training", "held-out", "synthetic"), counts, strict=True):
        for index in range(count):
            kind = KINDS[index % (2 if side == "synthetic" else 3)] if kinds else None
            name = f"sample {index}" if side == "synthetic" else f"case_{index % 20:03d} #{index}"
            name += " held" * (side == "held-out")
            at = {"x": float(index % 9), "y": float(index % 7)}
            found.append({**at, "side": side, "kind": kind, "name": name})
    return found


def maps() -> list[dict[str, Any]]:
    told = {"images": "slices of 32 × 32, after 50 principal components",
            "features": "features of a small network that was trained on these images"}  # fmt: skip
    return [
        {"key": key, "title": f"t-SNE of {key}", "what": what,
         "points": points((16, 4, 16), kinds=key == "images")}
        for key, what in told.items()
    ]  # fmt: skip


def dice(label: str, real: float, synthetic: float, shuffled: float) -> dict[str, Any]:
    return {
        "label": label, "real": real, "real_low": real - 0.04, "real_high": real + 0.03,
        "synthetic": synthetic, "synthetic_low": synthetic - 0.05,
        "synthetic_high": synthetic + 0.04, "shuffled": shuffled, "ratio": synthetic / real,
        "ratio_low": synthetic / real - 0.07, "ratio_high": synthetic / real + 0.06,
        "samples": 64, "real_cases": 20,
    }  # fmt: skip


def memorisation() -> dict[str, Any]:
    """Samples near to training, two of them too near."""
    return {
        "unit": "deviations of real intensities",
        "distances": [
            {"of": "synthetic to training", "quantiles": [0.31, 0.42, 0.5, 0.61, 0.8], "count": 64},
            {"of": "held-out to training", "quantiles": [0.4, 0.5, 0.56, 0.64, 0.83], "count": 5},
        ],
        "ratio": {"value": 0.89, "low": 0.8, "high": 0.99},
        "own": {"ratio": 0.7, "samples": 64},
        "copies": {"count": 2, "of": 64, "threshold": 0.5, "margin": 0.9, "pairs": [
            {"sample": 3, "case": "case_007", "ratio": 0.1, "own": True},
            {"sample": 41, "case": "case_012", "ratio": 0.46, "own": False}]},
        "membership": [
            {"attack": "distance", "what": "distance to the nearest sample",
             "auc": 0.55, "low": 0.31, "high": 0.78, "p": 0.4, "members": 20, "others": 5,
             "succeeds": False}],
        "finding": "copies",
    }  # fmt: skip


def full() -> dict[str, Any]:
    return {
        "version": 1, "gansynth": "0.9.0",
        "of": {"kind": "run", "name": "cgan3d-1a2b", "generator": "cgan3d"},
        "data": {"name": "nifti:phantoms", "fold": "0", "reference": "training cases",
                 "subjects": 20, "cases": 20, "held_out_subjects": 5, "held_out_cases": 5},
        "images": {"samples": 64, "real": 64, "axes": "DHW", "size": [32, 32, 32],
                   "spacing": [1, 1, 1.5], "channels": ["T1", "FLAIR"],
                   "labels": {"background": 0, "lesion": 1, "edema": 2}, "seed": 0},
        "alarms": [
            {"key": "spectrum", "text": "FLAIR: above 0.2/mm samples are blurred."}],
        "words": {
            "shown": [
                "Samples of cgan3d-1a2b have the intensities of real images of T1.",
                "Two of 64 samples are near-copies of training cases."],
            "not_shown": [
                "Whether training with these samples helps is not shown; a benchmark tells."]},
        "figures": figures(),
        "left_out": [{"metric": "inception", "why": "Volumes have 2 channels."}],
        "curves": {"spectrum": spectra(), "intensities": intensities()},
        "maps": maps(),
        "faithfulness": {
            "judge": "segmenter of the fold: 400 steps on 10 of 20 people, then on the other 10",
            "steps": 400,
            "labels": [dice("lesion", 0.81, 0.74, 0.12), dice("edema", 0.72, 0.44, 0.2)],
            "mean": dice("mean", 0.765, 0.59, 0.16), "finding": "partly"},
        "memorisation": memorisation(),
        "identity": {"folder": "exported", "files": 40, "findings": [
            "exported/sample_0007.png: EXIF names a scanner; write it anew without."]},
        "seconds": {"samples": 3.1, "maps": 161.0},
    }  # fmt: skip


def minimal() -> dict[str, Any]:
    """One part alone, without alarms or words."""
    told = ("version", "gansynth", "of", "data", "images", "maps", "seconds")
    nothing = {"alarms": [], "words": {"shown": [], "not_shown": []}}
    return {key: value for key, value in full().items() if key in told} | nothing


def whys() -> dict[str, Any]:
    """What could not be worked out, each with its reason; a bank of a source that is no fold."""
    return full() | {
        "of": {"kind": "bank", "name": "bank-7", "generator": None},
        "data": {"name": "other", "fold": None, "reference": "cases of another source",
                 "subjects": 1, "cases": 1, "held_out_subjects": 0, "held_out_cases": 0},
        "alarms": [], "words": {"shown": [], "not_shown": []}, "figures": [],
        "left_out": [{"metric": "spectrum", "why": "1 real image, expected 2 or more"}],
        "curves": {}, "maps": [],
        "faithfulness": {"why": "the samples have no labels"},
        "memorisation": {"why": "nothing was held out"},
        "identity": None,
    }  # fmt: skip


def small() -> dict[str, Any]:
    """One point, one band, one bin, one label, one figure without a scale; nothing was copied."""
    document = full()
    document["images"] |= {"size": [64, 64], "axes": "HW", "spacing": [1, 1], "labels": {}}
    document["figures"] = [
        figure("c2st", "accuracy", "Classifier two-sample test", 0.5, 0.6, 0.1, better="half",
               p=0.5, finding="like real") | dict.fromkeys(("real", "real_low", "real_high")),
        figure("spectrum", "distance", "Radial power spectrum", 0.0, 0.0, 0.0, finding="like real"),
    ]  # fmt: skip
    spectrum = spectra()[0]
    document["curves"] = {
        "spectrum": [{k: v if k == "channel" else v[:1] for k, v in spectrum.items()}],
        "intensities": [{"channel": "T1", "label": None, "edges": [0, 1], "synthetic": [1],
                         "real": [1]}],
    }  # fmt: skip
    document["maps"] = [document["maps"][1] | {"points": points((0, 0, 1), kinds=False)}]
    document["faithfulness"]["labels"] = document["faithfulness"]["labels"][:1]
    document["faithfulness"]["finding"] = "faithful"
    document["memorisation"] |= {
        "copies": {"count": 0, "of": 64, "threshold": 0.5, "margin": 0.9, "pairs": []},
        "membership": [], "own": None, "finding": "not shown",
    }  # fmt: skip
    return document


def _hostile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hostile(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


def hostile() -> dict[str, Any]:
    """Every text is markup, and so are names of members."""
    document = full()
    found = _hostile(document)
    assert isinstance(found, dict)
    for made, told in zip(found["maps"], document["maps"], strict=True):
        for point, same in zip(made["points"], told["points"], strict=True):
            point["side"] = same["side"]
    found["seconds"] = {f"a/b~,%{{:d}}{HOSTILE}": 1.0}
    found["images"]["labels"] = {HOSTILE: 1}
    return found


def pictures(document: Mapping[str, Any]) -> dict[str, bytes]:
    """A picture of each point but the last."""
    names = [point["name"] for node in document["maps"] for point in node["points"]]
    stream = io.BytesIO()
    Image.new("L", (48, 48)).save(stream, "png")
    return dict.fromkeys(names[:-1], stream.getvalue())


EVERY: dict[str, Callable[[], dict[str, Any]]] = {
    made.__name__: made for made in (full, minimal, whys, small, hostile)
}
