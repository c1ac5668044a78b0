"""Tables that are none: what the figures say of them."""

import pandas as pd
import pytest

from pcr_jax import plots

FIGURES = {
    "recourse": (plots.recourse, ("m1", 0.1)),
    "interventions": (plots.interventions, ("m1", 0.1, 0.5)),
    "estimation": (plots.estimation, ("alpha",)),
    "cost_against_questions": (plots.cost_against_questions, ()),
    "price_of_certainty": (plots.price_of_certainty, ()),
}


@pytest.mark.parametrize("figure", list(FIGURES))
def test_a_table_that_is_none_or_lacks_a_column_is_named(figure):
    draw, settings = FIGURES[figure]
    with pytest.raises(TypeError, match=r"Expected table to be a pandas\.DataFrame; got str"):
        draw("recourse.csv", *settings)
    with pytest.raises(ValueError, match=r"Expected table with the columns .*; got \['x'\]"):
        draw(pd.DataFrame({"x": [1]}), *settings)
