"""Figures: what the axes hold equals the runs' numbers."""

import dataclasses
import io
import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Patch
from PIL import Image

from fastmagn.methods.table import METHODS
from fastmagn.models import MODELS
from fastmagn.reporting import drawing, fonts
from fastmagn.reporting.document import make_report
from fastmagn.reporting.drawing import add_legend, new_figure
from fastmagn.reporting.experiments import group_experiments
from fastmagn.reporting.figure_data import make_figures
from fastmagn.reporting.figures import DRAWINGS, draw, to_files
from fastmagn.reporting.looks import METHOD_STYLES, style
from fastmagn.reporting.names import NETWORK_TITLES
from fastmagn.reporting.runs import read_runs
from tests.helpers.report_folders import C19, SLOPE, rewrite, with_few, with_protocols


def figures_of(paths):
    runs, _ = read_runs(paths)
    figures, notes = make_figures(group_experiments(runs)[0])
    return {figure.name: figure for figure in figures}, notes


@pytest.fixture
def figures(fake_run):
    means = {name: 0.5 + 0.01 * i for i, name in enumerate(C19)}
    made, notes = figures_of(
        [
            fake_run("a", 0.70, clean=0.90, rms=(0.05, 0.20)),
            fake_run("b", 0.74, clean=0.94, rms=(0.07, 0.22), seed=1),
            fake_run("c", means, clean=0.92, rms=(0.02, 0.01), method="magn"),
            fake_run("d", 0.6, clean=0.95, rms=(0.03, 0.02), method="magn", fields={"augment.sigma_max": 0.4}),
            fake_run("e", 0.8, clean=0.96, rms=(0.06, 0.21), network="densenet121"),
        ]
    )
    assert not notes
    return made


@pytest.fixture
def protocol_figures(fake_run):
    made, _ = figures_of(
        [
            with_protocols(fake_run("p"), flip=0.1, error=0.4),
            with_protocols(fake_run("q", seed=1), flip=0.3, error=0.2),
            with_protocols(fake_run("r", method="magn"), flip=0.2, error=0.1, norm=8.0),
            fake_run("s", method="augmix"),
        ]
    )
    return made


def test_every_kind_of_figure_is_made(figures, protocol_figures):
    assert {figure.kind for figure in [*figures.values(), *protocol_figures.values()]} == set(DRAWINGS)
    assert {figure.kind for figure in figures.values()} == set(DRAWINGS) - {"perturbations", "fourier"}


def test_flips_by_frame(protocol_figures):
    panels = draw(protocol_figures["cifar10_resnet18_perturbations"]).axes
    titles = ["Gaussian noise", "Shot noise", "Motion blur", "Zoom blur", "Spatter"]
    assert [axes.get_title() for axes in panels][:5] == titles
    motion = {line.get_label(): line for line in panels[2].lines}
    assert set(motion) == {"Standard", "MAGN"}
    assert motion["Standard"].get_xdata() == pytest.approx(range(1, 21))
    assert motion["Standard"].get_ydata() == pytest.approx([20] * 10 + [0] * 10)
    assert len(panels[0].lines[0].get_xdata()) == 30


def test_the_fourier_map_is_dark_where_the_method_fails(protocol_figures):
    figure = protocol_figures["cifar10_resnet18_fourier"]
    standard, bar = draw(figure).axes
    assert standard.get_title() == "Standard\nmean error 30.1 %"
    (image,) = standard.get_images()
    shown = image.get_array()
    assert (shown[17, 18], shown[15, 14], shown[0, 0]) == pytest.approx((60, 60, 30))
    left, right, bottom, top = image.get_extent()
    assert (left, right, top, bottom) == (-16.5, 15.5, -16.5, 15.5)  # row 17 is the vertical frequency 1
    low, high = (np.mean(image.to_rgba(np.array([[value]]))[..., :3]) for value in (0, 100))
    assert low > high + 0.3
    assert bar.get_ylabel() == "Error (%)"
    assert "l2 norm 4 per channel" in figure.caption


