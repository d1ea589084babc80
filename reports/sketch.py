"""A quantile sketch as a value: DDSketch with exact integer counts, built from whole arrays.

A DDSketch of relative accuracy alpha answers any quantile with a value within alpha of a sample of that rank, in memory
that grows with the logarithm of the range: about 700 bins for 1 us to 1 h at alpha 0.01. Two sketches merge into
exactly the sketch of both inputs. Paper: Masson, Rim, Lee, "DDSketch", VLDB 12 (2019),
vldb.org/pvldb/vol12/p2195-masson.pdf.

The arithmetic of record is the `ddsketch` package's LogarithmicMapping: bucket k = ceil(log_gamma x) with
gamma = (1 + alpha) / (1 - alpha), representative value 2 gamma^k / (1 + gamma), zeros apart. Ours is the storage: numpy
arrays, because the package adds one sample at a time (0.4 us each) and counts in floats.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, repeat
from math import ceil, inf, isfinite, log
from typing import Any

import numpy as np
from ddsketch.mapping import LogarithmicMapping
from numpy.typing import ArrayLike, NDArray

RELATIVE_ACCURACY = 0.01
"""Relative accuracy of all sketches, as in Artillery: 1 % of the value at every quantile."""

_MAPPINGS: dict[float, LogarithmicMapping] = {}
# With more parts than this, one pass over all is quicker than one over each.
_MANY = 50
# The most samples of a sketch that is read, so that a thousand such sketches still add up in 64 bits.
_MOST_SAMPLES = 2**53
# The natural logarithm of the largest double.
_LARGEST_LOG = 709.0
# The shortest run of empty bins that is written as a single number.
_SHORTEST_RUN = 3
# Values this near to the edge of a bucket are sorted by the scalar log, since numpy's may differ in the last bit.
_NEAR_EDGE = 1e-9


def _mapping(relative_accuracy: float) -> LogarithmicMapping:
    found = _MAPPINGS.get(relative_accuracy)
    if found is None:
        found = _MAPPINGS[relative_accuracy] = LogarithmicMapping(relative_accuracy)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Counts of consecutive buckets: `counts[i]` samples in bucket `offset + i`. No zeros at either end."""

    offset: int
    counts: NDArray[np.int64]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bins) and self.offset == other.offset and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.offset, self.counts.tobytes()))

    @property
    def total(self) -> int:
        """The number of samples."""
        return int(self.counts.sum()) if len(self.counts) else 0


NO_BINS = Bins(0, np.zeros(0, np.int64))


def _bins_of(values: NDArray[np.float64], mapping: LogarithmicMapping) -> Bins:
    if not len(values):
        return NO_BINS
    exact = np.log2(values) * mapping._multiplier  # noqa: SLF001 - the mapping's own formula, vectorised
    keys = np.ceil(exact).astype(np.int64)
    for i in np.flatnonzero(np.abs(exact - np.rint(exact)) < _NEAR_EDGE):
        keys[i] = mapping.key(float(values[i]))
    offset = int(keys.min())
    return Bins(offset, np.bincount(keys - offset).astype(np.int64))


def _with_runs(counts: list[int]) -> list[int]:
    """Replace each run of three or more empty bins by one negative number, its length."""
    out: list[int] = []
    for count, bins in groupby(counts):
        length = sum(1 for _ in bins)
        out += [-length] if count == 0 and length >= _SHORTEST_RUN else [count] * length
    return out


def _without_runs(given: Any, furthest: int) -> list[int]:
    """Undo `_with_runs`. Raises TypeError or ValueError for anything but a list of numbers with a plausible number of bins."""
    if sum(-item for item in given if item < 0) > 2 * furthest:
        raise ValueError("more empty bins than there are numbers")
    return [count for item in given for count in ((item,) if item >= 0 else repeat(0, -item))]


def _bins_from_json(data: Mapping[str, Any], furthest: int, runs: bool) -> Bins:
    given, offset = data["counts"], int(data["offset"])
    if runs and isinstance(given, list):
        given = _without_runs(given, furthest)
    # By way of an array: numpy's own reading of a list takes twice as long. As floats, no sum can wrap around.
    counts = np.frombuffer(array("q", given if isinstance(given, list) else ()), np.int64)
    if not isinstance(given, list) or (given and counts.min() < 0) or counts.sum(dtype=np.float64) > _MOST_SAMPLES:
        raise ValueError("the counts of a sketch are a list of whole numbers from 0 to 2**53 in all")
    if not -furthest <= offset <= furthest - len(counts):
        raise ValueError(f"no number lies in bin {offset} or in one of the {len(counts)} from there")
    return Bins(offset, counts)


