"""Knowledge tracing: attempts in order, what is known before each, the baselines, the network, and the commands."""

import csv
import json

import slm_helpers
from slm_helpers.cli import main
from slm_helpers.data.attempts import NUM_FEATURES, Learner, find_duplicate_skills, merge_duplicate_skills, order_attempts
from slm_helpers.data.loading import load_dataset
from slm_helpers.data.simulated import practise, simulate_students
from slm_helpers.models.saved import SavedModel, load_model
from slm_helpers.models.tracer import build_knowledge_tracer
from slm_helpers.tasks import knowledge_tracing as trace
from slm_helpers.tasks.io import load_parts
from slm_helpers.tasks.knowledge_tracing import KnowledgeTracer

import keras
import numpy as np
import pandas as pd
import pytest


def attempts(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["student", "step", "skill", "correct"])


@pytest.fixture(scope="module")
def few() -> pd.DataFrame:
    """Sixty simulated learners."""
    return simulate_students(60, seed=3)


@pytest.fixture(scope="module")
def untrained() -> KnowledgeTracer:
    keras.utils.set_random_seed(0)
    model = build_knowledge_tracer(3, num_features=NUM_FEATURES, units=8, embedding_dim=8, head_units=8)
    return KnowledgeTracer.from_saved(SavedModel(model=model, task="trace", labels=["a", "b", "c"]))