def test_maps_of_other_norms_are_in_figures_of_their_own(protocol_figures, fake_run):
    one, other = protocol_figures["cifar10_resnet18_fourier"], protocol_figures["cifar10_resnet18_fourier_2"]
    assert (one.title, other.title) == tuple(f"Fourier heat map, norm {n}, CIFAR-10, ResNet-18" for n in (4, 8))
    assert [[series["label"] for series in figure.series] for figure in (one, other)] == [["Standard"], ["MAGN"]]
    assert "l2 norm 8 per channel" in other.caption
    few = with_protocols(fake_run("few", method="magn"))
    rewrite(few, lambda results: results["fourier"].update(num_images=50))
    made, _ = figures_of([with_protocols(fake_run("many")), few])
    titles = [figure.title for figure in made.values() if figure.kind == "fourier"]
    said = ("norm 4, 50 images", "norm 4, 500 images")
    assert titles == [f"Fourier heat map, {title}, CIFAR-10, ResNet-18" for title in said]


def test_runs_that_were_measured_in_other_ways_have_no_mean(fake_run):
    a, b = with_protocols(fake_run("a")), with_protocols(fake_run("b", seed=1), norm=8.0)
    rewrite(b, lambda results: results["perturbations"].update(source={"dir": "CIFAR-10-P"}))
    rewrite(b, lambda results: results["rms_calibration_error"].update(corruption_set="c15"))
    made, notes = figures_of([a, b])
    assert {figure.kind for figure in made.values()} == set(DRAWINGS) - {"perturbations", "fourier"}
    assert "cifar10_resnet18_reliability_corrupt" not in made
    assert notes == [
        f"Standard, CIFAR-10, ResNet-18: its runs have several {ways}; the {figures} do not show it."
        for ways, figures in (
            ("sequences, of fastmagn's and of a -P set", "curves of flips"),
            ("norms or numbers of images", "Fourier heat maps"),
            ("sets of corruptions", "reliability diagrams"),
        )
    ]
    stored = with_protocols(fake_run("c", method="magn"))
    rewrite(stored, lambda results: results["perturbations"].update(source={"dir": "CIFAR-10-P"}))
    made, _ = figures_of([a, stored])
    flips = [figure for figure in made.values() if figure.kind == "perturbations"]
    assert [[series["label"] for series in figure.series] for figure in flips] == [["Standard"], ["MAGN"]]
    where = "CIFAR-10, ResNet-18"
    assert [figure.title for figure in flips] == [
        f"Flips along perturbation sequences{of}, {where}" for of in ("", " of a -P set")
    ]


def heights(axes) -> list[float]:
    return [bar.get_height() for container in axes.containers for bar in container if hasattr(bar, "get_height")]


def test_accuracy_bars(figures):
    (axes,) = draw(figures["cifar10_resnet18_accuracy"]).axes
    assert heights(axes) == pytest.approx([92, 72, 92, 59.5, 95, 60])
    papers = [line.get_ydata()[0] for line in axes.lines if line.get_label() == "Paper"]
    assert papers == pytest.approx([94.74, 77.47, 93.19, 85.99])
    assert [text.get_text() for text in axes.texts] == ["92.0", "72.0", "92.0", "59.5", "95.0", "60.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Standard", "MAGN", "MAGN\n(sigma_max 0.4)"]


def test_calibration_bars(figures):
    clean, corrupt = draw(figures["cifar10_calibration"]).axes
    assert heights(clean) == pytest.approx([6, 6, 2])  # Standard on two networks, then MAGN; not its other sigma_max
    assert heights(corrupt) == pytest.approx([21, 21, 1])
    assert [label.get_text() for label in corrupt.get_xticklabels()] == ["ResNet-18", "DenseNet-121"]
    places = [bar.get_x() + bar.get_width() / 2 for bar in clean.patches]
    ticks = clean.get_xticks()
    assert ticks[0] == pytest.approx((places[0] + places[2]) / 2)
    assert ticks[1] == pytest.approx(places[1])


