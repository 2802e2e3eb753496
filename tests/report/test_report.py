"""Reports from records alone: unions, tables, curves, JSON, the page."""

import csv
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import finished
import numpy as np
import pytest
from finished import BLOCKS, DRAWS, IMAGES, ROWS, finish, scored

from adpur import ConfigError
from adpur.cli import main
from adpur.judging.scoreboard import Column, Outcome, Score
from adpur.judging.statistics import worst_of
from adpur.judging.threats import headline, unions
from adpur.report import curves
from adpur.report.draw.plots import INK, Series, lines, svg
from adpur.report.page import page
from adpur.report.paired import compare, paired
from adpur.report.results import results
from adpur.report.run import Run, read_run
from adpur.report.sweeps import attack_sweeps, row_sweeps, sweeps
from adpur.report.table import claims, table, warnings

EPS = 8 / 255
POOL = Column(ROWS[1], "union (Linf)", EPS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(finish(tmp_path_factory.mktemp("run") / "tiny"))


def outcomes(*named: str) -> dict[Column, Outcome]:
    return {
        c: Outcome.of(scored(c))
        for c in finished.columns()
        if c.attack in named and c.row == ROWS[1]
    }


def test_a_union_is_chosen_by_selection_draws_and_scored_on_the_others() -> None:
    found = outcomes("clean", "pgd50", "bpda")
    united = unions(found, BLOCKS)[POOL]
    for k, score in enumerate(united.scores):
        best = max((o.scores[k] for o in found.values()), key=lambda s: s.strength)
        assert (score.predictions, score.strength) == (best.predictions, best.strength)
        assert score.gradients == 160 and score.queries == 10  # what both attacks cost
    chosen = {s.strength for s in united.scores}
    assert chosen & {s.strength for s in found[Column(ROWS[1])].scores}  # left alone: an attack too


def test_a_minimum_over_columns_falls_by_luck_and_a_union_does_not() -> None:
    """Twenty attacks that do nothing: every column is the clean chance, .75, on fresh draws."""
    null = {"attacks": [finished.attack()], **{k: v for k, v in BLOCKS["bpda"].items()}}
    names = [f"null{k}" for k in range(20)]
    blocks = {name: null for name in names}
    found = {Column(ROWS[1]): Outcome.of(scored(Column(ROWS[1])))}
    found |= {
        Column(ROWS[1], n, EPS): Outcome.of(scored(Column(ROWS[1]), 1 + k))
        for k, n in enumerate(names)
    }
    (united,) = unions(found, blocks).values()
    truth = float(np.mean([1 - i / (2 * IMAGES) for i in range(IMAGES)]))
    error = math.sqrt(truth * (1 - truth) / (IMAGES * DRAWS))
    assert abs(united.correct.mean() - truth) < 3 * error
    assert min(o.correct.mean() for o in found.values()) < truth - 1.5 * error


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (("pgd", "l2"), set()),  # two norms: nothing to unite
        (("pgd", "pgd50", "l2"), {("union (Linf)", EPS)}),
        (("pgd50", "known"), set()),  # two states of knowledge
    ],
)
def test_only_attacks_of_one_threat_are_united(
    blocks: tuple[str, ...], names: set[tuple[str, float]]
) -> None:
    told = {name: BLOCKS[name] for name in blocks}
    made = unions(outcomes("clean", *blocks), told)
    assert {(c.attack, c.eps) for c in made} == names


def test_pooled_unions_say_so_and_have_no_clean_candidate() -> None:
    blocks = {"known": BLOCKS["known"], "again": BLOCKS["known"]}
    found = outcomes("clean", "known")
    found[Column(ROWS[1], "again", EPS)] = Outcome.of(scored(Column(ROWS[1], "again", EPS)))
    ((column, united),) = unions(found, blocks).items()
    assert column.attack == "union (pool 6)"
    clean = {s.strength for s in found[Column(ROWS[1])].scores}
    assert not clean & {s.strength for s in united.scores}


def test_a_row_is_known_by_the_union_at_its_largest_eps_under_fresh_noise() -> None:
    found = outcomes("clean", "known", "pgd", "bpda")
    blocks = {name: BLOCKS[name] for name in ("known", "pgd", "bpda")}
    assert headline(ROWS[1], found, blocks) == Column(ROWS[1], "union", EPS)
    assert headline(ROWS[1], outcomes("clean", "pgd"), blocks) == Column(ROWS[1], "pgd", EPS)
    assert headline(ROWS[1], outcomes("clean", "known"), blocks) == Column(ROWS[1], "known", EPS)
    assert headline(ROWS[1], outcomes("clean"), blocks) is None


