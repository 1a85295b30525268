"""rrl-report: the page and the table from one command, and what is said of runs that do not fit."""

import errno
import re

import pytest

from fixtures.page import run
from rrl.cli.report import _report, _with_out
from rrl.errors import ConfigError, DataError


@pytest.mark.parametrize("out", [["--out", "x.html"], ["--out=x.html"], ["out=x.html"]])
def test_a_page_is_asked_for_in_the_projects_way_and_in_the_usual_one(out):
    assert _with_out(["runs", *out, "keep=1"]) == ["runs", "out=x.html", "keep=1"]


def test_the_page_and_the_table_come_from_one_command(tmp_path, capsys):
    run(tmp_path / "runs" / "a"), run(tmp_path / "runs" / "b", state="failed")
    _report([str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")])
    said = capsys.readouterr()
    assert (tmp_path / "page.html").is_file() and (tmp_path / "page.json").is_file()
    assert "page: " in said.out and "| rrl | 1 | 0.333 | 0.416 | 0.500 |" in said.out
    assert "b: unknown; in the curves, in no table; continue it" in said.err


def test_the_page_is_made_where_no_run_can_be_compared(tmp_path, capsys):
    run(tmp_path / "runs" / "a", state="failed")
    _report([str(tmp_path / "runs"), f"out={tmp_path / 'page.html'}"])
    assert (tmp_path / "page.html").is_file()
    assert "no finished run in or below it" in capsys.readouterr().err


def test_runs_of_other_questions_are_left_out_of_the_table_with_the_remedy(tmp_path, capsys):
    first, other = run(tmp_path / "a", data="x"), run(tmp_path / "b", algo="ppo", data="y")
    _report([str(tmp_path)])
    said = capsys.readouterr()
    assert "algo=rrl" in said.out and "algo=ppo" not in said.out
    assert (
        f"left out: {other}: its accuracies were measured on other questions than {first}; expected the same task"
        in said.err
    )
    assert f"compare it on its own: rrl-report {other}" in said.err


def test_a_run_without_an_evaluation_or_level_does_not_keep_the_others_from_comparison(tmp_path, capsys):
    run(tmp_path / "a"), run(tmp_path / "b", algo="ppo")
    (tmp_path / "b" / "evaluations.jsonl").unlink()
    _report([str(tmp_path)])
    said = capsys.readouterr()
    assert (
        "| algo=rrl | 1 |" in said.out and "b: holds no evaluations.jsonl; expected the directory of a run" in said.err
    )
    with pytest.raises(DataError, match=r"a: no level 'L9'; expected one of L1, L2"):
        _report([str(tmp_path), "level=L9"])


def test_a_disk_that_is_full_halfway_leaves_no_folder_that_refuses_the_next_try(tmp_path, monkeypatch):
    run(tmp_path / "runs" / "a")

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = [str(tmp_path / "runs"), f"out={tmp_path / 'some' / 'out'}"]
    with monkeypatch.context() as broken, pytest.raises(OSError, match="No space left"):
        broken.setattr("rrl.records.plots.learning_curves", full)
        _report(arguments)
    assert list((tmp_path / "some").iterdir()) == []
    _report(arguments)
    assert (tmp_path / "some" / "out" / "curves.png").is_file() and len(list((tmp_path / "some").iterdir())) == 1


def test_a_folder_has_the_table_as_markdown_and_latex_and_the_figure_as_png_and_svg(tmp_path, capsys):
    run(tmp_path / "runs" / "a")
    _report([str(tmp_path / "runs"), f"out={tmp_path / 'out'}"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.json", "report.md", "report.tex", "curves.png", "curves.svg"}
    assert (tmp_path / "out" / "report.tex").read_text().endswith("\\bottomrule\n\\end{tabular}\n")


@pytest.mark.parametrize("keep", ["-1", "nan", "much", "inf"])
def test_what_a_page_keeps_is_a_number_of_megabytes(tmp_path, keep):
    run(tmp_path / "a")
    with pytest.raises(ConfigError, match=re.escape(f"as in keep=40, got '{keep}'")):
        _report([str(tmp_path), "out=page.html", f"keep={keep}"])


def test_a_folder_with_the_name_of_a_page_is_refused_before_a_run_is_read(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ConfigError, match=r"out: '.*page.html' is a folder; expected a file for the page"):
        _report([str(tmp_path), f"out={tmp_path / 'page.html'}"])
