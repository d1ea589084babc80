"""Reports of any content, for hypothesis."""

from hypothesis import strategies as st

from reports.model import Extras, Period, Rate, Report, Second, Summary
from reports.sketch import Sketch

texts = st.text(max_size=8)
names = st.one_of(
    st.sampled_from(
        ["http.requests", "http.response_time", "http.response_time.intended", "loadgen.start_lag", "server.pool"]
    ),
    st.text(min_size=1, max_size=12),
)
counts = st.integers(0, 2**53)
instants = st.none() | st.integers(0, 2**42)
finite = st.floats(-1e300, 1e300)
samples = st.lists(
    st.floats(-1e6, 1e6).map(lambda x: round(x, 6)) | st.integers(0, 10_000).map(float), min_size=1, max_size=20
)
sketches = samples.map(Sketch.of)
rates = st.builds(Rate, counts) | st.builds(Rate, counts, counts, st.integers(0, 2**42), st.integers(0, 2**42))
figures = st.none() | finite
summaries = st.builds(
    Summary,
    min=figures,
    max=figures,
    count=st.none() | counts,
    mean=finite,
    p50=figures,
    p75=figures,
    p90=figures,
    p95=figures,
    p99=figures,
    p999=figures,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)


seconds = st.builds(Second, st.integers(0, 2**42), counts, counts, counts, st.none() | sketches)


def _named(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.dictionaries(names, values, max_size=4)


@st.composite
def periods(draw: st.DrawFn) -> Period:
    """A period of any document: its summaries need not be those of its sketches."""
    return Period(
        start_ms=draw(st.integers(0, 2**42)),
        counters=draw(_named(counts)),
        rates=draw(_named(rates)),
        summaries=draw(_named(summaries)),
        sketches=draw(_named(sketches)),
        first_counter_ms=draw(instants),
        last_counter_ms=draw(instants),
        first_histogram_ms=draw(instants),
        last_histogram_ms=draw(instants),
        seconds=tuple(draw(st.lists(seconds, max_size=3))),
    )


@st.composite
def measured_periods(draw: st.DrawFn) -> Period:
    """A period as the recorder makes it: each summary is that of its sketch, each rate has its count."""
    found = draw(_named(sketches))
    first = draw(st.integers(0, 5)) * 10_000
    return Period(
        start_ms=first,
        counters=draw(_named(st.integers(0, 10**6))),
        rates=draw(
            _named(st.builds(Rate.of, st.integers(1, 10**5), st.just(first), st.integers(first, first + 9_999)))
        ),
        summaries={name: Summary.of(sketch) for name, sketch in found.items()},
        sketches=found,
        first_counter_ms=first,
        last_counter_ms=first + 9_000,
        seconds=tuple(
            Second(first + 1000 * n, *draw(st.tuples(*[st.integers(0, 10**6)] * 3)), draw(st.none() | sketches))
            for n in sorted(draw(st.sets(st.integers(0, 9), min_size=1)))
        ),
    )


extras = st.builds(
    Extras,
    tool_version=texts,
    model=st.sampled_from(["open", "closed"]),
    partial=st.booleans(),
    environment=json_objects,
    generator=json_objects,
    warnings=st.lists(texts, max_size=2).map(tuple),
    ab=st.none() | json_objects,
)
reports = st.builds(
    Report, aggregate=periods(), periods=st.lists(periods(), max_size=3).map(tuple), extras=st.none() | extras
)
