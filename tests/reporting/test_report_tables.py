"""Tables against numbers worked out by hand and the paper's printed ones, in every format."""

import csv
import html
import io
import re

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from fastmagn.reporting.experiments import group_experiments
from fastmagn.reporting.formats import (
    escape_latex,
    escape_markdown,
    narrow_tables,
    to_console,
    to_csv,
    to_latex,
    to_markdown,
)
from fastmagn.reporting.paper import paper_value
from fastmagn.reporting.runs import read_runs
from fastmagn.reporting.tables import Cell, Column, Row, Table, make_tables
from tests.helpers.report_folders import C19, rewrite, with_few

PAPER_WEIGHTS = {"loss.consistency_weight": 3.0, "loss.jsd_weight": 12.0, "augment.sigma_max": 0.2}
ATTACK = {"attack.epsilon": 8 / 255, "attack.steps": 7, "attack.step_scale": 2.5}
PAPER_SETTINGS = PAPER_WEIGHTS | ATTACK | {"augment.rse_sigma": 0.1}


def tables_of(paths) -> dict[str, Table]:
    runs, _ = read_runs(paths)
    experiments, _ = group_experiments(runs)
    return {table.name: table for table in make_tables(experiments)}


def cell(table: Table, row: str | tuple[str, ...], column: str) -> Cell | None:
    labels = (row,) if isinstance(row, str) else row
    (found,) = [line for line in table.rows if line.labels == labels]
    return found.cells[[item.label for item in table.columns].index(column)]


# Typed from the printed tables.
@pytest.mark.parametrize(
    ("place", "measure", "printed"),
    [
        (("cifar10", "resnet18", "magn_augmix"), "fog", 90.92),
        (("cifar10", "resnet18", "standard"), "glass_blur", 53.24),
        (("cifar10", "resnet18", "rse"), "clean", 91.00),
        (("cifar10", "resnet18", "trades"), "mca", 75.46),
        (("cifar100", "resnet18", "magn"), "shot_noise", 66.32),
        (("cifar100", "resnet18", "at"), "jpeg_compression", 57.02),
        (("cifar100", "resnet18", "augmix"), "mca", 63.08),
        (("cifar10", "densenet121", "augmix"), "mca", 87.74),
        (("cifar100", "inception_v3", "magn_augmix"), "clean", 78.16),
        (("cifar10", "resnet18", "standard"), "rms_corrupt", 17.7),
        (("cifar100", "densenet121", "magn_augmix"), "rms_corrupt", 0.6),
        (("cifar10", "inception_v3", "augmix"), "rms_clean", 1.5),
        (("cifar10", "resnet18", "standard"), "gaussian_noise", None),
        (("cifar10", "resnet18", "rse"), "rms_clean", None),
        (("cifar10", "resnet_small", "standard"), "clean", None),
        (("digits", "resnet18", "standard"), "clean", None),
        (("cifar10", "resnet18", "cutmix"), "clean", None),
    ],
)
def test_the_papers_cells(place, measure, printed):
    assert paper_value(*place, PAPER_SETTINGS, measure) == (None if printed is None else pytest.approx(printed / 100))


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("at", "attack.epsilon", 4 / 255),
        ("trades", "attack.steps", 10),
        ("rse", "augment.rse_sigma", 0.2),
        ("augmix", "loss.jsd_weight", 10.0),
        ("magn", "augment.sigma_max", 0.4),
        ("magn_augmix", "loss.consistency_weight", 4.0),
    ],
)
def test_other_settings_than_the_papers_have_no_number_of_its(method, field, value):
    assert paper_value("cifar10", "resnet18", method, PAPER_SETTINGS, "clean") is not None
    assert paper_value("cifar10", "resnet18", method, PAPER_SETTINGS | {field: value}, "clean") is None
    others = {"standard": {"attack.steps": 1}, "augmix": {"augment.sigma_max": 1.0}, "at": {"loss.jsd_weight": 1.0}}
    for other, change in others.items():
        assert paper_value("cifar10", "resnet18", other, PAPER_SETTINGS | change, "clean") is not None


