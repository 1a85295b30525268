"""The page in a real headless Chromium: every view, filter, search, key and address, light and dark, on a phone."""

import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.browser import CHROMIUM, MISSING, Browser, browser
from fixtures.page import lines, problem, rollout, run
from rrl.study.page.html import write_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
TURNED = "one \u202etwo\u202c \u0007three"
VIEWS = ("overview", "steps?run=rrl0", "step/rrl0/training/2", "rollouts", "rollouts?open=rrl0/2.1", "problem",
         "problem/add%2F1", "replay")  # fmt: skip
NUMBERS = {
    "texts": [" so", " 2", "<end>"], "old_logprobs": [-0.5, -0.5, -0.25], "ref_logprobs": [-1.0, -0.5, -0.25],
    "values": [0.0, 0.5, 1.0], "advantages": [1.0, -0.5, 0.25], "rewards": [0.0, 0.0, 1.0],
    "entropies": [1.0, 0.5, 0.1],
}  # fmt: skip
ORIGIN = "so 1 no"
STORED = {"problem": "add/1", "parent": None, "source": "self", "cut": 2, "score": 0.5, "rollout": 0}


def write_runs(folder: Path) -> dict[str, list[Path]]:
    """Two arms of two seeds; rrl0 has rollouts of two steps, an evaluation, and a state that led to a first solve."""
    arms = {algo: [run(folder / f"{algo}{seed}", seed, algo) for seed in (0, 1)] for algo in ("ppo", "rrl")}
    here = arms["rrl"][0]
    other = problem("add/2", level="L2", question="2 + 2 =", answer="4", strata={"subject": "sums"})
    lines(here / "rollouts" / "step-000001.jsonl", [
        rollout(ORIGIN), rollout("four", "unparseable", finished=False, problem=other), rollout(HOSTILE, problem=other),
    ])  # fmt: skip
    replayed = {"prefix": "so 1", "prefix_tokens": [7, 8], "replayed_from": "add/1@0"}
    lines(here / "rollouts" / "step-000002.jsonl", [
        rollout("so 1 so 2", "right", **replayed, logprobs=[-0.75, -0.5, -0.25], numbers=NUMBERS),
        rollout(TURNED, problem=problem("add/1")), rollout("late", "wrong", evidence={"outcome": "time_limit"}),
        rollout("?", "error", problem=other),
    ])  # fmt: skip
    lines(here / "evaluations" / "step-000002.jsonl", [rollout("4", "right", problem=problem("test/1"), mode="greedy")])
    with (here / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": n, "replay/success_rate": float(n == 23)}) + "\n" for n in range(3, 24))
    visit = {"step": 2, "event": "visited", "key": "add/1@0", "row": 0, "verdict": "right"}
    forgotten = {"step": 2, "event": "forgotten", "key": "add/1@0", "reason": "mastered"}
    lines(here / "states.jsonl", [{"step": 1, "event": "stored", "key": "add/1@0", **STORED}, visit, forgotten])
    return arms


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, at a place where its runs are not any more."""
    folder = tmp_path_factory.mktemp("page")
    write_page(write_runs(folder / "runs"), folder / "page.html", 40.0, 500)
    shutil.rmtree(folder / "runs")
    return folder / "page.html"


@pytest.fixture(scope="module")
def tab(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.screen(1280, 900)
        opened.open(page)
        yield opened


@pytest.fixture(autouse=True)
def without_messages(tab: Browser) -> Iterator[None]:
    yield
    assert tab.messages == []


def shown(tab: Browser) -> list[str]:
    """The ids in the list of rollouts."""
    return tab.js("[...document.querySelectorAll('li.row')].map((row) => row.dataset.id)")


def text(tab: Browser, selector: str = "main") -> str:
    return tab.js(f"document.querySelector({json.dumps(selector)}).innerText")


def test_the_first_view_has_curves_tables_runs_differences_and_phases(tab, page):
    tab.open(page)
    tab.until("document.querySelectorAll('.plot canvas').length >= 3")
    said = text(tab)
    assert "rrl report" in tab.js("document.title") and "2 arms, 4 runs" in text(tab, "header")
    assert "Held-out accuracy, greedy" in said and "minus first arm at 200 (95 %)" in said
    assert "8 of 8" in said and "Keys in which the configurations differ" in said
    label = tab.js("document.querySelector('.plot').getAttribute('aria-label')")
    assert label.endswith("against generated tokens: ppo from 0.250 to 0.500; rrl from 0.250 to 0.500")


@pytest.mark.parametrize("axis", ["steps", "trained tokens", "seconds"])
def test_curves_are_drawn_over_each_axis(tab, axis):
    tab.go("overview")
    tab.js(f"[...document.querySelectorAll('.segments button')].find((b) => b.innerText === {axis!r}).click()")
    tab.until(f"(document.querySelector('.plot') || {{ariaLabel: ''}}).ariaLabel.includes('against {axis}')")


def test_numbers_of_training_are_averaged_along_the_axis_and_say_so_and_accuracies_never(tab):
    """The success rate is 0 at steps 3 to 22 and 1 at 23: within a twentieth of the axis of its end are a 0 and a 1."""
    tab.go("overview?x=step&smooth=0.1")
    tab.until("document.querySelectorAll('.plot canvas').length >= 3")
    titles = tab.js("[...document.querySelectorAll('figcaption h3')].map((title) => title.innerText)")
    assert titles[:2] == ["Held-out accuracy, greedy", "Score of fresh starts, averaged over 10 % of the axis"]
    tab.until("document.querySelectorAll('.plot canvas').length >= 5")
    labels = tab.js("[...document.querySelectorAll('.plot')].map((plot) => plot.ariaLabel)")
    assert any(label.startswith("Success rate") and label.endswith("rrl from 0 to 0.500") for label in labels)


def test_from_a_point_of_a_curve_to_its_step_problem_sample_and_token(tab):
    tab.go("overview?x=step")
    tab.until("document.querySelector('.plot canvas') && document.querySelector('.u-over').clientWidth")
    box = tab.js("document.querySelector('.u-over').getBoundingClientRect().toJSON()")
    tab.click(box["right"] - 2, box["top"] + 9)
    tab.until("[...document.querySelectorAll('.readout a')].find((a) => a.innerText === 'rrl0, step 2')")
    follow(tab, "rrl0, step 2")
    assert "4 of 4 rollouts kept, by this rule" in text(tab)
    follow(tab, "2.0")
    assert "All 3 of this problem in this step" in text(tab)
    tab.js("document.querySelector('[data-token=\"1\"]').click()")
    facts = text(tab, ".detail .readout")
    assert '" 2"' in facts and "value 0.5000" in facts and "engine − trainer 0" in facts
    assert tab.js("location.hash") == "#rollouts?open=rrl0%2F2.0&token=1"


def follow(tab: Browser, label: str) -> None:
    tab.js(f"""delete document.getElementById('main').dataset.ready;
      [...document.querySelectorAll('main a')].find((a) => a.innerText.includes({json.dumps(label)})).click()""")
    tab.until("document.getElementById('main').dataset.ready === 'yes'")


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ("verdict=right", ["rrl0/2.0", "rrl0/eval-2.0"]),
        ("verdict=unparseable", ["rrl0/1.1"]),
        ("verdict=error", ["rrl0/2.3"]),
        ("outcome=time_limit", ["rrl0/2.2"]),
        ("source=evaluation", ["rrl0/eval-2.0"]),
        ("start=replayed", ["rrl0/2.0"]),
        ("ended=truncated", ["rrl0/1.1"]),
        ("level=L2&tokens_max=2", ["rrl0/1.1", "rrl0/2.3"]),
        ("strata.subject=sums", ["rrl0/1.1", "rrl0/1.2", "rrl0/2.3"]),
        ("reward_min=1", ["rrl0/2.0"]),
        ("advantage_max=0.2", []),
        ("score_min=1&sort=-step", ["rrl0/2.0", "rrl0/eval-2.0"]),
        ("sort=-tokens&level=L1", ["rrl0/1.0", "rrl0/2.1", "rrl0/2.0", "rrl0/2.2", "rrl0/eval-2.0"]),
        ("q=TIME", []),
        ("q=so+1", ["rrl0/1.0", "rrl0/2.0"]),
        ("q=2+%2B+2", ["rrl0/1.1", "rrl0/1.2", "rrl0/2.3"]),
    ],
)
def test_rollouts_are_filtered_sorted_and_searched(tab, options, ids):
    tab.go(f"rollouts?{options}")
    assert shown(tab) == ids


def test_a_filter_is_a_control_and_becomes_part_of_the_address(tab):
    tab.go("rollouts")
    tab.js("""delete document.getElementById('main').dataset.ready;
      {const s = [...document.querySelectorAll('select')].find((s) => s.ariaLabel === 'Verdict');
       s.value = 'unparseable'; s.dispatchEvent(new Event('change'))}""")
    tab.until("document.getElementById('main').dataset.ready === 'yes'")
    assert (shown(tab), tab.js("location.hash")) == (["rrl0/1.1"], "#rollouts?verdict=unparseable")


def test_what_was_searched_for_is_marked(tab):
    tab.go("rollouts?q=1&open=rrl0/1.0")
    tab.until("document.querySelector('.detail .token.hit')")
    assert tab.js("[...document.querySelectorAll('.detail mark')].map((m) => m.innerText)") == ["1", "1"]
    assert text(tab, "li.row .around") == "so 1 no" and text(tab, "li.row .around mark") == "1"


def test_the_exact_prompt_and_response_are_copied(tab):
    tab.go("rollouts?open=rrl0/2.1")
    tab.js("navigator.clipboard.writeText = async (text) => { window.copied = text; }; 1")
    for label, expected in (("Copy prompt", "<bos>1 + 1 ="), ("Copy response", TURNED)):
        tab.js(f"[...document.querySelectorAll('.detail button')].find((b) => b.innerText === '{label}').click()")
        assert tab.until("window.copied") == expected
        tab.js("delete window.copied")


def test_each_overlay_is_switched_by_itself_and_the_prefix_is_apart(tab):
    tab.go("rollouts?open=rrl0/2.0")
    assert text(tab, ".tokens .prefix") == "so 1"
    names = ("logprobs", "entropies", "values", "advantages", "rewards", "gap", "ref", "mask")
    button = "document.querySelector('[data-overlay={}]')"
    for name in names:
        assert not tab.js(button.format(name) + ".disabled")
        if tab.js(button.format(name) + ".ariaPressed") == "true":
            tab.js(button.format(name) + ".click()")
    colours = "[...document.querySelectorAll('.token')].map((t) => t.style.background)"
    assert tab.js(colours) == ["", "", ""]
    seen = set()
    for name in names:
        tab.js(button.format(name) + ".click()")
        seen.add(json.dumps(tab.js(colours)))
        tab.js(button.format(name) + ".click()")
    assert len(seen) == len(names)
    tab.js(button.format("logprobs") + ".click()")


def test_overlays_are_curves_along_the_response_too_and_a_click_on_one_chooses_its_token(tab):
    tab.go("rollouts?open=rrl0/2.0")
    tab.js("document.querySelector('.strips').open = true")
    tab.until("document.querySelector('.strip .u-over')?.clientWidth")
    assert tab.js("document.querySelector('.strip').ariaLabel") == "log-prob along the response: from -0.750 to -0.250"
    tab.js("document.querySelector('.strip').scrollIntoView({block: 'center', behavior: 'instant'})")
    box = tab.js("document.querySelector('.strip .u-over').getBoundingClientRect().toJSON()")
    tab.click(box["left"] + box["width"] / 2, box["top"] + 20)
    assert tab.js("document.querySelector('.token.chosen').dataset.token") == "1"


def test_a_state_is_followed_from_its_first_solve_to_the_rollout_it_was_cut_from(tab):
    tab.go("replay?run=rrl0")
    said = text(tab, "#state")
    assert "Prompt of add/1" in said and "kept as self, score 0.500, stored at step 1" in said
    assert "1.0, cut after 2 tokens" in said and "forgotten at step 2 (mastered)" in said
    label = tab.js("document.querySelector('.lanes svg').getAttribute('aria-label')")
    assert label == "States of add/1 in rrl0: add/1@0, 1 visit, 1 right, forgotten at step 2"
    assert "First right rollout of the problem: 2.0, from this state, at step 2." in said.replace("✓ ", "")
    follow(tab, "1.0")
    assert "Cut from this rollout" in text(tab) and "add/1@0" in text(tab)
    assert tab.js("document.querySelector('.cut').previousSibling.textContent") == " 1"


def test_a_problem_is_shown_across_steps_and_runs(tab):
    tab.go("problem/add%2F1")
    assert tab.js("[...document.querySelectorAll('thead th')].map((t) => t.innerText)") == ["run", "step 1", "step 2"]
    assert "First and last of each run" in text(tab)


def test_problems_are_ordered_by_what_they_gained(tab):
    tab.go("problem?sort=gained")
    cells = (
        "[...document.querySelectorAll('tbody tr')].map((row) => [...row.cells].slice(0, 5).map((c) => c.innerText))"
    )
    assert tab.js(cells) == [["add/1", "L1", "4", "0.25", "0.33"], ["add/2", "L2", "3", "0", "0"],
                             ["test/1", "L1", "1", "1", "–"]]  # fmt: skip


def test_keys_go_through_rollouts_problems_views_and_to_the_search(tab):
    tab.go("rollouts")
    opened = "new URLSearchParams(location.hash.split('?')[1]).get('open')"
    for key, expected in (("j", "rrl0/1.0"), ("j", "rrl0/1.1"), ("j", "rrl0/1.2"), ("k", "rrl0/1.1"), ("n", "rrl0/2.0"),
                          ("p", "rrl0/1.2")):  # fmt: skip
        tab.press(key)
        tab.until(f"{opened} === {expected!r} && document.getElementById('main').dataset.ready")
    tab.press("/")
    assert tab.js("document.activeElement.id") == "search"
    tab.press("Escape", "g", "m")
    tab.until("location.hash === '#replay'")
    tab.press("?")
    tab.until("document.getElementById('keys').open")
    tab.js("document.getElementById('keys').close()")


def test_an_address_leads_to_a_token_of_a_rollout_in_a_page_that_is_just_opened(tab, page):
    tab.open(page, "rollouts?open=rrl0%2F2.0&token=1")
    tab.until("document.querySelector('.token.chosen')?.dataset.token === '1'")
    tab.open(page, "rollouts?open=gone%2F1.1")
    assert "No rollout gone/1.1 is on this page" in text(tab)


def test_what_a_model_wrote_runs_nothing_and_turns_nothing(tab):
    tab.go("rollouts?open=rrl0/1.2")
    assert HOSTILE in tab.js("document.querySelector('.detail .tokens').textContent")
    assert tab.js("document.querySelectorAll('.detail script, .detail img').length") == 0
    assert "taken" not in tab.js("document.title")
    tab.go("rollouts?open=rrl0/2.1")
    written = tab.js("document.querySelector('.detail .tokens').textContent")
    assert "U+202E" in written and "U+0007" in written and "\u202e" not in written
    refused = tab.js("(() => { try { document.body.innerHTML = '<b>'; } catch (e) { return e.name; } })()")
    assert refused == "TypeError"
    tab.messages.clear()  # the policy has reported this one


def test_figures_are_saved_as_png_and_svg(tab, tmp_path):
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.go("overview")
    tab.until("document.querySelectorAll('figcaption button').length >= 2")
    tab.js("[...document.querySelectorAll('figcaption button')].slice(0, 2).forEach((b) => b.click())")
    for suffix, begins in ((".png", b"\x89PNG"), (".svg", b"<svg xmlns")):
        path = tmp_path / f"accuracy-greedy{suffix}"
        for _ in range(200):
            if path.is_file():
                break
            tab.js("new Promise((done) => setTimeout(done, 20))")
        assert path.read_bytes().startswith(begins)


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_contrast_and_every_control_a_name(tab, dark):
    """4.5 to 1, as WCAG 2.2 asks of normal text."""
    tab.screen(1280, 900, dark)
    for view in VIEWS:
        tab.go(view)
        tab.until("document.querySelectorAll('main *').length > 5")
        assert tab.js(CONTRAST) == [], view
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        assert [node for node in nodes if needs_name(node) and not node.get("name", {}).get("value")] == [], view
    tab.screen(1280, 900)


def needs_name(node: dict) -> bool:
    roles = ("button", "link", "searchbox", "textbox", "combobox", "spinbutton", "image", "img", "dialog", "region")
    return not node["ignored"] and node.get("role", {}).get("value") in roles


CONTRAST = """
(() => {
  const numbers = (colour) => { const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    c.clearRect(0, 0, 1, 1); c.fillStyle = colour; c.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = c.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255]; };
  const known = new Map();
  const rgba = (colour) => { if (!known.has(colour)) known.set(colour, numbers(colour)); return known.get(colour); };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const behind = (e) => { const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own : over(own, e.parentElement ? behind(e.parentElement) : [255, 255, 255]); };
  const linear = (v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest('script')) continue;
    const back = behind(e), front = over(rgba(getComputedStyle(e).color), back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    const ratio = (high + .05) / (low + .05);
    if (ratio < 4.5) poor.push(`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


def test_light_and_dark_are_switched_by_hand(tab):
    tab.go("overview")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert tab.js(paper) == "rgb(246, 247, 249)"
    tab.js("document.getElementById('theme').click()")
    assert tab.js(paper) == "rgb(17, 22, 29)"
    tab.js("document.getElementById('theme').click()")


def test_nothing_is_wider_than_a_phone(tab):
    tab.screen(390, 844)
    for view in VIEWS:
        tab.go(view)
        assert tab.js("document.documentElement.scrollWidth") == 390, view
    tab.go("rollouts?open=rrl0/2.0")
    assert tab.js("getComputedStyle(document.querySelector('.side')).display") == "none"
    tab.screen(1280, 900)


@pytest.mark.slow
def test_fifty_runs_with_200_megabytes_of_rollouts_open_in_five_seconds(tab, tmp_path):
    """From the address to the first curve, on 2 cores; the page has at most 20 MB."""
    draw, words = random.Random(0), [f"word{n}" for n in range(5000)]
    folders = [run(tmp_path / "runs" / f"{n}", n % 5, f"algo{n // 5}") for n in range(50)]
    numbers = [f"metric/{m}" for m in range(40)]
    for folder in folders:
        rows = [
            {"step": n, "budget/tokens_generated": 100 * n, **{x: draw.random() for x in numbers}} for n in range(999)
        ]
        lines(folder / "metrics.jsonl", rows)
        for step in range(5):
            texts = [" ".join(draw.choices(words, k=200)) for _ in range(270)]
            rows = [rollout(text, problem=problem(f"add/{draw.randrange(2000)}")) for text in texts]
            lines(folder / "rollouts" / f"step-{step:06d}.jsonl", rows)
    assert sum(path.stat().st_size for path in tmp_path.rglob("rollouts/*")) > 200e6
    page = tmp_path / "page.html"
    write_page({f"algo{n}": folders[5 * n : 5 * n + 5] for n in range(10)}, page, 40.0, 500)
    began = time.monotonic()
    tab.open(page)
    tab.until("document.querySelector('.plot canvas') !== null")
    assert time.monotonic() - began < 5
    assert page.stat().st_size < 20e6
    began = time.monotonic()
    tab.go("rollouts?q=word17+word4")
    assert time.monotonic() - began < 5 and "searching" not in text(tab)
    tab.go("rollouts?open=25/3.100")
    assert len(shown(tab)) <= 150 and "Show earlier" in text(tab)
