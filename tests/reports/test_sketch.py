"""The sketch against Artillery's own library, and against exact quantiles."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.model import Summary
from reports.sketch import RELATIVE_ACCURACY, Sketch
from tests.support.paths import GOLDEN
from tests.support.report_strategies import samples

SERIES = json.loads((GOLDEN / "ddsketch.json").read_text())["series"]


def uniforms(seed, count):
    """The golden data's generator: u of each step of a 32-bit linear congruential one."""
    state = seed
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        yield state / 2**32


def series_values(source):
    """The input that a series describes."""
    match source["kind"]:
        case "list":
            return source["values"]
        case "range":
            return range(source["from"], source["to"] + 1)
        case "zeros_then_count":
            return [0] * source["zeros"] + list(range(1, source["upto"] + 1))
        case "powers":
            return np.cumprod([1.0] + [1 + 2 * 0.01 / 0.99] * 399)
    if "product" in source["value"]:
        chances = np.fromiter(uniforms(source["seed"], 12 * source["n"]), float).reshape(-1, 12)
        return 40 * np.cumprod(0.5 + chances, axis=1)[:, -1]
    chances = np.fromiter(uniforms(source["seed"], source["n"]), float)
    formulas = {"u*1000": chances * 1000, "floor(u*2000)": np.floor(chances * 2000), "5/(1-u)": 5 / (1 - chances)}
    return formulas[source["value"]]


@pytest.mark.parametrize("series", SERIES, ids=lambda s: s["name"])
def test_a_sketch_summarises_as_artillerys_library_does(series):
    summary = Summary.of(Sketch.of(np.asarray(series_values(series["input"]), float)))

    assert {key: getattr(summary, key) for key in series["summary"]} == {
        key: float(figure) for key, figure in series["summary"].items()
    }


@given(samples, st.floats(0, 1))
def test_a_quantile_is_within_the_relative_accuracy_of_the_sample_of_that_rank(values, q):
    exact = sorted(values)[math.floor(q * (len(values) - 1))]

    assert Sketch.of(values).quantile(q) == pytest.approx(exact, rel=RELATIVE_ACCURACY * 1.0001, abs=1e-300)


@given(st.lists(samples, min_size=1, max_size=4))
def test_merging_equals_having_sketched_all_samples_at_once(parts):
    merged = Sketch.merged(Sketch.of(part) for part in parts)
    whole = Sketch.of([value for part in parts for value in part])

    assert (merged.positive, merged.negative, merged.zero_count, merged.min, merged.max) == (
        whole.positive,
        whole.negative,
        whole.zero_count,
        whole.min,
        whole.max,
    )
    assert merged.sum == pytest.approx(whole.sum, rel=1e-12, abs=1e-3)


@given(samples)
def test_a_sketch_survives_json(values):
    sketch = Sketch.of(values)

    assert Sketch.from_json(json.loads(json.dumps(sketch.to_json()))) == sketch


def test_sketches_of_different_accuracy_do_not_merge():
    with pytest.raises(ValueError, match="different relative accuracy"):
        Sketch.merged([Sketch.of([1.0]), Sketch.of([1.0], relative_accuracy=0.02)])


def test_an_empty_sketch_has_no_quantiles():
    with pytest.raises(ValueError, match="no quantile"):
        Sketch.of([]).quantile(0.5)


def test_counts_that_no_sketch_has_are_refused():
    with pytest.raises(ValueError, match="whole numbers from 0 to"):
        Sketch.from_json({**Sketch.of([1.0]).to_json(), "counts": [-1]})