@pytest.mark.parametrize(
    ("weights", "measure", "printed"),
    [
        ((3, 12, 0.4), "clean", 94.79),
        ((5, 12, 0.2), "rms_corrupt", 0.9),
        ((3, 10, 0.2), "mca", 90.61),
        ((3, 10, 0.2), "fog", None),
        ((4, 12, 0.2), "mca", None),
    ],
)
def test_the_papers_sensitivity(weights, measure, printed):
    config = dict(zip(PAPER_WEIGHTS, weights, strict=True))
    value = paper_value("cifar10", "resnet18", "magn_augmix", config, measure)
    assert value == (None if printed is None else pytest.approx(printed / 100))
    assert paper_value("cifar100", "resnet18", "magn_augmix", config, measure) is None


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize("method", ["standard", "at", "trades", "rse", "augmix", "magn", "magn_augmix"])
def test_the_papers_mca_is_the_mean_of_its_18_corruptions(data, method):
    """It cuts after two decimals where it does not round."""
    values = [paper_value(data, "resnet18", method, PAPER_SETTINGS, name) for name in C19[1:]]
    mca = paper_value(data, "resnet18", method, PAPER_SETTINGS, "mca")
    assert 100 * sum(values) / 18 == pytest.approx(100 * mca, abs=0.01)


def test_corruptions_and_mca_by_hand(fake_run):
    means = {name: 0.5 + 0.01 * i for i, name in enumerate(C19)}  # 0.50 .. 0.68
    tables = tables_of(
        [fake_run("a", means, data="digits"), fake_run("b", 0.6, data="digits", method="magn", clean=0.9)]
    )
    table = tables["digits_resnet18_corruptions"]
    assert cell(table, "Shot noise", "Standard").mean == pytest.approx(0.51)
    assert cell(table, "Saturate", "Standard").mean == pytest.approx(0.68)
    assert cell(table, "mCA c15", "Standard").mean == pytest.approx(0.57)  # mean of 0.50 .. 0.64
    assert cell(table, "mCA c18", "Standard").mean == pytest.approx(0.595)  # 0.51 .. 0.68
    assert cell(table, "mCA c19", "Standard").mean == pytest.approx(0.59)  # 0.50 .. 0.68
    best = {row.labels[0]: [item.is_best for item in row.cells] for row in table.rows}
    assert best["Clean"] == [True, True]  # 0.9 both
    assert best["Shot noise"] == [False, True]
    assert best["Saturate"] == [True, False]
    assert best["Frost"] == [False, True]  # 0.58
    assert best["JPEG compression"] == [True, False]  # 0.64
    assert len(table.rows) == 1 + 19 + 3
    assert not any(name.endswith("_paper") or "sensitivity" in name for name in tables)
    assert all(item is None or item.paper is None for row in table.rows for item in row.cells)


def test_the_difference_to_the_paper(fake_run):
    paths = [fake_run(f"s{seed}", value, seed=seed, clean=0.95) for seed, value in enumerate((0.77, 0.79))]
    tables = tables_of([*paths, fake_run("other", method="cutmix")])
    table = tables["cifar10_resnet18_corruptions_paper"]
    assert [column.label for column in table.columns] == ["Standard"]
    mca = cell(table, "mCA c18", "Standard")
    assert (mca.mean, mca.sd, mca.num_runs) == (pytest.approx(0.78), pytest.approx(0.02 / 2**0.5), 2)
    assert mca.paper == pytest.approx(0.7747)
    assert mca.difference == pytest.approx(0.0053)
    assert cell(table, "Gaussian noise", "Standard").paper is None
    text = to_markdown(table)
    assert "| Corruption | Standard | paper | difference |" in text
    assert "| mCA c18 | 78.00 ± 1.41 | 77.47 | +0.53 |" in text
    assert "| Fog | 78.00 ± 1.41 | 90.68 | −12.68 |" in text
    assert "| Gaussian noise | 78.00 ± 1.41 | – | – |" in text
    assert "Mean ± sample standard deviation over runs that differ only in their seed: Standard 2." in table.caption