def _merge_bins(parts: list[Bins]) -> Bins:
    parts = [p for p in parts if len(p.counts)]
    if not parts:
        return NO_BINS
    low = min(p.offset for p in parts)
    if len(parts) > _MANY:
        lengths = np.array([len(p.counts) for p in parts])
        places = np.arange(lengths.sum()) + np.repeat(
            [p.offset - low for p in parts] - lengths.cumsum() + lengths, lengths
        )
        # As floats, which bincount adds in, whole numbers are exact up to 2**53.
        return Bins(low, np.bincount(places, np.concatenate([p.counts for p in parts])).astype(np.int64))
    high = max(p.offset + len(p.counts) for p in parts)
    counts = np.zeros(high - low, np.int64)
    for p in parts:
        counts[p.offset - low : p.offset - low + len(p.counts)] += p.counts
    return Bins(low, counts)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A frozen DDSketch. Values carry whatever unit the metric has (ms in every report of ours).

    min, max, sum and count are exact; quantiles are within `relative_accuracy` and not clamped to min and max, as in
    Artillery (one value of 54 has min = max = 54 and median 54.1).
    """

    positive: Bins
    negative: Bins
    zero_count: int
    min: float
    max: float
    sum: float
    relative_accuracy: float = RELATIVE_ACCURACY

    @classmethod
    def of(cls, values: ArrayLike, relative_accuracy: float = RELATIVE_ACCURACY) -> Sketch:
        """Return the sketch of an array of finite numbers, which may be empty."""
        v = np.asarray(values, np.float64)
        mapping = _mapping(relative_accuracy)
        tiny = mapping.min_possible
        positive, negative = v[v > tiny], -v[v < -tiny]
        return cls(
            positive=_bins_of(positive, mapping),
            negative=_bins_of(negative, mapping),
            zero_count=len(v) - len(positive) - len(negative),
            min=float(v.min()) if len(v) else inf,
            max=float(v.max()) if len(v) else -inf,
            sum=float(v.sum()),
            relative_accuracy=relative_accuracy,
        )

    @classmethod
    def merged(cls, sketches: Iterable[Sketch]) -> Sketch:
        """Return the sketch of all samples of all sketches. Raises ValueError if their accuracies differ."""
        parts = list(sketches)
        accuracies = {s.relative_accuracy for s in parts} or {RELATIVE_ACCURACY}
        if len(accuracies) > 1:
            raise ValueError(f"sketches of different relative accuracy cannot be merged: {sorted(accuracies)}")
        return cls(
            positive=_merge_bins([s.positive for s in parts]),
            negative=_merge_bins([s.negative for s in parts]),
            zero_count=sum(s.zero_count for s in parts),
            min=min((s.min for s in parts), default=inf),
            max=max((s.max for s in parts), default=-inf),
            sum=sum(s.sum for s in parts),
            relative_accuracy=accuracies.pop(),
        )

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.positive.total + self.negative.total + self.zero_count

    @property
    def mean(self) -> float:
        """The exact mean. Raises ZeroDivisionError for an empty sketch."""
        return self.sum / self.count

    def quantile(self, q: float) -> float:
        """Return the value of rank q * (count - 1), rounded down and not interpolated, 0 <= q <= 1.

        Raises ValueError for an empty sketch.
        """
        count = self.count
        if not count or not 0 <= q <= 1:
            raise ValueError(f"no quantile {q} of {count} samples")
        mapping = _mapping(self.relative_accuracy)
        rank = q * (count - 1)
        below_zero = self.negative.total
        if rank < below_zero:
            # Counted from the far end: the largest magnitude is the smallest value.
            from_zero = below_zero - 1 - rank
            at = int(np.searchsorted(np.cumsum(self.negative.counts), ceil(from_zero), side="right"))
            return -float(mapping.value(self.negative.offset + at))
        rank -= below_zero
        if rank < self.zero_count:
            return 0.0
        at = int(np.searchsorted(np.cumsum(self.positive.counts), rank - self.zero_count, side="right"))
        return float(mapping.value(self.positive.offset + at))

    def count_above(self, value: float) -> int:
        """How many samples are greater than a positive value; a sample within the accuracy of it may count either way."""
        if value >= self.max:
            return 0
        first = _mapping(self.relative_accuracy).key(value) + 1 - self.positive.offset
        return int(self.positive.counts[max(0, first) :].sum())

    def to_json(self, *, runs: bool = False) -> dict[str, Any]:
        """Return the bins in readable form: relative accuracy, offset, counts, zero count, min, max, sum.

        `from_json` is the inverse. With `runs`, three or more empty bins in a row are written as one negative number, their
        count, which halves the size of a sketch with few samples.
        """
        shown = _with_runs if runs else list
        empty = not self.count
        out: dict[str, Any] = {
            "relative_accuracy": self.relative_accuracy,
            "offset": self.positive.offset,
            "counts": shown(self.positive.counts.tolist()),
            "zero_count": self.zero_count,
            "min": None if empty else self.min,
            "max": None if empty else self.max,
            "sum": self.sum,
        }
        if len(self.negative.counts):
            out["negative"] = {"offset": self.negative.offset, "counts": shown(self.negative.counts.tolist())}
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, runs: bool = False) -> Sketch:
        """Undo `to_json` with the same `runs`. Raises KeyError, TypeError or ValueError for anything else."""
        if not isinstance(data, Mapping):
            raise TypeError("a sketch is an object")
        below, accuracy, zeros = data.get("negative"), float(data["relative_accuracy"]), int(data["zero_count"])
        if not 1e-6 <= accuracy < 1 or not 0 <= zeros <= _MOST_SAMPLES:
            raise ValueError(f"no sketch has a relative accuracy of {accuracy} and {zeros} zeros")
        furthest = int(_LARGEST_LOG / log((1 + accuracy) / (1 - accuracy)))
        least, most, total = data["min"], data["max"], float(data["sum"])
        if not all(isfinite(value) for value in (float(least or 0), float(most or 0), total)):
            raise ValueError("the least, the greatest value and the sum of a sketch are finite numbers")
        return cls(
            positive=_bins_from_json(data, furthest, runs),
            negative=NO_BINS if below is None else _bins_from_json(below, furthest, runs),
            zero_count=zeros,
            min=inf if least is None else float(least),
            max=-inf if most is None else float(most),
            sum=total,
            relative_accuracy=accuracy,
        )