def test_the_table_has_unions_and_marks_what_the_trust_report_warns_of(run: Run) -> None:
    head, _, *body = table([run])
    assert "pgd, eps 4/255" in head and "union (Linf), eps 8/255" in head
    assert [("†" in line) for line in body] == [False, True, False]
    assert warnings(run) == ["† ddpm t=50: the trust report says T7 loss rises (warn)"]


def test_a_claim_stands_under_its_own_name_only(run: Run) -> None:
    assert len(claims(run)) == 3 and all("/ legacy /" in line for line in claims(run))
    assert "claims 25.0" in claims(run)[0]
    for column, outcome in run.columns.items():
        assert ("claimed" in outcome.estimates()) is (column.attack == "legacy")


def test_paired_rows(run: Run) -> None:
    told = paired(run, "plain")
    assert sum(line.startswith("| ddpm t=100 - plain ") for line in told) == len(run.columns) / 3
    with pytest.raises(ConfigError, match="no row 'none'; there is: plain"):
        paired(run, "none")


def test_paired_estimands_are_of_the_images_both_rows_have() -> None:
    right, wrong = [0] * DRAWS, [1] * DRAWS
    score = scored(Column("a"))[0]

    def of(*predictions: list[int]) -> Outcome:
        pairs = enumerate(predictions)
        made = (Score(**score.as_dict() | {"index": k, "predictions": p}) for k, p in pairs)
        return Outcome.of(made)

    first = of(right, right, [0, 0, 0, 0, 1, 1], wrong, wrong)
    second = of(right, wrong, [0, 0, 0, 0, 0, 0], right)
    mean, bootstrap, worst, majority = compare(first, second)
    assert worst == "+1 -2, p 1" and majority == "+1 -1, p 1"
    assert mean.startswith("-8.3 [") and bootstrap.startswith("-8.3 [")


def test_results_are_what_a_leaderboard_quotes(run: Run) -> None:
    entries = results(run)
    assert len(entries) == 3 * 4  # Linf at 4/255 and 8/255, L2, pooled
    mine = {
        (e["threat_model"], e["eps"], e["knowledge"]): e for e in entries if e["name"] == ROWS[1]
    }
    entry = mine["Linf", "8/255", "fresh noise"]
    united = run.unions[POOL].estimates()
    assert entry["robust_acc"] == f"{100 * united['acc'].value:.2f}"
    assert entry["robust_acc_of"] == "union (Linf)"
    assert entry["estimands"]["union (Linf)"]["worst_of_n"]["value"] == (
        f"{100 * united['worst_of_n'].value:.2f}"
    )
    assert re.fullmatch(r"\d+\.\d\d", entry["clean_acc"]) and entry["dataset"] == "Toy"
    standard = run.outcomes[Column(ROWS[1], "standard", EPS)].estimates()["acc"].value
    assert entry["autoattack_acc"] == f"{100 * standard:.2f}"
    assert [e for e in entries if "autoattack_acc" in e] == [
        e for e in entries if (e["threat_model"], e["eps"], e["knowledge"]) == tuple(mine)[1]
    ]
    assert entry["attacks"]["legacy"]["claimed_acc"] == "25.00"
    assert "claimed_acc" not in entry["attacks"]["bpda"]
    assert entry["attacks"]["bpda"]["gradient_mode"] == {"class": "BPDA"}
    assert entry["weights"] == {"classifier": "ab" * 32}
    assert entry["architecture"] == {"classifier": "Classifier(ResNet)"}
    assert entry["unreliable"] is True and entry["trust"]["verdicts"][0]["verdict"] == "warn"
    assert mine["L2", "0.5", "fresh noise"]["robust_acc_of"] == "l2"
    json.dumps(entries)


def test_without_attacks_there_is_a_clean_entry_and_no_verdict(tmp_path: Path) -> None:
    bare = read_run(finish(tmp_path / "bare", trusted=False, only="none"))
    entries = results(bare)
    assert len(entries) == 3 and not {"robust_acc", "unreliable"} & entries[0].keys()
    assert "No trust report" in page([bare])