def test_what_chance_gives_is_said_for_each_number_of_images(fake_run):
    paths = [fake_run("a"), fake_run("b", method="magn")]
    few = {"count": [0, 4, 4, 2], "accuracy": [None, 0.3, 0.6, 0.9], "confidence": [None, 0.4, 0.6, 0.9]}
    rewrite(paths[1], lambda results: results["reliability"].update(clean=few))
    # √((0.4 · 0.6 + 0.6 · 0.4 + 0.9 · 0.1) / 10), beside what the other run has
    said = " By chance alone, a perfectly calibrated model has a clean error of about 23.9 to 24.0. "
    assert said in tables_of(paths)["cifar10_calibration"].caption


def test_a_title_names_the_papers_table_only_where_it_is_its_counterpart(fake_run):
    paths = [
        fake_run(f"{data}{network}", data=data, network=network)
        for data in ("cifar10", "cifar100", "digits")
        for network in ("resnet18", "densenet121")
    ]
    for data, number in (("cifar10", 1), ("cifar100", 5), ("digits", None)):
        tables = tables_of([path for path in paths if path.name in (f"{data}resnet18", f"{data}densenet121")])
        told = f" (the paper's Table {number})" if number else ""
        assert tables[f"{data}_resnet18_corruptions"].title.endswith(f"by corruption, ResNet-18{told}")
        assert tables[f"{data}_densenet121_corruptions"].title.endswith("by corruption, DenseNet-121")


def test_networks_and_calibration(fake_run):
    tables = tables_of(
        [
            fake_run("a", 0.78, clean=0.94, rms=(0.05, 0.18)),
            fake_run("b", 0.90, clean=0.93, rms=(0.021, 0.012), method="magn_augmix"),
            fake_run("c", 0.74, clean=0.945, rms=(0.06, 0.2), network="densenet121"),
            fake_run("d", 0.95, clean=0.99, network="resnet_small"),
        ]
    )
    table = tables["cifar10_networks"]
    assert [row.labels for row in table.rows] == [
        (network, test_set)
        for network in ("ResNet-18", "DenseNet-121", "ResNet-small")
        for test_set in ("CIFAR-10", "CIFAR-10-C c18")
    ]
    assert cell(table, ("DenseNet-121", "CIFAR-10-C c18"), "Standard").difference == pytest.approx(0.74 - 0.7513)
    assert cell(table, ("DenseNet-121", "CIFAR-10"), "MAGN+AugMix") is None
    assert cell(table, ("ResNet-small", "CIFAR-10"), "Standard").paper is None
    assert cell(table, ("ResNet-18", "CIFAR-10"), "Standard").is_best
    assert cell(table, ("ResNet-18", "CIFAR-10-C c18"), "MAGN+AugMix").is_best
    assert not cell(table, ("DenseNet-121", "CIFAR-10"), "Standard").is_best  # alone
    calibration = tables["cifar10_calibration"]
    corrupt = cell(calibration, ("ResNet-18", "CIFAR-10-C c18"), "MAGN+AugMix")
    assert corrupt.is_best
    assert corrupt.difference == pytest.approx(0.012 - 0.011)
    assert "| ResNet-18 | CIFAR-10 | 5.00 | 4.7 | +0.3 | 2.10 | 2.2 | −0.1 |" in to_markdown(calibration)
    assert "4 bins of equal width, corruptions pooled" in calibration.caption
    # √((2 · 0.375 · 0.625 + 0.875 · 0.125) / 10)
    chance = " By chance alone, a perfectly calibrated model has a clean error of about 24.0. "
    assert chance in calibration.caption
    assert chance in tables["cifar10_summary"].caption