def test_corruption_profile(figures):
    (axes,) = draw(figures["cifar10_resnet18_profile"]).axes
    lines = {line.get_label(): line for line in axes.lines}
    names = [label.get_text() for label in axes.get_yticklabels()]
    at = dict(zip(axes.get_yticks(), names, strict=True))
    magn = {at[y]: x for x, y in zip(*lines["MAGN"].get_data(), strict=True)}
    assert len(magn) == 19
    assert magn["Gaussian noise"] == pytest.approx(50)
    assert magn["Saturate"] == pytest.approx(68)
    assert magn["JPEG compression"] == pytest.approx(64)
    assert lines["Standard"].get_xdata() == pytest.approx([72] * 19)


def test_severity_curves(figures):
    (axes,) = draw(figures["cifar10_resnet18_severity"]).axes
    lines = {line.get_label(): line for line in axes.lines}
    slope = [100 * step for step in SLOPE]
    assert lines["Standard"].get_xdata() == pytest.approx([0, 1, 2, 3, 4, 5])
    assert lines["Standard"].get_ydata() == pytest.approx([92, *(72 + step for step in slope)])
    assert lines["MAGN"].get_ydata() == pytest.approx([92, *(59.5 + step for step in slope)])
    panels = draw(figures["cifar10_resnet18_severity_by_corruption"]).axes
    assert len(panels) == 19
    fog = next(axes for axes in panels if axes.get_title() == "Fog")
    line = next(line for line in fog.lines if line.get_label() == "MAGN")
    assert line.get_ydata() == pytest.approx([92, *(59 + step for step in slope)])


def test_without_a_common_corruption_only_clean_accuracies_are_bars(fake_run):
    made, _ = figures_of([fake_run("a", {"fog": 0.7}), fake_run("b", {"snow": 0.6}, method="magn")])
    bars = made["cifar10_resnet18_accuracy"]
    assert bars.title.startswith("Clean accuracy, CIFAR-10")
    figure = draw(bars)
    (axes,) = figure.axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches] == [
        (pytest.approx(place), pytest.approx(90)) for place in (0, 1)
    ]
    assert [text.get_text() for text in figure.legends[0].texts][:1] == ["Clean"]
    assert "mCA" not in str(figure.legends[0].texts)


def test_titles_of_panels_fit_the_page(fake_run):
    own = "a_corruption_of_" + "m" * 80
    run = fake_run("long", dict.fromkeys(["fog", "transverse_chromatic_abberation", "x" * 30, "snow", own], 0.7))
    rewrite(run, lambda results: results["mca"].update(measured=0.7))
    made, _ = figures_of([run])
    figure = draw(made["cifar10_resnet18_severity_by_corruption"])
    FigureCanvasAgg(figure).draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.x1
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["Snow", "Fog", "Transverse chromatic\nabberation"]


def test_reliability_diagrams_pool_the_seeds(fake_run):
    def other(results):
        results["reliability"]["clean"] = {
            "count": [2, 0, 2, 1],
            "accuracy": [0.5, None, 1, 0],
            "confidence": [0.125, None, 0.75, 1],
        }

    a, b = fake_run("a", rms=(0.05, 0.1)), fake_run("b", seed=1, rms=(0.07, 0.1))
    rewrite(b, other)
    made, _ = figures_of([a, b])
    (axes,) = draw(made["cifar10_resnet18_reliability_clean"]).axes
    # First run: 0, 1, 2, 7 predictions with accuracies -, 0, 1/2, 1 and confidences -, 3/8, 5/8, 7/8.
    assert heights(axes) == pytest.approx([50, 0, 75, 87.5])
    assert [bar.get_x() + bar.get_width() / 2 for bar in axes.patches] == pytest.approx([12.5, 37.5, 62.5, 87.5])
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert lines["Mean confidence"] == pytest.approx([12.5, 37.5, 68.75, 100 * (7 * 0.875 + 1) / 8])
    assert lines["Share of predictions"] == pytest.approx(np.array([2, 1, 4, 8]) / 15 * 100)
    assert axes.texts[0].get_text() == "RMS 6.00 %"


