"""Which experiments a choice means."""

import pytest

from loadgen.lab.experiments import chosen, experiments

ALL = experiments()


def ids(only=(), strategies=()):
    return [e.id for e in chosen(ALL, only, strategies)]


def test_ids_are_the_published_ones_and_their_variants():
    assert [e.id for e in ALL][:6] == ["B.1.c1", "B.1.c100", "B.2.c1", "B.2.c100", "B.3.c1", "B.3.c100"]
    assert {"A.pool10", "A.pool10.null", "A.analytics"} <= {e.id for e in ALL}
    assert len({e.id for e in ALL}) == len(ALL)


def test_no_choice_means_all():
    assert ids() == [e.id for e in ALL]


def test_a_group_means_all_of_it():
    assert ids(["B.3"]) == ["B.3.c1", "B.3.c100"]
    assert all(i.startswith("A.") for i in ids(["A"]))


def test_strategies_narrow_the_choice():
    assert {e.strategy for e in chosen(ALL, (), ["null"])} == {"null"}
    assert ids(["A"], ["null"]) == ["A.pool10.null"]


@pytest.mark.parametrize(
    ("only", "strategies", "told"), [(["X"], [], "'X'"), ([], ["magic"], "magic"), (["B.1"], ["queue"], "queue")]
)
def test_a_choice_that_fits_nothing_is_refused(only, strategies, told):
    with pytest.raises(ValueError, match=told):
        chosen(ALL, only, strategies)


def test_the_settings_are_the_sources():
    by_id = {e.id: e for e in ALL}
    assert by_id["B.3.c1"].settings["DB_POOL_SIZE"] == "20"
    assert by_id["B.3.c1"].settings["DB_POOL_RECYCLE"] == "3600"
    assert by_id["B.2.c1"].settings["DB_POOL_MIN"] == "5"
    assert (by_id["A.pool10"].servers, by_id["A.pool10"].settings["DB_POOL_SIZE"]) == (4, "10")