def test_sensitivity(fake_run):
    made = [
        fake_run(f"r{i}", 0.9, method="magn_augmix", clean=0.94 + i / 1000, rms=(0.02, 0.01), fields=fields)
        for i, fields in enumerate(({}, {"augment.sigma_max": 0.4}, {"loss.consistency_weight": 5.0}))
    ]
    others = [fake_run("x", method="magn_augmix", fields={"augment.sigma_max": 0.3, "train.epochs": 2})]
    tables = tables_of([*made, *others])
    table = tables["cifar10_resnet18_magn_augmix_sensitivity"]
    assert [row.labels for row in table.rows] == [("3", "12", "0.2"), ("3", "12", "0.4"), ("5", "12", "0.2")]
    assert cell(table, ("3", "12", "0.4"), "Clean").difference == pytest.approx(0.941 - 0.9479)
    assert cell(table, ("5", "12", "0.2"), "RMS c18").difference == pytest.approx(0.01 - 0.009)
    assert table.title.endswith("(the paper's Table 4)")
    assert "RMS is the calibration error, 4 bins of equal width, corruptions pooled." in table.caption
    assert len([name for name in tables if "sensitivity" in name]) == 1
    networks = [column.label for column in tables["cifar10_networks"].columns]
    assert networks == ["MAGN+AugMix", "MAGN+AugMix (epochs 2, sigma_max 0.3)"]


def test_a_run_without_frost_has_no_number_that_needs_it(fake_run):
    part = {name: 0.7 for name in C19 if name != "frost"}
    tables = tables_of([fake_run("a", 0.8), fake_run("b", part, method="magn")])
    table = tables["cifar10_resnet18_corruptions"]
    assert cell(table, "Frost", "MAGN") is None
    assert cell(table, "mCA c18", "MAGN") is None
    assert not cell(table, "Frost", "Standard").is_best
    networks = tables["cifar10_networks"]
    assert cell(networks, ("ResNet-18", "CIFAR-10-C c18"), "MAGN") is None
    shared = ("ResNet-18", "CIFAR-10-C c19 without frost")
    assert (cell(networks, shared, "Standard").mean, cell(networks, shared, "MAGN").mean) == (
        pytest.approx(0.8),
        pytest.approx(0.7),
    )
    assert cell(networks, shared, "Standard").paper is None
    calibration = tables["cifar10_calibration"]
    assert cell(calibration, ("ResNet-18", "CIFAR-10-C c18"), "MAGN") is None
    assert cell(calibration, ("ResNet-18", "CIFAR-10-C c19 without frost"), "MAGN").mean == 0.1


def test_a_mean_over_fewer_severities_stands_beside_its_like_only(fake_run):
    whole = fake_run("a", 0.8)
    easy = [with_few(fake_run(f"b{i}", 0.8, method="magn", seed=i), {"fog": [1], "snow": [1, 2, 4]}) for i in (0, 1)]
    tables = tables_of([whole, *easy])
    for name in ("cifar10_resnet18_corruptions", "cifar10_resnet18_corruptions_paper"):
        assert cell(tables[name], "Fog", "Standard").mean == pytest.approx(0.8)
        assert cell(tables[name], "Fog", "MAGN") is None
        assert cell(tables[name], "Frost", "MAGN").mean == pytest.approx(0.8)
        assert tables[name].caption.startswith("Per cent, mean over severities 1 to 5. ")
    tables = tables_of(easy)
    table = tables["cifar10_resnet18_corruptions_paper"]
    said = "severities 1, 2 and 4 of snow, severity 1 of fog, severities 1 to 5 of the others"
    assert table.caption.startswith(f"Per cent, mean over {said}. ")
    fog, snow = cell(table, "Fog", "MAGN"), cell(table, "Snow", "MAGN")
    assert (fog.mean, fog.num_runs) == (pytest.approx(0.84), 2)  # severity 1 is 0.04 above the mean
    assert snow.mean == pytest.approx(0.8 + (0.04 + 0.02 - 0.02) / 3)
    assert fog.paper is None
    assert snow.paper is None
    assert cell(table, "Frost", "MAGN").paper is not None
    only = with_few(fake_run("c", {"fog": 0.6}, data="digits"), {"fog": [2, 3, 4]})
    assert "mean over severities 2 to 4." in tables_of([only])["digits_resnet18_corruptions"].caption
    only = with_few(fake_run("d", {"fog": 0.6}, data="digits"), {"fog": [2]})
    assert "mean over severity 2." in tables_of([only])["digits_resnet18_corruptions"].caption


