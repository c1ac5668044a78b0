"""What people type about a feature, and the number that it is."""

import math
import string

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcr_jax as pcr
from pcr_jax.features import plain
from pcr_jax.frontends.answers import (
    MAX_CHARACTERS,
    Answer,
    AnswerError,
    expected,
    is_name,
    read_answer,
    read_entry,
)

INCOME = pcr.Real(low=0.0, high=9000.0, step=100.0, unit="euros")
BALANCE = pcr.Real(unit="euros")
RATE = pcr.Real(low=0.0, high=9000.0, unit="percent")
MONTHS = pcr.Integer(low=4, high=72, unit="months")
EMPLOYED = pcr.Levels(["not employed", "under 1 year", "1 to 4 years", "4 to 7 years"])
HOME = pcr.Levels(["free", "rent", "own"])
PHONE = pcr.Levels([False, True])
PURPOSE = pcr.Nominal(["car", "furniture", "Repairs", "retraining"])


def read(text, feature=INCOME, now=2400.0):
    return tuple(read_answer(text, feature, "column", now))


def refused(text, feature=INCOME, now=2400.0):
    """The sentence that says what is expected."""
    with pytest.raises(AnswerError) as error:
        read_answer(text, feature, "column", now)
    assert list(error.value.messages) == ["column"]
    message = error.value.messages["column"]
    assert message[0].isupper()
    assert message[-1] in ".5"
    assert f"{error.value}" == message
    return message


@pytest.mark.parametrize(
    "text",
    [
        *(
            "4100",
            "4,100",
            "4 100",
            "4'100",
            "4\u202f100",
            "4\u00a0100",
            "4\u2009100",
            "4\u2019100",
        ),
        *("4100.0", "4100.", "04100", "  4100\n", "4,100.00", "about 4100", "~4,100", "+1700"),
        *("4100 euros", "4100 Euro", "4100euros", "€4100", "4,100 €", "EUR 4100", "1,700 more"),
        *("+ 1,700 euros", "€1700 more", "4100-4100", "1700 higher"),
    ],
)
def test_one_number_can_be_written_in_many_ways(text):
    assert read(text) == (4100.0, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        *("3500-4300", "3500 - 4300", "3,500\u20134,300", "3 500 \u2014 4 300", "3500 to 4300"),
        *("between 3,500 and 4,300", "from 3500 to 4300", "3500 euros to 4300 euros"),
        *("€3500-€4300", "€3,500 to 4,300", "3500-4300 euros", "+1100 to +1900", "1100-1900 more"),
    ],
)
def test_a_range_is_its_middle_and_half_its_length(text):
    assert read(text) == (3900.0, 400.0)


def test_more_and_less_are_than_now():
    assert read("+200") == (2600.0, 0.0)
    assert read("200 less") == (2200.0, 0.0)
    assert read("200 to 300 less") == (2150.0, 50.0)
    assert read("300 fewer", BALANCE, 100.0) == (-200.0, 0.0)
    assert "itself" not in refused("+7000")
    assert "from 0 to 9,000" in refused("+7000")
    assert "from 0 to 9,000" in refused("2401 less")
    assert "not both" in refused("+200 more")
    assert "both numbers" in refused("+200 to 300")


def test_a_minus_is_a_negative_number_where_there_are_some():
    assert read("-300", BALANCE) == (-300.0, 0.0)
    assert read("\u22125", BALANCE) == (-5.0, 0.0)
    assert read("-€300", BALANCE) == (-300.0, 0.0)
    assert read("-300 to -100", BALANCE) == (-200.0, 100.0)
    assert read("-300--100", BALANCE) == (-200.0, 100.0)
    assert read("-300\u2013100", BALANCE) == (-100.0, 200.0)
    for text in ("-6-5", "-6 - 5", "-6 -5"):
        assert '"to"' in refused(text, BALANCE)
    assert refused("-300") == 'It cannot be below 0. For 300 less than now, type "300 less".'


@pytest.mark.parametrize("text", ["", "  ", "?", "don't know", "Don\u2019t know", "I do not know."])
def test_not_knowing_is_no_number(text):
    for feature in (INCOME, MONTHS, HOME, PHONE, PURPOSE):
        assert read(text, feature, 1.0) == (None, 0.0)


@pytest.mark.parametrize("text", ["no effect", "Same", "unchanged", "no change.", "the same"])
def test_no_effect_is_what_is_now(text):
    assert read(text) == (2400.0, 0.0)
    assert read(text, HOME, 2.0) == (2.0, 0.0)
    with pytest.raises(AnswerError, match="in full"):
        read_answer(text, INCOME, "income")


