from slm_helpers.analysis.periods import to_periods

import pytest


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        (["2019", "2021", "2019"], ["2019", "2021"], [0, 1, 0]),
        (["2021-01-05", "2021-03-01 12:00", "x"], ["2021-01-05", "2021-03-01"], [0, 1, -1]),
        ([f"2021-{m:02d}-{d:02d}" for m in (1, 2, 3) for d in range(1, 29, 3)], ["2021-01", "2021-02", "2021-03"], None),
        (["0.5", "7", "7", "?"], ["0.5", "7"], [0, 1, 1, -1]),
    ],
)
def test_times_become_few_periods_in_order(values, names, codes):
    period, found, _ = to_periods(values)
    assert len(found) <= 12 and (found == names or names[0] in found[0])
    assert codes is None or period.tolist() == codes


def test_many_numbers_become_twelve_equal_parts():
    period, names, _ = to_periods([str(i) for i in range(1200)])
    assert len(names) == 12 and set((period == part).sum() for part in range(12)) == {100} and names[0] == "0 to 99"


def test_words_are_no_times_and_that_is_told():
    period, names, told = to_periods(["soon", "later", "2021-01-01"])
    assert names == [] and (period == -1).all() and "less than half" in told


def test_order_of_day_and_month_is_told():
    assert "month first" in to_periods(["03/04/2021", "05/04/2021"])[2]
