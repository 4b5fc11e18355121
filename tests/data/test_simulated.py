from dataclasses import fields

from slm_helpers.data.simulated import PREREQUISITES, SKILLS, SimulatedStudent, draw_skill_parameters, simulate_students

import numpy as np
import pandas as pd
import pytest

FRACTIONS, DIVISION = SKILLS.index("fractions"), SKILLS.index("division")


@pytest.fixture(scope="module")
def many():
    """Enough learners to see the true parameters through the noise."""
    return simulate_students(3000)


def fresh_student(rng, *, knows):
    """A learner of average speed who has mastered the skills `knows` and no other."""
    student = SimulatedStudent(draw_skill_parameters(), rng=rng)
    student.speed = 1.0
    student.mastered[:] = False
    student.mastered[list(knows)] = True
    return student


def test_same_seed_same_class():
    pd.testing.assert_frame_equal(simulate_students(20, seed=3), simulate_students(20, seed=3))
    assert not simulate_students(20, seed=3).equals(simulate_students(20, seed=4))


def test_parameters_are_probabilities_drawn_from_the_seed():
    first, again, other = draw_skill_parameters(seed=1), draw_skill_parameters(seed=1), draw_skill_parameters(seed=2)
    for field in fields(first):
        values = getattr(first, field.name)
        assert values.shape == (len(SKILLS),) == (20,)
        assert ((values > 0) & (values < 1)).all()
        np.testing.assert_array_equal(values, getattr(again, field.name))
        assert (values != getattr(other, field.name)).any()
    assert (first.guess < 1 - first.slip).all(), "guessing does better than knowing"


def test_later_skills_are_harder():
    parameters = draw_skill_parameters()
    assert parameters.known_at_start[:5].mean() > parameters.known_at_start[-5:].mean() + 0.2
    assert parameters.learn[:5].mean() > parameters.learn[-5:].mean()


def test_table_of_the_truth():
    table = draw_skill_parameters().to_frame()
    assert table["skill"].tolist() == list(SKILLS)
    assert table["skill"].is_unique
    assert table.set_index("skill").loc["fractions", "prerequisite"] == "division"
    assert table["prerequisite"].iloc[0] == ""
    assert all(before is None or before < skill for skill, before in enumerate(PREREQUISITES)), "a skill stands before its prerequisite"


def test_rows_are_attempts_in_order(many):
    assert list(many.columns) == ["student", "step", "skill", "correct", "mastered", "split"]
    assert many["student"].nunique() == 3000
    lengths = many.groupby("student")["step"].agg(["min", "max", "size"])
    assert (lengths["min"] == 0).all()
    assert (lengths["max"] == lengths["size"] - 1).all()
    assert lengths["size"].between(30, 70).all()
    assert many.groupby("student")["step"].is_monotonic_increasing.all()
    assert set(many["skill"]) == set(SKILLS)
    assert set(many["correct"]) == set(many["mastered"]) == {0, 1}


def test_splits_hold_whole_learners(many):
    assert many.groupby("student")["split"].nunique().max() == 1
    shares = many.groupby("student")["split"].first().value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.7, "valid": 0.1, "test": 0.2})


def test_slip_and_guess_are_recovered(many):
    truth = draw_skill_parameters().to_frame().set_index("skill")
    right = many.pivot_table(index="skill", columns="mastered", values="correct")
    np.testing.assert_allclose(right[1].loc[truth.index], 1 - truth["slip"], atol=0.02)
    np.testing.assert_allclose(right[0].loc[truth.index], truth["guess"], atol=0.06)
    assert np.corrcoef(right[0].loc[truth.index], truth["guess"])[0, 1] > 0.9


def test_what_is_mastered_stays_mastered(many):
    assert (many.groupby(["student", "skill"])["mastered"].diff().dropna() >= 0).all()
    assert many["mastered"].mean() > 0.4


def test_known_at_start_is_recovered():
    rng = np.random.default_rng(0)
    parameters = draw_skill_parameters()
    newcomers = np.mean([SimulatedStudent(parameters, rng=rng).mastered for _ in range(4000)], axis=0)
    np.testing.assert_allclose(newcomers, parameters.known_at_start, atol=0.035)
    halfway = np.mean([SimulatedStudent(parameters, start=10, rng=rng).mastered for _ in range(4000)], axis=0)
    np.testing.assert_allclose(halfway[:10], 0.85, atol=0.035)
    np.testing.assert_allclose(halfway[10:], parameters.known_at_start[10:], atol=0.035)


@pytest.mark.parametrize(("knows", "factor"), [((DIVISION,), 1.0), ((), 0.25)], ids=["with prerequisite", "without"])
def test_prerequisite_speeds_learning_four_times(knows, factor):
    rng = np.random.default_rng(1)
    learned = 0
    for _ in range(4000):
        student = fresh_student(rng, knows=knows)
        student.attempt(FRACTIONS)
        learned += student.mastered[FRACTIONS]
    assert learned / 4000 == pytest.approx(factor * draw_skill_parameters().learn[FRACTIONS], abs=0.025)


def test_practice_teaches_the_practised_skill_only():
    student = fresh_student(np.random.default_rng(2), knows=())
    answers = [student.attempt(0) for _ in range(200)]
    assert student.mastered.tolist() == [True] + [False] * 19
    assert all(isinstance(answer, bool) for answer in answers)
    assert np.mean(answers[50:]) > 0.8 > draw_skill_parameters().guess[0]


def test_quick_learners_learn_sooner():
    rng = np.random.default_rng(3)
    learned = {}
    for speed in (0.5, 2.0):
        students = [fresh_student(rng, knows=()) for _ in range(1000)]
        for student in students:
            student.speed = speed
            student.attempt(0)
        learned[speed] = np.mean([student.mastered[0] for student in students])
    assert learned[2.0] == pytest.approx(4 * learned[0.5], rel=0.3)


@pytest.mark.parametrize("num_students", [0, -3, 2.5])
def test_class_needs_a_learner(num_students):
    with pytest.raises(ValueError, match=r"num_students is .* whole number of at least 1"):
        simulate_students(num_students)
