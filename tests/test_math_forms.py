r"""MATH: the forms in which models write an answer are right, and what only looks like it is wrong.

Every verdict was decided by hand. experiments/math/forms.py does the same with all references of the data.
"""

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rrl.answers import same_text
from rrl.equality import compare

SPACING = [
    (r"x\,=\,5", "5"),
    (r"5~\text{cm}", "5"),
    (r"x = 5 \quad \text{or} \quad x = 7", "5,7"),
    (r"x=5\qquad\text{or}\qquad x=7", "5,7"),
    (r"\;5\:", "5"),
    ("\\ 5\\", "5"),  # the blank behind the last backslash was stripped
    (r"0.5\;", r"\frac12"),
    (r"3\ \frac{1}{2}", r"\frac72"),
    (r"5\hspace{2mm}\text{cm}", "5"),
    (r"x\thinspace=\medspace 5\enspace", "x = 5"),
    (r"{}5{}", "5"),
    (r"\!\sqrt{21}", r"\sqrt{21}"),
    (r"\displaystyle\frac{1}{2}", "0.5"),
    (r"\bigl(1,\,2\bigr)", "(1, 2)"),
    (r"\left.\frac{1}{2}\right.", r"\frac{1}{2}"),
    (r"\begin{pmatrix}1\\[4pt]2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\mspace{3mu}7\kern1pt", "7"),
    ("$5$", "5"),
    (r"\(\frac{1}{2}\)", "0.5"),
    ("**5**", "5"),
    (r"\\frac{1}{2}", r"\frac{1}{2}"),
]
NAMES = [
    (r"A^{-1} = \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    ("f^{-1}(x) = x^2", "x^2"),
    (r"V_{\text{cone}} = 12\pi", r"12\pi"),
    (r"\mathbf{v} = \begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\overline{AB} = 14", "14"),
    (r"\angle ABC = 30^\circ", "30"),
    (r"m\angle A = 30^{\circ}", "30"),
    (r"[\triangle ABC] = 6", "6"),
    (r"[ABC] = 6", "6"),
    ("|AB| = 5", "5"),
    (r"\|\mathbf{v}\| = 5", "5"),
    (r"\theta = \frac{\pi}{2}", r"\frac{\pi}{2}"),
    (r"P(A) = \frac13", r"\frac13"),
    (r"P(A \cap B) = \frac13", r"\frac13"),
    ("P(X = 3) = 5", "5"),
    ("x_1 = 3", "3"),
    ("a_{n+1} = 3", "3"),
    (r"\text{Area} = 10", "10"),
    (r"\text{Area of }\triangle ABC = 10", "10"),
    ("Area = 10", "10"),
    (r"\text{Answer: } 5", "5"),
    ("Answer: 5", "5"),
    ("f(x) = x^2 + 1", "x^2+1"),
    ("f(g(2)) = 3", "3"),
    ("f'(x) = 2x", "2x"),
    (r"\vec{v} = (1, 2)", "(1,2)"),
    (r"\cos A = \frac{3}{5}", r"\frac{3}{5}"),
    (r"\sin\theta = \frac{3}{5}", r"\frac{3}{5}"),
    ("S_{10} = 55", "55"),
    (r"\frac{dy}{dx} = 2x", "2x"),
    ("x_1 = 5, x_2 = 7", "7, 5"),
    ("(a,b,c) = (1,2,3)", "(1,2,3)"),
    ("y = 2x + 3", "2x + 3"),
    ("2x + 3", "y = 2x + 3"),
    ("A = B = 5", "5"),
    ("CD = 4, AB = 9", "AB=9, CD=4"),
    ("9, 4", "AB=9, CD=4"),
    (r"x \in \{1, 2\}", "1, 2"),
    ("5 = x", "5"),
    ("x = 1101_4", "1101_4"),
    ("P(A) = 43_5", "43_5"),
    (r"\mathbb{E}[X] = \frac72", "3.5"),
    ("f(x+1) = 2x", "2x"),
    ("{y = 2x - 13}", "y = 2x - 13"),
    (r"\overline{CD} = \overline{AB}", r"\overline{AB}"),
]
UNICODE = [
    ("60°", r"60^\circ"),
    ("60°", "60"),
    ("60º", "60"),
    ("10 cm²", "10"),
    ("2√3", r"2\sqrt{3}"),
    ("√(x+1)", r"\sqrt{x+1}"),
    ("√12", r"2\sqrt{3}"),
    ("∛8", "2"),
    ("½", r"\frac12"),
    ("3½", r"\frac72"),
    ("(−∞, 3]", r"(-\infty, 3]"),
    ("(−∞, 1) ∪ (2, ∞)", r"(-\infty,1)\cup(2,\infty)"),
    ("−5", "-5"),
    ("–5", "-5"),
    ("3×10⁵", "300000"),
    ("2·x", "2x"),
    ("x²+1", "x^2+1"),
    ("x⁻¹", r"\frac1x"),
    ("a₁+a₂", "a_1+a_2"),
    ("π/2", r"\frac{\pi}{2}"),
    ("2π", r"2\pi"),
    ("１２", "12"),
    ("15 000", "15,000"),
    ("x ≤ 3", r"x \le 3"),
    ("±3", "3, -3"),
    ("1 ± √2", r"1+\sqrt{2}, 1-\sqrt{2}"),
    ("θ = 30°", "30"),
    ("12 cm", "12"),
    ("1011₂", "1011_2"),
    ("8 ÷ x", r"\frac{8}{x}"),
    ("50％", r"50\%"),
    ("𝑥+1", "x+1"),
    ("{1, 2}", "1, 2"),
]
UNITS = [
    ("10 cm^2", "10"),
    ("10cm", "10"),
    ("10 square units", "10"),
    (r"10 \text{ square units}", "10"),
    (r"10 \text{ units}^2", "10"),
    (r"10\ \mathrm{cm}^{2}", "10"),
    (r"5\,\mathrm{m}", "5"),
    ("5 m", "5"),
    ("5 m/s", "5"),
    ("60 miles per hour", "60"),
    ("12 apples", "12"),
    (r"12 \text{ red apples}", "12"),
    ("5 dollars", "5"),
    (r"\$5", "5"),
    ("$5.00", "5"),
    ("50 percent", "50"),
    (r"50 \text{ percent}", "50"),
    (r"50\%", "50"),
    ("50%", "0.5"),
    (r"120\degree", r"120^\circ"),
    ("120 degrees", r"120^\circ"),
    (r"120 \text{ degrees}", r"120^\circ"),
    (r"120^{\circ}", "120"),
    (r"20^\circ\text{C}", "20"),
    ("20°C", "20"),
    (r"\frac{3}{4} \text{ inches}", r"\frac34"),
    (r"12\pi \text{ cm}^3", r"12\pi"),
    (r"12\pi\ cm^3", r"12\pi"),
    (r"2\sqrt{3}\text{ cm}", r"2\sqrt3"),
    (r"10 \text{ cm}", r"10 \text{ centimeters}"),
    (r"5 \text{ million}", "5000000"),
    (r"4\text{ cm}, 5\text{ cm}", "4,5"),
    (r"45^\circ, 135^\circ", "45,135"),
    (r"10 \text{ square cm}", r"10 \text{ cm}^2"),
    (r"\boxed{105^\circ}", "105"),
    (r"\boxed{7\text{ hours}.}", "7"),
    (r"6\frac15 degrees", "6.2"),
    (r"\text{9 a.m.}", r"9\text{ a.m.}"),
    (r"5\text{th}", "5"),
    (r"\text{about } 8.24", "8.24"),
]
NUMBERS = [
    (r"0.\overline{36}", r"\frac4{11}"),
    (r"0.\overline{3}", r"\frac13"),
    (r"0.\bar{3}", r"\frac13"),
    (r"0.1\overline{6}", r"\frac16"),
    ("0.(36)", r"\frac4{11}"),
    ("0.333...", r"\frac13"),
    (r"0.363636\ldots", r"\frac4{11}"),
    ("0.1666…", r"\frac16"),
    (r"15\,000", "15,000"),
    ("15~000", "15,000"),
    ("15{,}000", "15,000"),
    ("15000", r"15,\!000"),
    ("15,000", "15000"),
    ("1,234,567.5", "1234567.5"),
    ("11111111100", r"11,\! 111,\! 111,\! 100"),
    ("11,111,111,100", r"11,\! 111,\! 111,\! 100"),
    ("81256", "81, 256"),
    ("81,256", "81, 256"),
    (r"81{,}256", "81, 256"),
    ("111111111", r"111, \! 111, \! 111"),
    ("111,111,111", r"111, \! 111, \! 111"),
    (r"1\frac{1}{2}", "1.5"),
    ("1 1/2", "1.5"),
    (r"-1\frac12", "-1.5"),
    ("-1.5", r"-1\frac12"),
    (".5", "0.5"),
    ("+5", "5"),
    ("5.0", "5"),
    ("005", "5"),
    (r"\tfrac12", "0.5"),
    (r"\frac12", "1/2"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{-1}{2}", r"\frac{1}{-2}"),
    (r"3.2 \times 10^{4}", "32000"),
    (r"2^{10}", "1024"),
    ("0.333333", r"\frac{1}{3}"),
    ("1.41421356", r"\sqrt{2}"),
    ("3.14159265", r"\pi"),
    ("1,2,3", "3,2,1"),
    ("100, 200", "200, 100"),
]
FORMULAS = [
    ("6+9c", "9c+6"),
    ("1+x", "x + 1"),
    ("3 + 2t + t^2", "t^2+2t+3"),
    ("12+30w", "30w+12"),
    ("y+x", "x+y"),
    ("(x-2)(x+3)", "x^2+x-6"),
    ("(x + 3) \\cdot (x - 2)", "(x-2)(x+3)"),
    (r"\frac{x+1}{2}", r"\frac{1}{2}x + \frac12"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}{2}"),
    (r"\sqrt{\frac12}", r"\frac{\sqrt2}{2}"),
    (r"\frac{2ab}{a^2+b^2}", r"\frac{2 b a}{b^2 + a^2}"),
    (r"\sqrt{12}x", r"2x\sqrt{3}"),
    (r"{x}^{2}", "x^2"),
    ("2i + 1", "1+2i"),
    (r"2\cos^2 x - 1", r"\cos 2x"),
    (r"2\sin(b)\cos(a)", r"2 \sin b \cos a"),
    (r"\tan{\left(x \right)}", r"\tan x"),
    (r"e^{2x}", r"(e^x)^2"),
    (r"2^{n-1}", r"\frac{2^n}{2}"),
    (r"\{3, 1, 2\}", r"\{1,2,3\}"),
    ("(0.5, 1)", r"\left(\frac12, 1\right)"),
    (r"[-1, \infty)", r"[-1, \infty)"),
    (r"\frac{1}{13}\begin{pmatrix} 13 \\ 26 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ("2y = 4x + 2", "y = 2x + 1"),
    ("2x + 2y = 2z", "x + y - z = 0"),
    (r"y = \frac{1}{2}x + 2", r"y = \frac{x}{2} + 2"),
    (r"\pm \sqrt{3}", r"\sqrt{3}, -\sqrt{3}"),
    (r"x = \pm 3", "-3, 3"),
    ("(2,1), (1,2)", "(1,2), (2,1)"),
    (r"\mathbb{R}", r"(-\infty, \infty)"),
]
BRACES = [
    (r"\frac{1}{\frac{2}{3}}", "1.5"),
    (r"x^{2}\frac{1}{2}", r"\frac{x^2}{2}"),
    (r"\frac{4}{\frac{1}{3}}", "12"),
    (r"\sin(x)", r"\sin x"),
    (r"\sin^{-1} x", r"\arcsin x"),
    (r"\ln(x+1) + \ln(k)", r"\ln (x+1) + \ln k"),
    (r"\{5\}", "5"),
    ("5", r"\{5\}"),
    (r"\{x \}, 5", "x, 5"),
    (r"\left(\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right)", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    (r"\left[\begin{matrix} 1 \\ 2 \end{matrix}\right]", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\lfloor x \rfloor + 1", r"1 + \lfloor x \rfloor"),
    (r"\lfloor x \rfloor", r"{\lfloor x \rfloor}"),
    ("|x|", r"\left| x \right|"),
]
SIDES = [
    ("5 = x", "5"),
    ("5 = x", "x = 5"),
    ("x = 3", "3 = x"),
    ("x + 1 = f(x)", "x+1"),
    ("14 = AB", "14"),
    (r"\frac{10}{2} = 5", "5"),
    (r"1 \text{ hour} = 60 \text{ minutes}", "60"),
    ("11_{10}", "11"),
    (r"x = 1011_2", "1011_2"),
]
UNITS_IN_TEXT = [
    ("5", r"5\text{ m}"),
    (r"5\text{ m}^2", r"5\text{ square meters}"),
    ("5 m", r"5\text{ m}"),
    (r"5\text{ g}", r"5\text{ grams}"),
    (r"\$5", "5"),
    ("5", r"\$5"),
    (r"\$1,234.50", "1234.5"),
    ("$1,234.00$", "1234"),
    (r"\$5 \text{ million}", "5000000"),
    (r"\$5, \$6", "5, 6"),
    (r"80\text{ cents}", "80"),
]
CHOICES = [
    ("A,B", "B, A"),
    (r"\text{C and E}", r"\text{E, C}"),
    (r"\text{A, C, and D}", r"\text{D, A, C}"),
]
RIGHT = [*BRACES, *SIDES, *UNITS_IN_TEXT, *CHOICES, *SPACING, *NAMES, *UNICODE, *UNITS, *NUMBERS, *FORMULAS]

WRONG = [
    # exact numbers have no tolerance
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"10^{-20}", r"10^{-21}"),
    ("2^{100}+1", "2^{100}"),
    (r"\frac{1}{2004!}", r"\frac{1}{2005!}"),
    ("0.0000001", r"\frac{1}{2^{98}}"),
    ("0.0000001", "0.0000002"),
    ("0.123457", "0.1234567"),
    ("0.3333", r"\frac13"),
    ("0.333334", r"\frac13"),
    ("3.14", r"\pi"),
    ("1000000.1", "1000000"),
    (r"\sqrt{2} + 10^{-15}", r"\sqrt{2}"),
    ("0.99999999", "1"),
    # letters are no units
    ("2ab", "2bc"),
    ("2", "2ab"),
    ("2ab", "2"),
    ("4t", "4"),
    ("2 ab", "2"),
    ("3m", "3"),
    ("3", "3m"),
    ("2x", "2"),
    ("6+9t", "15"),
    ("x + 1", "y + 1"),
    ("5s^2", "5"),
    ("2c", "2"),
    ("12 abcd", "12"),
    # bases
    ("(10_2)", "10"),
    ("10_2", "10"),
    ("10_{2}", "2"),
    ("101_2", "101_3"),
    ("{10}_2", "10"),
    # what cannot be read is equal to nothing
    (r"x^2 + \foo \frac{1}{2}", r"\frac{1}{2}"),
    (r"\{x \mid x \ne \frac{1}{2}\}", r"\frac{1}{2}"),
    (r"(-\infty, \frac{1}{2}", r"\frac{1}{2}"),
    (r"\frac{1}{2})", r"\frac{1}{2}"),
    (r"\frac{1}{2} \frac{", r"\frac{1}{2}"),
    (r"\ldots, \frac{1}{2}", r"\frac{1}{2}"),
    (r"\frac{1}{2}, \ldots", r"\frac{1}{2}"),
    (r"x \to \frac{1}{2}", r"\frac{1}{2}"),
    (r"\sum \frac{1}{2}", r"\frac{1}{2}"),
    (r"\text{not } \frac12", r"\frac12"),
    (r"\frac12 \text{ or less}", r"\frac12"),
    (r"? \frac12", r"\frac12"),
    (r"\lim_{x \to 0} \frac12", r"\frac12"),
    (r"\foo{\frac12}", r"\frac12"),
    ("5 & 6", "5"),
    ("5 5", "5"),
    ("5 or", "5"),
    (r"5 \text{ out of } 10", "5"),
    (r"2 \text{ hours } 30 \text{ minutes}", "2"),
    ("1/2x", r"\frac{x}{2}"),
    ("1/2x", r"\frac{1}{2x}"),
    # equations whose left side is an expression
    ("2x = 10", "10"),
    ("2x = 10", "x = 5"),
    ("2x = 10", "5"),
    ("x^2 = 4", "4"),
    ("x^{-1} = 4", "4"),
    ("n(n+1) = 6", "6"),
    ("x(y+1) = 6", "6"),
    ("3x + 2 = 5", "5"),
    ("x + y = 5", "5"),
    ("x = 5", "y = 5"),
    ("y = 2x + 3", "y = 3x + 2"),
    ("y = 2x + 3", "y = 2x"),
    (r"x \ne 5", "5"),
    (r"x < 5", "5"),
    (r"x \ge 5", "x > 5"),
    (r"|x| = 5", "5"),
    ("f(x) + g(x) = 5", "5"),
    ("f(x)g(x) = 5", "5"),
    ("P(A) + P(B) = 5", "5"),
    (r"\|a\| + \|b\| = 5", "5"),
    (r"\text{not } x = 5", "5"),
    ("0.65 = 56\\%", "0.56 = 56\\%"),
    ("2 = 5", "5"),
    (r"\frac23 \approx 3.67", r"\$\dfrac23 \approx \$0.67"),
    (r"5 \approx \foo", "5"),
    ("AB = 4, CD = 9", "AB=9, CD=4"),
    ("4, 9", "AB=9, CD=4"),
    # order, brackets, numbers of things
    ("(2, 1)", "(1, 2)"),
    ("[1, 2]", "(1, 2)"),
    ("(1, 2]", "[1, 2)"),
    ("[1, 2]", "1, 2"),
    ("(2, 1)", "1, 2"),
    ("1, 2, 2", "1, 2"),
    ("1", "1, 2"),
    ("1, 2", "1"),
    (r"\{1\}, 2", "1, 3"),
    (r"(1,2) \cup (3,4)", "(1,2)"),
    (r"(1,2) \cap (3,4)", r"(1,2) \cup (3,4)"),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\pm 3", "3"),
    (r"\pm 3", "-3"),
    ("2:1", "1:2"),
    # numbers that look alike
    ("3 1/2", "31/2"),
    ("31/2", "3 1/2"),
    (r"3\frac12", r"\frac{31}{2}"),
    ("1 000", "1"),
    ("1,5", "1.5"),
    ("15,00", "15"),
    ("1234,567", "1234567"),
    ("1,234,56", "123456"),
    ("0.333...", "0.333"),
    ("5...", "5"),
    ("1.234", "1,234"),
    (r"\sqrt{2}3", r"\sqrt{23}"),
    ("x^{12}", "x^12 3"),
    ("-5", "5"),
    (r"\frac{2}{3}", r"\frac{3}{2}"),
    ("x^2", "2x"),
    ("x^{23}", "x^2 3"),
    (r"5^\circ", r"\frac{\pi}{36}"),
    (r"\sin 30", r"\sin 30^\circ"),
    ("500%", r"0.5\%"),
    (r"5 \text{ million}", "5"),
    (r"5 \text{ dozen}", "5"),
    (r"5 \text{ days}", r"5 \text{ hours}"),
    (r"10 \text{ cm}", r"10 \text{ cm}^2"),
    (r"10 \text{ cubic cm}", r"10 \text{ square cm}"),
    (r"18\%", r"18^\circ"),
    (r"40 \text{ feet}", "40_9"),
    (r"9 \text{ p.m.}", r"9\text{ a.m.}"),
    ("-5:00", "5:00"),
    ("5 cm", r"5 \text{ m}"),
    ("x", "y"),
    ("AX", "AY"),
    ("ax", "Ax"),
    ("i", "1"),
    ("0", r"\infty"),
    (r"-\infty", r"\infty"),
    ("|x|", "x"),
    (r"\sqrt{x^2}", "x"),
    # work left to be done
    ("2 + 3", "5"),
    ("x = 2 + 3", "5"),
    (r"2 + 3 \text{ cm}", "5"),
    ("2×3", "6"),
    ("3 - - 2", "5"),
    ("(2+3, 1)", "(5, 1)"),
    (r"\binom{5}{2}", "10"),
    (r"5!", "120"),
    (r"\lfloor 5.5 \rfloor", "5"),
    (r"\lceil \sqrt{30} \rceil", "6"),
    ("|7 - 24i|", "25"),
    ("|-5|", "5"),
    (r"\ln e", "1"),
    ("5--7", "12"),
    (r"5 \cdot -7", "-35"),
    # numbers set equal that are not
    ("10 = 2", "2"),
    ("0 = 5", "5"),
    ("x = 2 = 5", "5"),
    # words that change a number
    (r"2\text{ thirds}", "2"),
    (r"3\text{ eighths}", "3"),
    (r"5\text{ hundredths}", "5"),
    (r"5\text{ thousandths}", "5"),
    (r"5\text{ twentieths}", "5"),
    (r"5\text{ below zero}", "5"),
    (r"101\text{ in binary}", "101"),
    (r"5\text{ factorial}", "5"),
    (r"2\text{ gross}", "2"),
    (r"5\text{ is wrong}", "5"),
    (r"\$80", r"80\text{ cents}"),
    (r"80\text{ cents}", r"\$80"),
    # what goes on
    ("5...", "5"),
    ("2, 4, 6, ...", "2, 4, 6"),
    ("1234,567", "1234567"),
    ("20_{10}", "20_5"),
    ("11_{10}", "1011_2"),
    ("A, B", r"\text{A, C}"),
    ("A, A", r"\text{A, B}"),
    (r"\{5\}", "6"),
    (r"\begin{array}{cc} 1 & 2 \end{array}", "1"),
    ("2x = y", "x"),
]


def finding(answer: str, expected: str) -> str:
    return "equal" if same_text(answer, expected) else compare(answer, expected, lambda phase: None)


@pytest.mark.parametrize(("answer", "expected"), RIGHT)
def test_the_forms_in_which_models_write_an_answer_are_right(answer: str, expected: str) -> None:
    assert finding(answer, expected) == "equal"


@pytest.mark.parametrize(("answer", "expected"), WRONG)
def test_what_only_looks_like_an_answer_is_not_right(answer: str, expected: str) -> None:
    assert finding(answer, expected) != "equal"


# --- the real data ----------------------------------------------------------------------------------------------------

STUDY = Path(__file__).parents[1] / "experiments" / "math"


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The study's own module; it imports its neighbour by name."""
    monkeypatch.syspath_prepend(str(STUDY))
    import forms

    yield forms
    for name in ("forms", "verifier"):
        sys.modules.pop(name, None)


def test_a_study_makes_forms_and_misses_of_a_reference(forms: Any) -> None:
    made = {kind: new for kind, _, new in forms.rewritten(Counter([r"\frac{1}{2}"]), forms.FORMS)}
    assert made["exact decimal"] == "0.5"
    assert made["equals sign before"] == r"= \frac{1}{2}"
    missed = {kind: new for kind, _, new in forms.rewritten(Counter([r"\frac{1}{2}"]), forms.MISSES)}
    assert missed["fraction upside down"] == r"\frac{2}{1}"
    assert missed["sign"] == r"-\frac{1}{2}"


@pytest.mark.slow
def test_forms_of_real_references_are_right_and_near_misses_are_not(forms: Any) -> None:
    """200 references by chance; make study-math takes all of them."""
    root = Path(os.environ.get("RRL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "math"
    if not (root / "train.jsonl.gz").is_file():
        pytest.skip(f"no {root}/train.jsonl.gz: set RRL_DATA to a folder with math/{{train,test}}.jsonl.gz")
    answers = [row["answer"] for row in forms.read(root) if row["answer"]]
    found = forms.study(Counter(random.Random(3).sample(answers, 200)))
    assert found["forms"]["fewest_of_one_reference"] >= 6
    assert found["forms"]["right"] >= 0.995 * found["forms"]["pairs"]
    assert found["misses"]["fewest_of_one_reference"] >= 3
    assert found["misses"]["unwanted"] == {}