@pytest.mark.parametrize("text", ["4,1", "1.234,5", "4,10", "41,00", "4,1000", "0,500", "4,100,5"])
def test_commas_that_do_not_part_thousands_are_refused(text):
    assert refused(text) == (
        "Please write thousands with a comma and decimals with a point, as in 4,100.5."
    )


def test_what_may_be_thousands_or_decimals_is_refused():
    assert refused("4.100") == "That could be 4.1 or 4100. Please type one of these."
    assert refused("4.125") == "That could be 4.1250 or 4125. Please type one of these."
    assert read("4.1250") == (4.125, 0.0)
    assert refused("4.000-4.300") == "That could be 4 or 4000. Please type one of these."
    assert read("4.125", RATE, 3.5) == (4.125, 0.0)
    assert refused("4,125", RATE, 3.5) == "That could be 4.1250 or 4125. Please type one of these."
    assert read("4.125", pcr.Real(low=0, high=10), 3.0) == (4.125, 0.0)
    assert read("12.125") == (12.125, 0.0)
    assert read("0.125") == (0.125, 0.0)


def test_numbers_out_of_range_are_refused_with_the_range():
    assert refused("9001") == "Please type a number from 0 to 9,000."
    assert refused("8000-9001") == "Please type a number from 0 to 9,000."
    assert refused("3", MONTHS, 12.0) == "Please type a whole number from 4 to 72."
    assert refused("12.5", MONTHS, 12.0) == "Please type a whole number from 4 to 72."
    assert read("12-13", MONTHS, 12.0) == (12.5, 0.5)
    assert refused("-1", pcr.Real(low=-0.5), 1.0) == "Please type a number of at least -0.5."
    assert refused("8", pcr.Real(high=7), 1.0) == "Please type a number of at most 7."
    assert "too large" in refused("1" + 60 * "0", BALANCE)
    assert "too large" in refused("1" + 199 * "0", pcr.Integer(), 1.0)
    assert "too large" in refused("16777217", pcr.Integer(), 1.0)


def test_nonsense_is_told_what_can_be_typed():
    said = (
        "Please type a number such as 2,400, a range such as 2,300-2,500, or ? if you do not know."
    )
    for text in ("nan", "inf", "-inf", "1e308", "1e5", "4.1k", "0x10", "4100 dollars", "$4100"):
        assert refused(text) == said
    for text in ("a lot", "4100;DROP", "1-2-3", "4100-", "-", "+", "..", "--5", "4,100 4,200", "€"):
        assert refused(text)
    assert "smaller number of the range first, such as 2,300-2,500." in refused("4300-3500")
    assert refused("2 years", MONTHS, 12.0).startswith("Please type a number such as 12, a range")


def test_other_digits_signs_that_cannot_be_seen_and_long_texts_are_refused():
    for text in ("٤١٠٠", "\uff14\uff11", "4100²", "½", "四"):
        assert refused(text) == "Please use the digits 0 to 9."
    for text in ("41\x0000", "\x1b[31m4100", "4\u200b100", "\u202e0014", "41\t00", "\ud800"):
        assert "can be seen" in refused(text)
    assert f"{MAX_CHARACTERS}" in refused("1" * (MAX_CHARACTERS + 1))
    assert read("5 m²", pcr.Real(unit="m²"), 1.0) == (5.0, 0.0)


def test_levels_are_read_by_name():
    assert read("Rent", HOME, 0.0) == (1.0, 0.0)
    assert read("r", HOME, 0.0) == (1.0, 0.0)
    assert read("1 to 4 years", EMPLOYED, 0.0) == (2.0, 0.0)
    assert read("1 to", EMPLOYED, 0.0) == (2.0, 0.0)
    assert read("4", EMPLOYED, 0.0) == (3.0, 0.0)
    assert read("3", pcr.Levels([3, 1, 2]), 0.0) == (0.0, 0.0)
    assert refused("s", HOME) == (
        "Please type free, rent or own, a range such as free to rent, or ? if you do not know."
    )


def test_ranges_are_of_levels_in_their_order():
    assert read("rent to own", HOME, 0.0) == (1.5, 0.5)
    assert read("f\u2013o", HOME, 0.0) == (1.0, 1.0)
    assert read("between free and rent", HOME, 0.0) == (0.5, 0.5)
    assert read("under 1 year to 1 to 4 years", EMPLOYED, 0.0) == (1.5, 0.5)
    assert read("1 to 4 years-4 to 7 years", EMPLOYED, 0.0) == (2.5, 0.5)
    assert "first" in refused("own to rent", HOME)
    assert "Please type one of them: car" in refused("car to furniture", PURPOSE)