def test_reliability_diagrams_of_other_corruptions_are_in_figures_of_their_own(fake_run):
    runs = [fake_run("a"), fake_run("b", {"fog": 0.8}, method="magn"), fake_run("c", method="augmix")]
    made, notes = figures_of(runs)
    diagrams = {
        figure.title: [series["label"] for series in figure.series]
        for figure in made.values()
        if figure.kind == "reliability"
    }
    assert diagrams == {
        f"Reliability on {images}, CIFAR-10, ResNet-18": labels
        for images, labels in {
            "clean images": ["Standard", "AugMix", "MAGN"],
            "corrupt images (c18)": ["Standard", "AugMix"],
            "corrupt images (fog)": ["MAGN"],
        }.items()
    }
    assert not notes


def test_older_results_have_no_reliability_diagram_but_a_line_that_says_how(fake_run):
    old, new = fake_run("old"), fake_run("new", method="magn")
    rewrite(old, lambda results: results.pop("reliability"))
    made, notes = figures_of([old, new])
    assert [series["label"] for series in made["cifar10_resnet18_reliability_clean"].series] == ["MAGN"]
    assert notes == [
        f"{old}: its results have no reliability bins, so the reliability diagrams do not show it. Run python -m "
        f"fastmagn.evaluate --run {old}, then report {old / 'evaluation.json'}."
    ]
    made, _ = figures_of([old])
    assert not any("reliability" in name for name in made)


def test_training_curves(fake_run):
    silent = fake_run("b", method="magn", seed=1)
    (silent / "metrics.jsonl").unlink()
    made, notes = figures_of([fake_run("a"), silent])
    loss, accuracy = draw(made["cifar10_resnet18_training"]).axes
    assert loss.lines[0].get_xdata() == pytest.approx([1, 2, 3])
    assert loss.lines[0].get_ydata() == pytest.approx([2, 1.5, 1])
    assert accuracy.lines[0].get_ydata() == pytest.approx([30, 50, 70])
    assert notes == [f"{silent}: has no metrics.jsonl beside its results, so the training curves do not show it."]


def test_a_method_has_its_own_colour_everywhere():
    assert METHOD_STYLES.keys() == METHODS.keys()
    assert NETWORK_TITLES.keys() == MODELS.keys()
    assert len({color for color, _ in METHOD_STYLES.values()}) == len(METHOD_STYLES) >= 13
    of = [style({"method": "magn", "variant": variant}) for variant in range(5)]
    assert len({look.color for look in of}) == 1
    assert len({str(look.line) for look in of}) == len({look.hatch for look in of}) == 5
    unknown = style({"method": "something", "variant": 0})
    assert unknown == style({"method": "something", "variant": 0})
    assert unknown.color not in {color for color, _ in METHOD_STYLES.values()}