def test_runs_that_share_no_corruption_have_no_mca(fake_run):
    fields = {"augment.sigma_max": 0.4}
    paths = [fake_run("a", {"fog": 0.5}, method="magn"), fake_run("b", {"snow": 0.5}, method="magn", fields=fields)]
    tables = tables_of(paths)
    assert [row.labels[1] for row in tables["cifar10_networks"].rows] == ["CIFAR-10", "CIFAR-10-C fog"]
    assert [row.cells[1] for row in tables["cifar10_resnet18_magn_sensitivity"].rows] == [None, None]
    assert cell(tables["cifar10_resnet18_corruptions"], "Fog", "MAGN (sigma_max 0.4)") is None


NASTY = Table(
    name="nasty",
    title=r"A_b & 50 % of $x^2$ ~ {y} #1 \z",
    caption="mean ± sd, a|b, <c>",
    row_headers=("row_header", "b|c"),
    columns=(Column("m_1*"), Column("[other]"), Column("single")),
    rows=(
        Row(("a_b", "c & d"), (Cell(0.5, 0.0123, 3, 0.25, True), Cell(0.123, None, 1, None), None)),
        Row(("_x_", "`e`"), (Cell(0.2, None, 1, 0.2), None, Cell(1.0, None, 1, None))),
    ),
    shows_paper=True,
)


def test_csv_parsed_back_equals(fake_run):
    rows = list(csv.reader(io.StringIO(to_csv(NASTY))))
    assert rows == [
        [
            *("row_header", "b|c", "m_1*", "m_1* sd", "m_1* runs", "m_1* paper", "m_1* difference"),
            *("[other]", "[other] sd", "[other] runs", "single", "single sd", "single runs"),
        ],
        ["a_b", "c & d", "50.0000", "1.2300", "3", "25.0000", "25.0000", "12.3000", "", "1", "", "", ""],
        ["_x_", "`e`", "20.0000", "", "1", "20.0000", "0.0000", "", "", "", "100.0000", "", "1"],
    ]
    table = tables_of([fake_run("a", 0.123456), fake_run("b", 0.6, method="magn")])["cifar10_resnet18_corruptions"]
    parsed = list(csv.DictReader(io.StringIO(to_csv(table))))
    for row, line in zip(table.rows, parsed, strict=True):
        assert (line["Corruption"],) == row.labels
        for column, item in zip(table.columns, row.cells, strict=True):
            assert float(line[column.label]) == pytest.approx(100 * item.mean, abs=5e-5)


def test_markdown():
    assert to_markdown(NASTY) == (
        "| row_header | b\\|c | m_1\\* | paper | difference | \\[other\\] | single |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| a_b | c & d | **50.00** ± 1.23 | 25.00 | +25.00 | 12.30 | – |\n"
        "| \\_x\\_ | \\`e\\` | 20.00 | 20.00 | 0.00 | – | 100.00 |\n"
    )
    assert escape_markdown("a\nb") == "a b"


@pytest.mark.parametrize("text", ["__x__", "runs/__a__/b", "__init__.py", "~~x~~", "a&lt;b", "a&#42;b", "a_b & c_"])
def test_markdown_shows_escaped_text_literally(text):
    rendered = MarkdownIt("commonmark").enable("strikethrough").renderInline(f"of {escape_markdown(text)} and")
    assert html.unescape(rendered) == f"of {text} and"