def history(length: int, *, student: str = "x", seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return attempts(*[(student, step, "abc"[rng.integers(3)], int(rng.integers(2))) for step in range(length)])


# Attempts


def test_attempts_are_put_in_order_of_their_step():
    found = order_attempts(attempts(("y", 1, "a", 1), ("x", 5, "b", 0), ("y", 0, "c", 0)))
    assert found[["student", "skill"]].to_numpy().tolist() == [["y", "c"], ["y", "a"], ["x", "b"]]


def test_an_exercise_for_several_skills_is_one_attempt():
    rows = attempts(("x", 0, "area", 1), ("x", 1, "sum", 0), ("x", 1, "area", 0), ("x", 2, "sum", 1), ("y", 1, "sum", 1))
    with pytest.warns(UserWarning, match="2 rows are 1 attempts"):
        found = order_attempts(rows)
    assert found["skill"].tolist() == ["area", "area + sum", "sum", "sum"]
    assert found["correct"].tolist() == [1, 0, 1, 1]


def test_rows_of_one_attempt_must_agree():
    with pytest.raises(ValueError, match="student 'x', step 4: several rows are one attempt, but some are right and some wrong"):
        order_attempts(attempts(("x", 4, "a", 1), ("x", 4, "b", 0)))


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan")])
def test_an_answer_is_right_or_wrong(value):
    with pytest.raises(ValueError, match=r"row 2: correct is .*, but must be 1 \(right\) or 0 \(wrong\)"):
        order_attempts(attempts(("x", 0, "a", 1), ("x", 1, "a", value)))


def test_a_learner_is_described_by_earlier_attempts_only():
    learner = Learner()
    assert learner.features(0) == [0, 0, 0, 0, 0, 0, 0, 100]
    for skill, correct in ((0, 1), (1, 0), (0, 1)):
        learner.update(skill, correct)
    assert learner.counts(0) == (2, 0, 2, 1) and learner.counts(1) == (0, 1, 2, 1)
    right, wrong, all_right, all_wrong, _, _, gap, new = learner.features(1)
    assert (right, wrong, all_right, all_wrong) == (0, 69, 110, 69)  # 100 ln 2, 100 ln 3
    assert gap == 110 and new == 0
    assert learner.features(0)[4] > 0 > learner.features(1)[4]


def test_skills_that_are_two_names_of_the_same_attempts_are_found_and_joined():
    rng = np.random.default_rng(0)
    rows = []
    for student in range(20):
        answers = rng.integers(0, 2, 6).tolist()
        blocks = {"area": answers, "map": rng.integers(0, 2, 6).tolist(), "shape": answers if student else [1, 1]}
        rows += [(student, 10 * place + i, skill, c) for place, (skill, cs) in enumerate(blocks.items()) for i, c in enumerate(cs)]
    frame = attempts(*rows)
    duplicates = find_duplicate_skills(frame)
    assert duplicates[["skill", "duplicate", "students", "same"]].to_numpy().tolist() == [["area", "shape", 19, 19]]
    joined = merge_duplicate_skills(frame, duplicates)
    assert joined["skill"].value_counts().to_dict() == {"area": 120, "map": 120, "shape": 2}
    assert duplicates["alone"].tolist() == [1]
    duplicates = find_duplicate_skills(frame[frame["student"] > 0])  # now nobody has shapes alone, and who comes with them later is renamed
    assert merge_duplicate_skills(frame, duplicates)["skill"].value_counts().to_dict() == {"area": 122, "map": 120}


def test_the_simulation_holds_no_attempt_twice(few):
    assert find_duplicate_skills(few).empty


# Scores


# Baselines


# The network


def test_prediction_never_sees_the_answer_or_the_future(untrained):
    rows = history(60)
    changed = rows.assign(correct=np.where(rows.index >= 30, 1 - rows["correct"], rows["correct"]))
    before, after = (untrained.predict_proba(part)[:, 1] for part in (rows, changed))
    np.testing.assert_allclose(before[:31], after[:31], atol=1e-6)
    assert np.abs(before[31:] - after[31:]).max() > 1e-4


def test_padding_and_company_change_nothing(untrained):
    rows, other = history(13), history(50, student="y", seed=1)
    together = untrained.predict_proba(pd.concat([rows, other], ignore_index=True))
    np.testing.assert_allclose(together[:13], untrained.predict_proba(rows), atol=1e-6)


def test_rows_are_predicted_in_the_order_they_come_in(untrained):
    rows = pd.concat([history(20), history(30, student="y", seed=1)], ignore_index=True)
    expected = pd.DataFrame(untrained.predict_proba(rows), index=rows.index)
    mixed = rows.sample(frac=1, random_state=0)
    np.testing.assert_allclose(untrained.predict_proba(mixed), expected.loc[mixed.index], atol=1e-6)
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    assert untrained.predict(mixed).tolist() == (expected.loc[mixed.index, 1] >= 0.5).astype(int).tolist()
    dicts = rows.drop(columns="step").to_dict("records")  # without steps rows are in order
    np.testing.assert_allclose(untrained.predict_proba(dicts), expected, atol=1e-6)


def test_long_histories_are_cut_at_fixed_positions(untrained, monkeypatch):
    rows = history(75).to_dict("records")
    whole = [row["confidence"] for row in untrained.predict_rows(rows)]
    monkeypatch.setattr(trace, "MAX_ATTEMPTS", 20)
    monkeypatch.setattr(trace, "CONTEXT", 10)
    cut = [row["confidence"] for row in untrained.predict_rows(rows)]
    assert cut[:20] == pytest.approx(whole[:20], abs=1e-3)
    in_parts = untrained.row_predictor()
    parts = [row["confidence"] for start in range(0, 75, 7) for row in in_parts(rows[start : start + 7])]
    assert parts == pytest.approx(cut, abs=1e-4)


def test_a_file_in_parts_needs_no_more_memory_for_longer_histories(untrained, monkeypatch):
    monkeypatch.setattr(trace, "MAX_ATTEMPTS", 16)
    monkeypatch.setattr(trace, "CONTEXT", 4)
    learners = []
    monkeypatch.setattr(trace, "Learner", lambda: learners.append(Learner()) or learners[-1])
    rows = history(200).to_dict("records")
    whole, in_parts = untrained.predict_rows(rows), untrained.row_predictor()
    assert [row for start in range(0, 200, 10) for row in in_parts(rows[start : start + 10])] == whole
    assert [(len(learner.past), learner.num_attempts) for learner in learners] == [(21, 200), (21, 200)]


def test_what_is_not_answered_yet_is_predicted_and_teaches_nothing(untrained):
    rows = history(10).to_dict("records")
    open_rows = [row | {"correct": "", "step": 10 + i} for i, row in enumerate(history(6, seed=2).to_dict("records"))]
    found = untrained.predict_rows(rows + open_rows)
    for row, value in zip(open_rows, found[10:], strict=True):
        assert untrained.predict_rows([*rows, row])[-1]["confidence"] == pytest.approx(value["confidence"], abs=1e-4)
    for empty in (None, float("nan"), ""):
        frame = pd.DataFrame(rows + [row | {"correct": empty} for row in open_rows]).astype({"correct": object})
        assert untrained.predict_proba(frame)[10:].max(axis=1).round(4).tolist() == [row["confidence"] for row in found[10:]]


def test_skills_are_predicted_as_if_each_came_next(untrained):
    rows = history(12)
    codes = [("abc".index(skill), correct) for skill, correct in zip(rows["skill"], rows["correct"], strict=True)]
    found = untrained.predict_skills([codes, []])
    assert found.shape == (2, 3) and untrained.skills_ == ["a", "b", "c"] and untrained.predict_skills([]).shape == (0, 3)
    for code, skill in enumerate("abc"):
        for row, earlier in enumerate((rows, rows.head(0))):
            extended = pd.concat([earlier, attempts(("x", 99, skill, 1))], ignore_index=True)
            assert untrained.predict_proba(extended)[-1, 1] == pytest.approx(found[row, code], abs=1e-5)


def test_a_tracer_learns_who_knows_what_and_survives_saving(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for student in range(120):  # half of the learners know everything, half nothing
        for step in range(10):
            rows.append((f"s{student}", step, "ab"[rng.integers(2)], int(rng.random() < (0.95 if student % 2 else 0.1))))
    frame = attempts(*rows)
    train, valid, test = (frame[frame["student"].isin([f"s{i}" for i in part])] for part in (range(80), range(80, 90), range(90, 120)))
    tracer = KnowledgeTracer(units=16, epochs=6, batch_size=8, learning_rate=1e-2)
    tracer.fit(train.drop(columns="correct"), train["correct"], validation_data=(valid, None))
    values = tracer.evaluate(test).set_index("metric")
    assert values.loc["auc", "value"] > 0.85 and values.loc["auc", "ci_low"] <= values.loc["auc", "value"] <= values.loc["auc", "ci_high"]
    assert tracer.evaluation_.rows == len(test) and set(tracer.evaluation_.tables["skills"]["skill"]) == {"a", "b"}
    assert {"train", "valid"} == set(tracer.history_["split"]) and tracer.saved_.settings["temperature"] > 0
    assert tracer.score(test) == values.loc["auc", "value"] and tracer.classes_.tolist() == [0, 1]
    loaded = slm_helpers.load_model(tracer.save(tmp_path / "model"))
    np.testing.assert_allclose(loaded.predict_proba(test), tracer.predict_proba(test), atol=1e-6)


def test_learners_with_one_answer_are_learned_from_and_predicted():
    frame = attempts(*[(f"s{i}", 0, "ab"[i % 2], int(i % 2 == 0 or i % 7 == 0)) for i in range(60)])
    tracer = KnowledgeTracer(epochs=8, batch_size=8, learning_rate=1e-2, units=8).fit(frame)
    easy, hard = tracer.predict_rows([{"student": "new", "step": i, "skill": s, "correct": ""} for i, s in enumerate("ab")])
    assert (easy["prediction"], hard["prediction"]) == ("1", "0")


def test_nothing_in_gives_nothing_out(untrained):
    empty = attempts()
    assert untrained.predict(empty).shape == (0,) and untrained.predict_proba([]).shape == (0, 2) and untrained.predict_rows([]) == []


def test_fit_refuses_what_it_cannot_use(few):
    with pytest.raises(ValueError, match="one kind at most"):
        KnowledgeTracer().fit(few.assign(correct=1))
    with pytest.raises(ValueError, match="valid, attempt 1: the skill 'knitting' is unknown"):
        KnowledgeTracer().check_frame(few.assign(skill=np.where(few["split"] == "valid", "knitting", few["skill"])))
    with pytest.raises(ValueError, match=r"'skill' is missing.*There are: student, correct"):
        KnowledgeTracer().fit(few[["student", "correct"]])


def test_predict_refuses_unknown_skills_bad_answers_and_steps_out_of_order(untrained):
    good = {"student": "x", "step": 3, "skill": "a", "correct": 1}
    with pytest.raises(ValueError, match="row 2: the skill 'd' is unknown to this model, which knows a, b, c"):
        untrained.predict_rows([good, good | {"step": 4, "skill": "d"}])
    with pytest.raises(ValueError, match="row 2: correct is 7"):
        untrained.predict_rows([good, good | {"step": 4, "correct": 7}])
    for predict in (untrained.predict_rows, untrained.predict_proba):
        with pytest.raises(ValueError, match="row 2: step 3 of student 'x' comes after step 3"):
            predict([good, good])
    in_parts = untrained.row_predictor()
    in_parts([good, good | {"step": 4}])
    with pytest.raises(ValueError, match=r"^row 4: the skill 'd'"):
        in_parts([good | {"step": 5}, good | {"step": 6, "skill": "d"}])


# Files and commands


def test_whole_learners_go_to_valid(tmp_path):
    simulate_students(40).drop(columns=["split", "mastered"]).to_csv(tmp_path / "train.csv", index=False)
    simulate_students(3, seed=1).drop(columns="split").to_csv(tmp_path / "test.csv", index=False)
    frame = load_parts("trace", train=[str(tmp_path / "train.csv")], test=str(tmp_path / "test.csv"))
    assert frame[frame["split"] != "test"].groupby("student")["split"].nunique().max() == 1
    assert frame.loc[frame["split"] == "valid", "student"].nunique() == 4


def test_a_file_without_steps_is_in_order(tmp_path):
    (tmp_path / "rows.csv").write_text("who,skill,correct\n" + "".join(f"s{i % 4},a,{i % 2}\n" for i in range(12)))
    frame = load_dataset(tmp_path / "rows.csv", student="who")
    assert frame.groupby("student")["step"].apply(list).tolist() == [[0, 1, 2]] * 4


def test_a_bad_answer_in_a_file_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text("student,skill,correct\n" + "x,a,1\n" * 10 + "x,a,3\n")
    with pytest.raises(ValueError, match=r"rows.csv, line 12, column 'correct': '3', but it must be 1 for a right answer or 0"):
        load_dataset(tmp_path / "rows.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with rows and a model trained on them by the command."""
    folder = tmp_path_factory.mktemp("trace")
    frame = simulate_students(50, seed=5).rename(columns={"student": "who"})
    frame[frame["split"] != "test"].drop(columns=["split", "mastered"]).to_csv(folder / "train.csv", index=False)
    frame[frame["split"] == "test"].drop(columns=["split", "mastered"]).to_csv(folder / "test.csv", index=False)
    files = ["--train", str(folder / "train.csv"), "--test", str(folder / "test.csv")]
    assert main(["finetune", "trace", *files, "--student", "who", "--epochs", "3", "--out", str(folder / "model")]) == 0
    return folder


def test_evaluate_and_predict_from_the_shell(trained, tmp_path, capsys):
    capsys.readouterr()
    assert main(["evaluate", "--model", str(trained / "model"), "--test", str(trained / "test.csv"), "--student", "who", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "trace" and set(found["metrics"]) == {"auc", "accuracy", "log_loss_bits"}
    assert found["metrics"]["auc"]["value"] == load_model(trained / "model").metrics["auc"]["value"]
    assert 0.5 < found["metrics"]["auc"]["value"] < 1
    rows = list(csv.DictReader((trained / "test.csv").open()))
    with (tmp_path / "ask.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["who", "skill", "correct"])
        writer.writeheader()
        writer.writerows([{key: row[key] for key in ("who", "skill", "correct")} for row in rows[:40]])
        writer.writerow({"who": rows[39]["who"], "skill": "counting", "correct": ""})
    arguments = ["predict", "--model", str(trained / "model"), "--input", str(tmp_path / "ask.csv"), "--output", str(tmp_path / "out.csv")]
    assert main([*arguments, "--student", "who"]) == 0
    out = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert len(out) == 41 and {row["prediction"] for row in out} <= {"0", "1"}
    assert all(0.5 <= float(row["confidence"]) <= 1 for row in out)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,knitting,1", "the skill 'knitting' is unknown"),
        ("x,counting,5", "line 2, column 'correct': '5', but it must be 1"),
        ("x,counting,maybe", "line 2, column 'correct': 'maybe' is not a whole number"),
        (",counting,1", "line 2, column 'student': empty"),
    ],
)
def test_bad_rows_stop_predict(trained, tmp_path, capsys, row, message):
    (tmp_path / "ask.csv").write_text(f"student,skill,correct\n{row}\n")
    arguments = ["--model", str(trained / "model"), "--input", str(tmp_path / "ask.csv"), "--output", str(tmp_path / "out.csv")]
    assert main(["predict", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_the_shell_refuses_a_base(trained, capsys):
    arguments = ["--train", str(trained / "train.csv"), "--student", "who", "--base", "slm-base-en", "--out", str(trained / "other")]
    assert main(["finetune", "trace", *arguments]) == 2
    assert "--base none" in capsys.readouterr().err


# Advice in the simulation


def test_an_oracle_teaches_more_than_chance():
    def oracle(students, histories, rng):
        return [int(np.argmin(student.mastered)) for student in students]

    def chance(students, histories, rng):
        return rng.integers(0, 20, len(students)).tolist()

    gains = {choose: practise(choose, num_students=60, num_exercises=20, seed=1) for choose in (oracle, chance)}
    assert (gains[oracle]["before"] == gains[chance]["before"]).all(), "the same learners under both"
    gain = {choose: (table["after"] - table["before"]).mean() for choose, table in gains.items()}
    assert gain[oracle] > gain[chance] + 0.5


# Public results
