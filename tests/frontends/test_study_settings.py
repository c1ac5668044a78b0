"""What a study's file may say, and who is in which arm."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcr_jax.frontends.study import settings as module
from pcr_jax.frontends.study.assignment import arm_of, key_of, order_of
from pcr_jax.frontends.study.settings import SettingsError, read_settings

GOOD = """
name = "loan-1"
title = "What would it take?"
task = "mine.py:task"
consent = "You agree."
block = 4
seed = 7

[applicants]
synthetic = 20

[arms.decision]
max_questions = 4
attention = [2]
retest = [1, 0]

[arms.random]
design = "random"
level = 0.8
individual = false
"""


def read(tmp_path, text):
    (tmp_path / "study.toml").write_text(text)
    return read_settings(tmp_path / "study.toml")


def test_a_study_is_read(tmp_path):
    settings = read(tmp_path, GOOD)
    assert (settings.name, settings.title) == ("loan-1", "What would it take?")
    assert settings.task == f"{tmp_path}/mine.py:task"
    assert settings.database == f"sqlite:///{tmp_path}/study.sqlite"
    assert (settings.synthetic, settings.file, settings.block, settings.seed) == (20, None, 4, 7)
    assert list(settings.arms) == ["decision", "random"]
    decision, random = settings.arms.values()
    assert (decision.design, decision.max_questions) == ("decision", 4)
    assert (decision.attention, decision.retest) == ((2,), (0, 1))
    assert (random.design, random.level, random.individual) == ("random", 0.8, False)
    assert settings.as_json()["arms"]["decision"]["retest"] == [0, 1]
    assert settings.as_json()["task"] == "task"


def test_what_may_lack(tmp_path):
    (tmp_path / "people.csv").write_text("a\n1\n")
    text = (
        'name = "x"\ntask = "a.b:c"\nconsent = "I agree."\n'
        '[applicants]\nfile = "people.csv"\n[arms.only]\n'
    )
    settings = read(tmp_path, text)
    assert (settings.title, settings.task) == ("x", "a.b:c")
    assert (settings.block, settings.seed) == (2, 0)
    assert settings.file == tmp_path / "people.csv"
    assert settings.synthetic is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "loan-1"', 'name = "../loan"', "Expected name to be letters, digits, - and _"),
        ('name = "loan-1"', "name = 3", "Expected name to be text .*; got 3"),
        ('name = "loan-1"', "", "Expected key name; it is not there"),
        ('title = "What would it take?"', 'title = ""', "Expected title to be text"),
        ("mine.py:task", "mine.py", "Expected task to be"),
        ("mine.py:task", "mine.py:a-b", "Expected task to be"),
        ("block = 4", "block = 3", "Expected block to be a multiple of the 2 arms; got 3"),
        ("block = 4", "block = 0", "Expected block to be an integer"),
        ("seed = 7", "seed = -1", "Expected seed to be an integer"),
        ("seed = 7", "seed = true", "Expected seed to be an integer .*; got True"),
        ("seed = 7", "seeds = 7", "Expected keys of .*; got 'seeds'"),
        ("synthetic = 20", "synthetic = 0", "Expected applicants.synthetic to be an integer"),
        ("synthetic = 20", "", "Expected applicants to be a table"),
        ("synthetic = 20", 'synthetic = 20\nfile = "x.csv"', "Expected applicants to be"),
        ("synthetic = 20", 'file = "x.xlsx"', "Expected applicants.file to be a file that ends"),
        ("synthetic = 20", 'file = "x.csv"', "Expected applicants.file to be a file beside"),
        ("max_questions = 4", "max_questions = 4.0", "Expected arms.decision.max_questions"),
        ("max_questions = 4", "max_question = 4", "got 'arms.decision.max_question'"),
        ("attention = [2]", "attention = [4]", "Expected arms.decision.attention .* 0 to 3"),
        ("attention = [2]", "attention = 2", "Expected arms.decision.attention"),
        ("retest = [1, 0]", "retest = [1, 1]", "Expected arms.decision.retest"),
        ("level = 0.8", "level = 1.0", "Expected arms.random.level to be a number between"),
        ("level = 0.8", "level = nan", "Expected arms.random.level to be a number between"),
        ("level = 0.8", 'level = "high"', "Expected arms.random.level to be a number between"),
        ("individual = false", "individual = 0", "Expected arms.random.individual to be true or"),
        ('design = "random"', "design = 1", "Expected arms.random.design to be text"),
        ("[arms.random]", '[arms."a\\nb"]', "Expected arms to be tables with names"),
        ("[arms.random]", "[arms]\nrandom = 3\n[x]", "Expected keys of"),
        ("name =", "name", "Expected .*study.toml in TOML"),
    ],
)
def test_a_mistake_names_the_key_what_was_expected_and_what_came(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(SettingsError, match=said) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "study.toml" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_design_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"arms\.random: .*design.*tarot"):
        read(tmp_path, GOOD.replace('"random"', '"tarot"'))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read: No such file"):
        read_settings(tmp_path / "nowhere.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(SettingsError, match="in TOML"):
        read_settings(tmp_path / "bytes.toml")
    monkeypatch.setattr(module, "_MAX_BYTES", 10)
    with pytest.raises(SettingsError, match="at most 10 bytes"):
        read(tmp_path, GOOD)


SEEDS = st.integers(0, 2**31 - 1)


@given(seed=SEEDS, times=st.integers(1, 4), arms=st.integers(1, 5))
def test_every_block_has_every_arm_as_often(seed, times, arms):
    names, block = [f"arm {i}" for i in range(arms)], times * arms
    found = [arm_of(seed, position, names, block) for position in range(6 * block)]
    for start in range(0, 6 * block, block):
        counts = Counter(found[start : start + block])
        assert counts == dict.fromkeys(names, times)
    assert found == [arm_of(seed, p, names[::-1], block) for p in range(6 * block)]


@given(seed=SEEDS, positions=st.permutations(range(12)))
def test_the_order_in_which_people_come_does_not_matter(seed, positions):
    def assigned(position):
        return arm_of(seed, position, ["a", "b", "c"], 6), tuple(key_of(seed, position))

    first = {position: assigned(position) for position in range(12)}
    assert {position: assigned(position) for position in positions} == first


def test_arms_cannot_be_guessed_from_the_last_ones():
    """Of 2000 blocks of two, half begin with a: 4.5 standard deviations, 7 in a million."""
    begins = [arm_of(0, position, ["a", "b"], 2) for position in range(0, 4000, 2)]
    assert abs(begins.count("a") - 1000) < 4.5 * 500**0.5
    same = sum(x == y for x, y in pairwise(begins))
    assert abs(same - 1000) < 4.5 * 500**0.5


def test_keys_are_different_and_can_be_used():
    keys = [tuple(key_of(seed, position)) for seed in range(3) for position in range(500)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= number < 2**32 for key in keys for number in key)


def test_applicants_come_again_only_after_all_have_come():
    found = [order_of(3, 10, position) for position in range(30)]
    for start in (0, 10, 20):
        assert sorted(found[start : start + 10]) == list(range(10))
    assert found[:10] != found[10:20]


@pytest.mark.parametrize(("position", "block"), [(0, 3), (0, 0), (-1, 2)])
def test_no_arm_of_what_cannot_be(position, block):
    with pytest.raises(ValueError, match="Expected"):
        arm_of(0, position, ["a", "b"], block)
