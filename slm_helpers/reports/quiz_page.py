"""The quiz of a notebook as a page that works offline."""

import html
import random
from pathlib import Path

from slm_helpers.apps.workshop_quiz import notes_path, read_quiz
from slm_helpers.data.files import atomic_write
from slm_helpers.reports.html import html_page


def write_quiz(number: str, out: str | Path) -> int:
    """Write the quiz of a notebook as one page without scripts; answers unfold. Returns the number of questions.

    Args:
        number: Of the notebook, e.g. "02".
        out: The page, with the ending .html.
    """
    path = notes_path(number)
    questions = read_quiz(path)
    title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").partition(":")[0]
    parts = [f"<h1>{html.escape(title)}: quiz</h1>"]
    for place, question in enumerate(questions, 1):
        order = random.Random(f"{path.stem} {place}").sample(range(len(question.options)), len(question.options))
        options = "".join(f"<li>{html.escape(question.options[i])}</li>" for i in order)
        letter = "ABCDEFGH"[order.index(question.answer)]
        parts.append(
            f'<h2>{place}. {html.escape(question.text)}</h2><ol type="A">{options}</ol>'
            f"<details><summary>Answer</summary><p><strong>{letter}.</strong> {html.escape(question.options[question.answer])}. "
            f"{html.escape(question.why)}</p></details>"
        )
    with atomic_write(Path(out)) as file:
        file.write(html_page("\n".join(parts), title=f"{title}: quiz"))
    return len(questions)