def test_latex_is_escaped():
    assert (
        escape_latex(NASTY.title)
        == r"A\_b \& 50 \% of \$x\textasciicircum{}2\$ \textasciitilde{} \{y\} \#1 \textbackslash{}z"
    )
    text = to_latex(NASTY)
    assert r"a\_b & c \& d & \textbf{50.00} $\pm$ 1.23 & 25.00 & +25.00 &" in text
    assert r"\multicolumn{3}{c}{m\_1*}" in text
    assert r"\cmidrule(lr){3-5}" in text


def test_no_latex_row_begins_as_an_argument():
    r"""After \\ and after a rule, LaTeX reads [ as the start of an optional argument, and * as a variant."""
    labels = ("[mine]", "*", "a [b]", "**c")
    rows = tuple(Row((label,), (Cell(0.5, None, 1),)) for label in labels)
    table = Table(name="t", title="T", caption="", row_headers=("[head]",), columns=(Column("[c]"),), rows=rows)
    lines = to_latex(table).splitlines()
    first = lines.index(r"\toprule") + 1
    assert lines[first : first + 6] == [
        r"{[}head] & [c] \\",
        r"\midrule",
        r"{[}mine] & 50.00 \\",
        r"{*} & 50.00 \\",
        r"a [b] & 50.00 \\",
        r"{*}*c & 50.00 \\",
    ]


def test_every_latex_table_is_balanced(fake_run):
    paths = [
        fake_run(f"{method}-{network}", method=method, network=network)
        for method in ("standard", "augmix", "magn_augmix", "my_method")
        for network in ("resnet18", "densenet121")
    ]
    tables = tables_of([*paths, fake_run("x", method="magn_augmix", fields={"augment.sigma_max": 0.4})])
    assert len(tables) == 8
    for table in (*tables.values(), NASTY):
        check_latex(to_latex(table))


def check_latex(text: str) -> None:
    """What LaTeX would stop at: environments, braces, maths, specials, and the cells of each row."""
    text = re.sub(r"(?<!\\)%.*\n", "", text)  # a comment takes its line's end with it
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", bare):
        assert kind == "begin" or stack.pop() == name
        if kind == "begin":
            stack.append(name)
    assert not stack
    depth = 0
    for char in bare:
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#%^~]", bare)
    assert "_" not in re.sub(r"\\label\{\w+:\w+\}", "", bare)
    body, columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}(.*)\\end\{tabular\}", text, re.DOTALL).group(2, 1)
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) >= 2
    for line in lines:
        cells = re.split(r"(?<!\\)&", line)
        spans = [int(found[1]) if (found := re.search(r"\\multicolumn\{(\d+)\}", item)) else 1 for item in cells]
        assert sum(spans) == len(columns)
    for first, last in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", body):
        assert 1 <= int(first) <= int(last) <= len(columns)
    assert [rule for rule in ("toprule", "midrule", "bottomrule") if text.count(f"\\{rule}") != 1] == []


def test_the_console_takes_names_with_brackets():
    shown = to_console(NASTY)
    assert [str(column.header) for column in shown.columns][2:6] == ["m_1*", "paper", "difference", "[other]"]
    assert shown.row_count == 2


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_wide_table_is_cut_to_fit_the_terminal(width):
    methods = [f"method_{'x' * (i % 7)}{i}" for i in range(13)]
    rows = tuple(
        Row((label,), tuple(Cell(mean=0.1 * (i % 9) + 0.01 * row, sd=None, num_runs=1) for i in range(13)))
        for row, label in enumerate(("Clean", "Elastic transform"))
    )
    columns = tuple(Column(method) for method in methods)
    whole = Table(name="t", title="T", caption="C", row_headers=("Corruption",), columns=columns, rows=rows)
    parts = narrow_tables(whole, width)
    assert [column.label for part in parts for column in part.columns] == methods
    for row in range(2):
        assert [cell for part in parts for cell in part.rows[row].cells] == list(rows[row].cells)
    for part in parts:
        console = Console(width=1000, record=True, file=io.StringIO())
        console.print(to_console(part))
        lines = console.export_text().splitlines()
        assert max(len(line.rstrip()) for line in lines if set(line) & set("┏│└")) <= width
    assert len(parts) < 13