def test_categories_and_booleans_are_read_by_name():
    assert read("FURNITURE", PURPOSE, 0.0) == (1.0, 0.0)
    assert read("rep", PURPOSE, 0.0) == (2.0, 0.0)
    assert refused("re", PURPOSE) == "That could be Repairs or retraining. Please type more of it."
    for text in ("yes", "Y", "true"):
        assert read(text, PHONE, 0.0) == (1.0, 0.0)
    assert read("no", PHONE, 1.0) == (0.0, 0.0)
    assert refused("maybe", PHONE) == "Please type no or yes, or ? if you do not know."


def test_names_come_before_words_that_mean_something_else():
    odd = pcr.Nominal(["same", "?", "b", "Car", "car"])
    assert read("same", odd, 3.0) == (0.0, 0.0)
    assert read("?", odd, 3.0) == (1.0, 0.0)
    assert (read("Car", odd), read("car", odd)) == ((3.0, 0.0), (4.0, 0.0))
    assert is_name("B", odd)
    assert not is_name("b", HOME)
    many = pcr.Nominal([f"town {i}" for i in range(30)])
    assert expected(many) == "Please type one of the 30 names, such as town 0 or town 1."


def test_a_present_value_is_one_number_or_name():
    assert read_entry("4,100 euros", INCOME, "income") == 4100.0
    assert read_entry("own", HOME, "home") == 2.0
    for text in ("?", "", "3500-4300", "free to own"):
        for feature in (INCOME, HOME):
            with pytest.raises(AnswerError, match="Please type"):
                read_entry(text, feature, "income")
    with pytest.raises(AnswerError, match="a number from 0 to 9,000"):
        read_entry("?", INCOME, "income")
    with pytest.raises(AnswerError, match="in full"):
        read_entry("+200", INCOME, "income")


FEATURES = [INCOME, BALANCE, RATE, MONTHS, EMPLOYED, HOME, PHONE, PURPOSE, pcr.Integer()]
NUMBERS = st.one_of(st.integers(0, 9000), st.floats(0, 9000).map(lambda x: round(x, 2)))


@settings(max_examples=300)
@given(NUMBERS, st.sampled_from([",", " ", "'", "", "\u202f"]), st.sampled_from(["", " euros"]))
def test_what_is_written_is_read(value, mark, unit):
    written = plain(value).replace(",", mark) + unit
    assert read(written) == (value, 0.0)


@settings(max_examples=200)
@given(NUMBERS, NUMBERS, st.sampled_from(["-", " - ", " to ", "\u2013"]))
def test_what_is_written_of_a_range_is_read(one, other, apart):
    low, high = sorted((one, other))
    value, half = read(f"{plain(low)}{apart}{plain(high)}")
    assert value - half == pytest.approx(low, abs=1e-9)
    assert value + half == pytest.approx(high, abs=1e-9)


SIGNS = string.printable + "\u2013\u2014\u2212€£%\u202f\u00a0\u2019٤\uff14²½é\ud800\u200b\U0001f600"
WORDS = ["to", "between", "and", "more", "less", "euros", "months", "rent", "own", "1 to 4", "?"]
TEXTS = st.one_of(
    st.text(st.sampled_from(SIGNS), max_size=30),
    st.text(st.sampled_from("0123456789,.' -+\u2013"), max_size=14),
    st.text(max_size=40),
    st.lists(st.one_of(st.sampled_from([*WORDS, "-", ","]), NUMBERS.map(str)), max_size=7).map(
        " ".join
    ),
)


@settings(max_examples=800)
@given(TEXTS, st.sampled_from(FEATURES), st.one_of(st.none(), st.integers(0, 70)))
def test_any_text_is_an_answer_in_range_or_refused_with_a_sentence(text, feature, now):
    low, high, whole = feature.grid
    if now is not None:
        now = float(np.clip(now, low, high))
    try:
        answer = read_answer(text, feature, "column", now)
    except AnswerError:
        return
    assert isinstance(answer, Answer)
    if answer.value is None:
        assert answer.half_width == 0
        return
    for value in (answer.value - answer.half_width, answer.value, answer.value + answer.half_width):
        assert math.isfinite(np.asarray(value, jnp.result_type(float)))
        assert low <= value <= high
    assert answer.half_width >= 0
    assert not whole or (answer.value - answer.half_width) % 1 == 0


@settings(max_examples=100)
@given(
    st.floats(-1e6, 1e6).map(lambda x: round(x, 4)),
    st.sampled_from([BALANCE, RATE, INCOME, MONTHS]),
)
def test_the_examples_can_be_typed(now, feature):
    low, high, whole = feature.grid
    now = float(np.clip(round(now) if whole else now, low, high))
    said = expected(feature, now)
    number, both = said.removeprefix("Please type a number such as ").split(", a range such as ")
    both = both.removesuffix(", or ? if you do not know.")
    for text in (number, both):
        assert read_answer(text, feature, "column", now).value is not None