def test_curves_are_the_estimands(run: Run) -> None:
    looks = curves.against_looks(run)
    clean = next(s for s in looks if s.name == ROWS[1] and s.aside)
    matrix = run.outcomes[Column(ROWS[1])].correct
    assert clean.x == [1, 2, 3, 4, 5, 6]
    assert clean.y[0] == pytest.approx(100 * matrix.mean())
    assert clean.y[3] == pytest.approx(100 * worst_of(matrix, 4).value)
    assert clean.y[-1] == pytest.approx(100 * matrix.all(axis=1).mean())
    eps = next(s for s in curves.against_eps(run) if s.name == f"{ROWS[1]} / pgd")
    assert eps.x == [0, 4 / 255, EPS] and eps.y[0] == pytest.approx(100 * matrix.mean())
    loss = curves.against_queries(run, "pgd", EPS)
    assert [s.name for s in loss] == list(ROWS) and len(loss[0].y) == 20
    assert loss[0].y[3] == pytest.approx(0.3 + (IMAGES - 1) / 2)
    compute = next(s for s in curves.against_compute(run) if s.name == ROWS[1])
    assert compute.x[0] == 85 and compute.x[-1] == 5 * 85  # the union of five blocks
    assert curves.against_level(run, "plain") == []
    level = curves.against_level(run, ROWS[1])
    assert [s.name for s in level] == ["clean", "union (Linf), eps 8/255"]
    assert sum(level[0].weight) == pytest.approx(1)
    right = np.dot(level[0].y, level[0].weight)
    assert right == pytest.approx(100 * matrix.mean())


def test_sweeps_are_found_in_the_manifest(run: Run) -> None:
    (attacks,) = attack_sweeps(run)
    assert attacks[0] == "steps" and [s.name for s in attacks[1]] == list(ROWS)
    assert attacks[1][0].x == [20, 50]
    (rows,) = row_sweeps(run)
    assert rows[0] == "t" and rows[1][0].x == [50, 100]
    assert {s.name for s in rows[1]} >= {"clean", "bpda, eps 8/255"}


def test_two_numbers_that_differ_are_no_sweep() -> None:
    assert not list(sweeps({"a": {"x": 1, "y": [2]}, "b": {"x": 2, "y": [3]}}))
    assert not list(sweeps({"a": {"x": True}, "b": {"x": False}}))


class Reader(HTMLParser):
    """Every tag must be closed, and nothing may point outside the page."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "image", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                assert value is not None and value.startswith(("#", "data:image/png;base64,"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return page([run])


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    reader = Reader()
    reader.feed(text)
    assert not reader.open and not {"script", "link", "iframe"} & set(reader.seen)
    assert not re.search(r"@import|url\((?!#)", text)
    outside = set(re.findall(r'https?://[^"<\s]+', text))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_the_page_shows_everything_and_escapes_it(text: str, run: Run) -> None:
    assert text.count("<svg") == 18
    assert "&lt;the&gt; loss &amp; its rise" in text and "<the>" not in text
    assert '<tr class="warn"' in text and "T7" in text and "91.2 %" in text
    assert f"identity, sha256 {run.sha256}" in text
    for told in ("Worst of n", "draw matrix", "Accuracy against steps", "Accuracy against t,"):
        assert told in text
    assert INK not in text and text.count("currentColor") > 100


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    pages = [page([read_run(finish(tmp_path / at / "same", only="none"))]) for at in "ab"]
    assert pages[0] == pages[1]


def test_curves_differ_without_colour() -> None:
    many = [Series(f"row {k}", [0, 1], [k, k + 1]) for k in range(24)]
    drawn = lines(many, "x", "y").axes[0].get_lines()
    assert len({(line.get_marker(), line.get_linestyle()) for line in drawn}) >= 12
    looks = [(x.get_color(), x.get_marker(), x.get_linestyle()) for x in drawn]
    assert len(set(looks)) == 24


def test_names_are_not_mathematics() -> None:
    drawn = svg(lines([Series("a $x$ <b>", [1], [1]), Series("$", [1], [2])], "x", "y"), "n")
    assert "a $x$ &lt;b&gt;" in drawn


def written(folder: Path) -> Iterator[str]:
    yield from sorted(f.name for f in folder.iterdir() if f.is_file())


def test_the_command_writes_one_run_beside_its_records_and_several_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = finish(tmp_path / "one", only="bpda"), finish(tmp_path / "two", seed=1, only="bpda")
    before = set(written(one))
    assert main(["report", str(one)]) == 0
    new = set(written(one)) - before
    assert new == {"report.html", "results.json", "table.csv", "table.md"}
    capsys.readouterr()
    there = tmp_path / "there" / "deep"
    assert main(["report", str(one), str(two), "--out", str(there)]) == 0
    said = capsys.readouterr().out
    assert "| one: plain " in said and "| two: plain " in said
    assert set(written(there)) == new
    with (there / "table.csv").open() as stream:
        told = list(csv.DictReader(stream))
    assert len(told) == 2 * 6 and {line["run"] for line in told} == {"one", "two"}
    matrix = Outcome.of(scored(Column("plain"), 1)).correct
    mine = next(e for e in told if (e["run"], e["row"], e["attack"]) == ("two", "plain", "clean"))
    assert float(mine["acc"]) == pytest.approx(matrix.mean())
    assert float(mine["worst_of_n"]) == pytest.approx(matrix.all(axis=1).mean())
    entries = json.loads((there / "results.json").read_text())
    assert len(entries) == 6
