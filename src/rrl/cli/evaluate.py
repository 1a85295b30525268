"""rrl-evaluate: measure a run's actor, or any model, on a task's held-out problems; or have a judge compare two."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rrl.cli import shell
from rrl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from rrl.config.check import Parts
    from rrl.study.measuring import Exam

HELP = """
rrl-evaluate measures accuracy on held-out problems and prints a JSON result (n, seed, interval, template, sampling).

  rrl-evaluate runs/trace-rrl-s0-...            the actor of a run, with the run's configuration
  rrl-evaluate from_run=runs/trace-rrl-s0-...   the same
  rrl-evaluate from_run=DIR evaluation.n=8      with other settings
  rrl-evaluate task=gsm8k data.path=DIR model=hf model.path=FOLDER_OR_ID
  rrl-evaluate task=gsm8k,math gsm8k.data.path=DIR math.data.path=DIR2 model=hf model.path=FOLDER_OR_ID
                                                several tasks; TASK.key=value is for one of them
  ... output=result.json                        writes the result to a new file
  ... responses=responses.jsonl                 writes every response with its verdict to a new file

With a judge it compares two sides instead: it judges one answer of each to every problem in both orders, and prints how
often the first side wins, ties and loses, by level. Judges: a reward model, or a language model behind an
OpenAI-compatible endpoint; its replies are stored, so that the same command continues after an interruption.

  rrl-evaluate from_run=RUN against=OTHER_RUN judge=openai judge.model=NAME
  rrl-evaluate from_run=RUN against=sft judge=reward_model reward_model=sequence reward_model.path=FOLDER_OR_ID
  against=OTHER_RUN | sft (the run's own warm start) | reference (the data set's answers) | a model's folder or id
  ... judgements=judgements.jsonl               writes every question, both answers and both verdicts to a new file
"""
FILES = ("output", "responses", "judgements")
OPTIONS = ("from_run", "against", *FILES)


def main() -> None:
    sys.exit(shell.run_command(_evaluate, HELP))


def _evaluate(arguments: Sequence[str]) -> None:
    import json

    from rrl.records.run_directory import write_json
    from rrl.records.secrecy import hidden
    from rrl.study.measuring import exams

    given, rest = shell.options(shell.with_run(arguments, "measure"), OPTIONS)
    files = {name: shell.new_file(name, given[name]) for name in FILES}
    _refuse_shared(files)
    chosen = exams(rest, given["from_run"])
    first = chosen[0]
    _refuse_unused(given, first.parts.judge is not None)
    first.parts.run.limit_threads()
    if first.parts.judge is None:
        results = _measured(chosen, files["responses"])
    else:
        about = {"task": first.config["data"]["name"]}
        results = iter([about | _compared(first.parts, given, files["judgements"])])
    result: dict[str, Any] = {}
    try:
        for result in results:
            if files["output"] is not None:
                write_json(files["output"], result)
    finally:  # a full disk, or a fault of a later task, takes nothing of what was measured
        if result:
            print(json.dumps(hidden(result), indent=2))


def _refuse_shared(files: "Mapping[str, Path | None]") -> None:
    """Raise ConfigError where two options name one file."""
    paths = {name: path.resolve() for name, path in files.items() if path is not None}
    shared = [name for name, path in paths.items() if list(paths.values()).count(path) > 1]
    if shared:
        raise ConfigError(f"{' and '.join(shared)}: both {str(files[shared[0]])!r}; expected a file for each")


def _refuse_unused(given: dict[str, str | None], judged: bool) -> None:
    """Raise ConfigError for options that only the other use of this command has."""
    if judged:
        if given["responses"] is not None:
            raise ConfigError(
                "responses: a judge compares answers; give judgements=FILE, which has those of both sides"
            )
        return
    need = "needs a judge, as in judge=openai, and there is none; give one"
    unused = [f"{name}: {need}" for name in ("against", "judgements") if given[name] is not None]
    if unused:
        raise ConfigError(*unused)


def _measured(chosen: "Sequence[Exam]", responses: "Path | None") -> "Iterator[dict[str, Any]]":
    """The result so far, whenever a task is done; adds its responses to a file when asked for the next."""
    from rrl.records.run_directory import append, response_rows
    from rrl.study.measuring import measured

    model, tasks = chosen[0].config["model"], dict[str, Any]()
    for exam, result, answers, tokenizer in measured(chosen):
        name = exam.name or exam.config["data"]["name"]
        tasks[name] = result
        yield {"task": name, "model": model, **result} if len(chosen) == 1 else {"model": model, "tasks": tasks}
        if responses is not None:
            responses.parent.mkdir(parents=True, exist_ok=True)
            append(responses, [{"task": name, **row} for row in response_rows(0, answers, tokenizer)])


def _compared(parts: "Parts", given: dict[str, str | None], judgements: "Path | None") -> dict[str, Any]:
    """Wins, ties and losses; prints a table to standard error, so that standard output is JSON alone."""
    from rrl.records.display import display
    from rrl.records.run_directory import dump_rollouts
    from rrl.study.arena import compare_answers, opponent
    from rrl.study.win_rates import table

    theirs = opponent(parts, given["against"], given["from_run"])
    bar = display("judge")
    bar.begin(f"against {theirs.name}")
    result, played = compare_answers(parts, theirs, bar.advance)
    bar.close()
    if judgements is not None:
        dump_rollouts(judgements, [match.row() for match in played])
    print(table(result), result["rule"], sep="\n", file=sys.stderr)
    return result


if __name__ == "__main__":
    main()
