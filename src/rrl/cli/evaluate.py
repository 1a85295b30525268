"""rrl-evaluate: measure a run's actor, or any model, on a task's held-out problems; or have a judge compare two."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rrl.cli import shell
from rrl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from rrl.config.check import Parts

HELP = """
rrl-evaluate measures accuracy on held-out problems and prints a JSON result (n, seed, interval, template, sampling).

  rrl-evaluate runs/trace-rrl-s0-...            the actor of a run, with the run's configuration
  rrl-evaluate from_run=runs/trace-rrl-s0-...   the same
  rrl-evaluate from_run=DIR evaluation.n=8      with other settings
  rrl-evaluate task=gsm8k data.path=DIR model=hf model.path=FOLDER_OR_ID
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
OPTIONS = ("from_run", "against", "output", "responses", "judgements")


def main() -> None:
    sys.exit(shell.run_command(_evaluate, HELP))


def _evaluate(arguments: Sequence[str]) -> None:
    import json
    from pathlib import Path

    from rrl.config.check import load
    from rrl.records.run_directory import write_json
    from rrl.records.secrecy import hidden
    from rrl.runs.manifest import moment

    given, rest = shell.options(shell.with_run(arguments, "measure"), OPTIONS)
    output, responses, judgements = (
        shell.new_file(name, given[name]) for name in ("output", "responses", "judgements")
    )
    config, parts = load("evaluate", rest, run=given["from_run"])
    if given["from_run"] is not None:
        parts.prompts.template.stand(moment(Path(given["from_run"]).expanduser()))
    parts.run.limit_threads()
    result = {"task": config["data"]["name"]}
    if parts.judge is None:
        result |= {"model": config["model"], **_measured(parts, given, responses)}
    else:
        if responses is not None:
            raise ConfigError("responses: a judge compares answers; judgements=FILE has those of both sides; give that")
        result |= _compared(parts, given, judgements)
    print(json.dumps(hidden(result), indent=2))
    if output is not None:
        write_json(output, result)


def _measured(parts: "Parts", given: dict[str, str | None], responses: "Path | None") -> dict[str, Any]:
    from rrl.records.run_directory import dump_rollouts, response_rows
    from rrl.runs.assemble import measure, prepare_evaluation, start_frozen, start_task
    from rrl.training.models import LoadedModel

    unused = [name for name in ("against", "judgements") if given[name] is not None]
    if unused:
        need = "needs a judge, as in judge=openai, and there is none; give one"
        raise ConfigError(*(f"{name}: {need}" for name in unused))
    start_task(parts)
    prepared = prepare_evaluation(parts, lambda progress, metrics: None)
    start_frozen(parts, LoadedModel(prepared.model, prepared.tokenizer), prepared.test, parts.engine)
    result, answers = measure(parts, prepared)
    if responses is not None:
        dump_rollouts(responses, response_rows(0, answers, prepared.tokenizer))
    return result


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