def test_characters_that_no_font_has_are_one_line(fake_run, monkeypatch):
    runs = [fake_run("a", method="方法一"), fake_run("b", method="方法二", epochs=0), fake_run("c", method="é α ≥")]
    monkeypatch.setattr(fonts, "_characters", lambda: (frozenset(map(ord, "éα≥方")), frozenset(range(128))))
    (line,) = [line for line in make_report(runs).warnings if "boxes" in line]
    assert line.startswith("figures: boxes stand for 法一 of 方法一 and of 1 more: no font on this machine")
    made, _ = figures_of(runs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in made.values():
            to_files(figure)


def test_fonts_with_more_characters_are_asked_after_matplotlibs_own(monkeypatch):
    assert drawing.SETTINGS["font.family"][0] == "DejaVu Sans"
    assert fonts.note_on_boxes(["MAGN+AugMix", "é ± −"]) == []
    installed = [SimpleNamespace(name="Noto Sans CJK JP"), SimpleNamespace(name="Comic Sans")]
    monkeypatch.setattr(fonts.font_manager.fontManager, "ttflist", installed)
    assert fonts.families.__wrapped__() == ("DejaVu Sans", "Noto Sans CJK JP")


def test_many_bars_are_below_each_other(fake_run):
    """On the page a figure is at most 1344 px wide; the text of one of 75 in could not be read."""
    paths = [fake_run(f"r{i}", 0.5 + 0.01 * i, method=f"method number {i}") for i in range(40)]
    for number, is_across in ((40, True), (5, False)):
        made, _ = figures_of(paths[:number])
        for name in ("cifar10_resnet18_accuracy", "cifar10_calibration"):
            figure = draw(made[name])
            assert figure.get_figwidth() <= 16
            bars = figure.axes[0].patches
            assert all((bar.get_x() == 0) == is_across for bar in bars)
        (axes,) = draw(made["cifar10_resnet18_accuracy"]).axes
        values = [bar.get_width() if is_across else bar.get_height() for bar in axes.patches[1::2]]
        series = made["cifar10_resnet18_accuracy"].series
        assert values == pytest.approx([100 * one["mca"]["mean"] for one in series])
        labels = [label.get_text() for label in (axes.get_yticklabels() if is_across else axes.get_xticklabels())]
        assert labels == [one["label"] for one in series]


def test_every_marker_is_filled():
    """One of lines only has no face, and its white edge is invisible on white."""
    for look in [*METHOD_STYLES.values(), *(style({"method": "own", "variant": 0, "look": i})[:2] for i in range(20))]:
        assert look[1] in MarkerStyle.filled_markers


def keys_of(line) -> tuple:
    """What the eye sees of a marker."""
    return (
        to_hex(line.get_color()),
        line.get_marker(),
        line.get_fillstyle(),
        to_hex(line.get_markerfacecolor()),
        to_hex(line.get_markeredgecolor()),
    )


def test_no_two_of_a_report_look_the_same(fake_run):
    """Methods of one's own, NAME+magn beside NAME, and more configurations than there are kinds of lines."""
    own = [f"own{i}" for i in range(30)]
    # Those without noisy or adversarial views.
    with_magn = [f"{name}+magn" for name in METHODS if name.startswith(("standard", "cut", "mix", "a", "prime", "tri"))]
    with_magn = [name for name in with_magn if name not in ("at+magn", "augmix_noise+magn")]
    methods = [*METHODS, *with_magn, *own, "own3+magn"]
    runs = [fake_run(method.replace("+", "_"), method=method) for method in methods]
    runs += [fake_run(f"v{i}", method="magn", fields={"train.epochs": 40 + i}) for i in range(12)]
    made, _ = figures_of(runs)
    series = made["cifar10_resnet18_accuracy"].series
    looks = [style(one) for one in series]
    assert len(looks) == len(runs)
    for parts in (("color", "hatch"), ("color", "line"), ("color", "marker", "fill", "edge")):
        assert len({tuple(str(getattr(look, part)) for part in parts) for look in looks}) == len(looks), parts
    of = {one["label"]: look for one, look in zip(series, looks, strict=True)}
    assert of["own3"][:2] == of["own3+magn"][:2]
    assert of["CutMix"][:2] == style({"method": "cutmix+magn", "variant": 0})[:2]
    (axes,) = draw(made["cifar10_resnet18_profile"]).axes
    drawn = [line for line in axes.lines if not line.get_label().startswith("_")]
    assert len({keys_of(line) for line in drawn}) == len(drawn) == len(looks)
    for line in drawn:
        assert {to_hex(line.get_markerfacecolor()), to_hex(line.get_markeredgecolor())} != {"#ffffff"}


def test_colours_are_the_methods_in_every_figure(figures):
    wanted = METHOD_STYLES["magn"][0].lower()
    (bars,) = draw(figures["cifar10_resnet18_accuracy"]).axes
    assert to_hex(bars.patches[3].get_facecolor()) == wanted
    (lines,) = draw(figures["cifar10_resnet18_severity"]).axes
    assert to_hex(next(line for line in lines.lines if line.get_label() == "MAGN").get_color()) == wanted
    panel = draw(figures["cifar10_resnet18_reliability_corrupt"]).axes[1]
    assert to_hex(panel.patches[0].get_facecolor()) == wanted


def test_files_are_pictures_and_always_the_same(figures):
    for name in ("cifar10_resnet18_accuracy", "cifar10_resnet18_training"):
        files = to_files(figures[name])
        assert files == to_files(figures[name])
        assert Image.open(io.BytesIO(files["png"])).size[0] > 500
        assert b"<svg" in files["svg"]
        assert b"<dc:date>" not in files["svg"]


def test_runs_that_share_no_corruption_are_drawn_all_the_same(fake_run):
    paths = [
        fake_run("a", {"fog": 0.5}),
        fake_run("b", {"snow": 0.5}, seed=1),
        fake_run("c", {"snow": 0.6}, method="magn", fields={"augment.sigma_max": 0.4}),
        fake_run("d", {"fog": 0.6}, method="magn"),
    ]
    made, _ = figures_of(paths)
    assert "cifar10_resnet18_severity" not in made
    for data in made.values():
        draw(data).draw_without_rendering()
    (axes,) = draw(made["cifar10_resnet18_accuracy"]).axes
    assert heights(axes) == pytest.approx([90, 90, 90])  # clean only
    made, _ = figures_of(paths[:2])
    for data in made.values():
        draw(data).draw_without_rendering()


def test_a_profiles_means_are_over_the_same_severities(fake_run):
    whole, few = fake_run("a", 0.7), with_few(fake_run("b", 0.7, method="magn"), {"fog": [1]})
    profile = figures_of([whole, few])[0]["cifar10_resnet18_profile"]
    standard, magn = (series["accuracy"] for series in profile.series)
    assert (standard["fog"], magn["fog"], magn["snow"]) == (pytest.approx(0.7), None, pytest.approx(0.7))
    assert profile.caption == "Mean over severities 1 to 5, and over seeds."
    profile = figures_of([few])[0]["cifar10_resnet18_profile"]
    assert profile.series[0]["accuracy"]["fog"] == pytest.approx(0.74)
    assert profile.caption == "Mean over severity 1 of fog, severities 1 to 5 of the others, and over seeds."
    others = [with_few(fake_run(f"c{s}", {"fog": 0.7}, seed=s), {"fog": [s]}) for s in (1, 2)]
    profile = figures_of(others)[0]["cifar10_resnet18_profile"]
    assert profile.series[0]["accuracy"] == {"fog": None}
    draw(profile).draw_without_rendering()


def test_labels_fit_the_picture(figures):
    """Nothing that is drawn, legends and tick labels included, goes over the picture's edge."""
    for data in figures.values():
        figure = draw(data)
        figure.draw_without_rendering()
        whole, tight = figure.bbox_inches, figure.get_tightbbox()
        assert tight.x0 >= whole.x0 - 0.02, data.name
        assert tight.y0 >= whole.y0 - 0.02, data.name
        assert tight.x1 <= whole.x1 + 0.02, data.name
        assert tight.y1 <= whole.y1 + 0.02, data.name


def test_a_legend_is_as_wide_as_its_figure():
    drawn = new_figure(5, 4)
    add_legend(drawn, [Patch(label="long name " * 12), Patch(label="x" * 90)])
    FigureCanvasAgg(drawn).draw()
    box = drawn.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= 5 * drawn.dpi


@pytest.mark.parametrize("narrow", [False, True])
def test_a_legend_of_many_methods_leaves_room_for_the_panels(figures, protocol_figures, narrow):
    for figure in {made.kind: made for made in [*figures.values(), *protocol_figures.values()]}.values():
        first = figure.series[0]
        series = tuple(first | {"label": f"Standard (train.seed {number})"} for number in range(100))
        if figure.kind in ("reliability", "fourier"):  # a panel each: they have no legend of methods
            continue
        drawn = draw(dataclasses.replace(figure, series=series), narrow)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            FigureCanvasAgg(drawn).draw()
        for axes in drawn.axes:
            assert axes.get_window_extent().height > 0.6 * drawn.dpi, figure.name
