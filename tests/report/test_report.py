"""Reports: what the masks are like, the figures and the page, drawn from files alone."""

import html.parser
import itertools
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tf_lottery import report
from tf_lottery.bin import main
from tf_lottery.report import census, kernels, masks, measured, page, style, trained, untrained, weights
from tf_lottery.rules import criteria
from tf_lottery.rules import masks as masks_lib
from tf_lottery.runs.outcome import Statistic
from tf_lottery.runs.results import Run
from tf_lottery.tickets.ticket import Ticket


@pytest.fixture(autouse=True, scope="module")
def coarse():
    """Figures with few dots: most of the time of a report goes into those."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(report.STYLE, "savefig.dpi", 40)
        with plt.rc_context(report.STYLE):
            yield


@pytest.fixture(autouse=True)
def closed():
    """Figures that a test looks at and does not save are closed after it."""
    yield
    plt.close("all")


IMAGE = {"net/hidden/kernel": (36, 8), "net/output/kernel": (8, 3)}
WINDOW = {"net/conv/kernel": (3, 3, 1, 40), "net/output/kernel": (8, 3)}
MNIST = Path(__file__).parents[2] / "docs" / "results" / "lenet_mnist"


def write_run(folder, shapes=IMAGE, input_shape=(6, 6, 1), levels=4, replicates=2, criterion="large_final"):
    """A run as the command line writes it, made without any training."""
    run = Run(folder)
    for replicate in range(replicates):
        rng = np.random.default_rng(replicate)
        initial = {path: rng.normal(size=shape).astype("float32") for path, shape in shapes.items()}
        masks = {path: np.ones(shape, np.uint8) for path, shape in shapes.items()}
        for level in range(levels + 1):
            start = {path: value * masks[path] for path, value in initial.items()}
            final = {
                path: (start[path] + 0.5 * rng.normal(size=m.shape)).astype("float32") * m for path, m in masks.items()
            }
            found = {
                "criterion": criterion,
                "one_shot": False,
                **({"input_shape": list(input_shape)} if input_shape else {}),
            }
            metrics = {"early_stop_step": 20, "early_stop_test_accuracy": 0.9 + 0.01 * level - 0.005 * replicate}
            metrics |= {"final_test_accuracy": 0.9, "seconds": 1.0}
            curve = [
                {
                    "step": step,
                    "train_loss": 1 / step,
                    "validation_loss": 1.0,
                    "validation_accuracy": 0.5,
                    "test_accuracy": step / 100,
                }
                for step in (10, 20, 30)
            ]
            run.write_level(replicate, Ticket(masks, start, final, level, metrics, found), curve)
            scores = {
                path: criteria.score(criteria.get(criterion), start[path], final[path], rng=rng) for path in masks
            }
            masks = masks_lib.prune(masks, scores, dict.fromkeys(masks, 0.4))
    run.open({"model": "net", "dataset": "none"}, {"numpy": np.__version__})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("results") / "short")


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report.write(run, folder)
    return folder


class Page(html.parser.HTMLParser):
    """The tags of a page, its images and the text of its captions."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.urls, self.captions, self.text = [], [], [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.text += data
        if self.tags[-1:] == ["figcaption"] and data.strip():
            self.captions.append(data)


def test_a_search_has_all_its_figures_and_nothing_is_left_out(written):
    figures = {
        "accuracy",
        "early_stop",
        "final_accuracy",
        "curves",
        "layer_density",
        "first_layer",
        "weights",
        "survivors",
    }
    figures |= {"overlap", "connected", "kernels", "trained", "signs"}
    assert {path.name for path in written.iterdir()} == {f"{name}.png" for name in figures} | {"table.md", "index.html"}
    page = Page(written / "index.html")
    assert page.tags.count("img") == len(figures) == len(page.captions) and "Left out" not in page.text


def test_the_page_asks_nothing_of_any_other_place(written):
    page = Page(written / "index.html")
    assert page.urls and all(url.startswith("data:") for url in page.urls)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    text = (written / "index.html").read_text()
    assert "http://" not in text and "https://" not in text and "url(" not in text and "@import" not in text


def test_a_caption_is_one_sentence(written):
    for caption in Page(written / "index.html").captions:
        assert caption.endswith(".") and not re.search(r"\.\s+[A-Z]", caption), caption


def test_names_and_settings_cannot_write_into_the_page(tmp_path):
    hostile = write_run(tmp_path / "<script>alert(1)</script>".replace("/", "|"), levels=1)
    hostile.open({"model": "<img src=x>", "dataset": '"><b>'}, {})
    report.write(hostile, tmp_path / "out")
    page = Page(tmp_path / "out" / "index.html")
    assert not {"script", "b"} & set(page.tags) and "x" not in page.urls and "<img src=x>" in page.text


def test_the_table_is_the_same_in_both_forms(written):
    markdown = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (written / "table.md").read_text().splitlines()[2:]
    ]
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", (written / "index.html").read_text())
    assert cells == [cell for line in [markdown[0], *markdown[2:]] for cell in line]
    assert len(markdown) == 2 + 5 and markdown[2][:4] == ["ticket", "0", "100", "2"]


def test_tables_alone_are_enough_for_a_page_that_says_what_is_missing(tmp_path):
    """The results in docs have no tickets."""
    names = {path.name for path in report.write(Run(MNIST), tmp_path)}
    assert {"accuracy.png", "early_stop.png", "curves.png", "index.html"} <= names and "first_layer.png" not in names
    assert "Figures of masks and weights: the run has no tickets" in Page(tmp_path / "index.html").text


def test_one_replicate_has_no_overlap_and_says_so(tmp_path):
    names = {path.name for path in report.write(write_run(tmp_path / "one", replicates=1), tmp_path / "out")}
    assert "overlap.png" not in names and "weights.png" in names
    assert "it needs the tickets of two replicates" in Page(tmp_path / "out" / "index.html").text


def test_replicates_that_agree_have_a_mean_that_is_theirs():
    """The sum of three equal numbers over three can be another number, and a bar of negative length is no figure."""
    for value in (0.901, 0.905, 0.98):
        for count in (3, 40):
            statistic = Statistic.of([value] * count)
            assert (statistic.mean, statistic.low, statistic.high) == (value, value, value)
    assert Statistic.of([1.0, 2.0, 6.0]) == Statistic(3.0, 1.0, 6.0)


def test_the_conclusion_names_the_controls_at_the_winners_level(tmp_path):
    run = write_run(tmp_path / "controlled", levels=2)
    assert report.conclusion(run).endswith("at the same step, 20 (means of 2 replicates).")
    for name, levels, replicates in (("random_mask", 1, 2), ("other", 2, 2)):
        write_run(run.folder / "branches" / name, levels=levels, replicates=replicates)
    assert report.conclusion(run).endswith("at the same step, 20 (means of 2 replicates).")
    write_run(run.folder / "branches" / "random_mask", levels=2, replicates=2)
    write_run(run.folder / "branches" / "reinit", levels=2, replicates=1)
    said = "; reinitialised 92.00 % (1 of the replicates), random masks 91.75 % (means of 2 replicates)."
    assert report.conclusion(run).endswith(said)


def test_one_replicate_has_no_spread_and_the_conclusion_says_so(tmp_path):
    run = write_run(tmp_path / "one", levels=1, replicates=1)
    assert report.conclusion(run).endswith("at the same step, 20 (one replicate: its spread is not known).")


def test_of_many_replicates_the_masks_of_some_are_counted_and_it_says_so(tmp_path):
    run = write_run(tmp_path / "many", levels=1, replicates=census.MOST + 3)
    levels = census.take(run)
    assert [level.replicates for level in levels] == [list(range(census.MOST))] * 2
    assert all(level.there == census.MOST + 3 and len(level.densities) == census.MOST for level in levels)
    assert masks.layer_densities(levels).caption.endswith("mean, min and max of the first 8 of 11 replicates.")
    assert len(report.series_of(run)[0][1]) == 2 and report.series_of(run)[0][1][0].replicates == census.MOST + 3


@pytest.mark.parametrize(("of_test", "data"), [(5, "test"), (4, "validation"), (0, "validation")])
def test_curves_are_of_the_test_set_where_it_was_measured_often(tmp_path, of_test, data):
    run = write_run(tmp_path / "short", levels=0, replicates=1)
    names = ("step", "train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
    curve = [dict(zip(names, (i, 1.0, 1.0, 0.1 * i, 0.05 * i if i <= of_test else None))) for i in range(1, 8)]
    run.write_level(0, run.ticket(0, 0), curve)
    picture = measured.curves(run)
    axes, loss = picture.figure.axes
    assert axes.get_ylabel() == f"{data} accuracy (%)" and f"on the {data} set and validation loss" in picture.caption
    assert loss.get_ylabel() == "validation loss" and loss.lines[0].get_ydata() == pytest.approx(np.ones(7))
    scale, steps = (5, of_test) if data == "test" else (10, 7)
    assert axes.lines[0].get_ydata() == pytest.approx([scale * i for i in range(1, steps + 1)])


def test_stored_weights_are_drawn_without_tensorflow(run, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tf_lottery import report; from tf_lottery.runs.results import Run\n"
        f"report.write(Run(Path({str(run.folder)!r})), Path({str(tmp_path)!r}))\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "weights.png").is_file()


@pytest.mark.parametrize(("shapes", "input_shape", "said"), [
    (IMAGE, (6, 6, 1), "each pixel of the input"),
    (IMAGE, (36,), "each position of the input"),
    (IMAGE, None, "each position of the input"),
    (WINDOW, (8, 8, 1), "the first 32 of 40 filters of the first convolution"),
])  # fmt: skip
def test_the_first_layer_takes_the_form_of_the_input(tmp_path, shapes, input_shape, said):
    levels = census.take(write_run(tmp_path / "short", shapes, input_shape, levels=2))
    assert said in masks.first_layer(levels).caption


def test_a_first_kernel_that_does_not_fit_the_input_is_left_out(tmp_path):
    levels = census.take(write_run(tmp_path / "short", IMAGE, (5, 5, 1), levels=1))
    assert "does not tell how it lies on the input" in masks.first_layer(levels).why


def test_an_empty_kernel_is_named(tmp_path):
    run = write_run(tmp_path / "short", levels=1)
    ticket = run.ticket(1, 1)
    cut_through = {**ticket.masks, "net/output/kernel": np.zeros((8, 3), np.uint8)}
    values = [
        {path: value * cut_through[path] for path, value in each.items()} for each in (ticket.initial, ticket.final)
    ]
    run.write_level(1, Ticket(cut_through, *values, 1, ticket.metrics, ticket.found), [])
    levels = census.take(run)
    assert census.empty_kernels(levels) == [("net/output/kernel", 1, 1)]
    assert levels[1].connected["net/output/kernel"][1] == (0.0, 0.0)
    assert "output keeps none at level 1 of replicate 1" in masks.connected_units(levels).caption


def test_many_kernels_fit_the_figures(tmp_path):
    shapes = {f"net/block_{i}/kernel": (6, 6 if i else 7) for i in range(20)}
    levels = census.take(write_run(tmp_path / "deep", shapes, (6,), levels=2))
    for draw in (masks.layer_densities, masks.connected_units, masks.overlaps):
        style.save(draw(levels).figure, tmp_path / "figure.png")
    looks = style.kernel_looks(list(shapes))
    assert len(looks) == 20 and sum(look["label"] is not None for look in looks.values()) == 5


def test_kernels_that_keep_the_same_share_make_no_figure(tmp_path):
    shapes = {"net/hidden/kernel": (20, 50), "net/output/kernel": (50, 10)}
    run = write_run(tmp_path / "alike", shapes, (20,), levels=2)
    assert "layer_density.png" not in {path.name for path in report.write(run, tmp_path / "out")}
    assert "Layer by layer: at every level all kernels keep the same share" in Page(tmp_path / "out/index.html").text
    few = {path: np.arange(mask.size).reshape(mask.shape) < 9 for path, mask in run.ticket(0, 2).masks.items()}
    few = {path: mask.astype(np.uint8) for path, mask in few.items()}
    run.write_level(0, Ticket(few, few, level=3), [])  # nine weights of each are not the same share
    assert isinstance(masks.layer_densities(census.take(run)), style.Picture)


def test_lines_that_coincide_are_all_seen():
    looks = [style.line_look(i) for i in range(len(style.COLOURS))]
    assert looks[0]["linestyle"] == "-" and all(look["linestyle"] != "-" for look in looks[1:])
    assert all(look["markerfacecolor"] == "none" for look in looks[1:])
    sizes = [look["markersize"] for look in looks[:4]]
    assert sizes == sorted(set(sizes))
    assert len({(look["color"], look["marker"]) for look in looks}) == len(looks)


@pytest.mark.parametrize(("handles", "most", "columns"), [(4, 3, 2), (5, 4, 3), (4, 4, 4), (3, 4, 3), (7, 3, 3)])
def test_a_legend_has_full_rows_but_for_the_last(handles, most, columns):
    figure, axes = plt.subplots()
    for i in range(handles):
        axes.plot([0, 1], label=str(i))
    style.legend_above(figure, columns=most)
    assert figure.legends[0]._ncols == columns


def test_the_density_axis_ends_shortly_after_the_last_level():
    for densities in ([100, 80, 64], [100, 10, 0.5], [30]):
        _, axes = plt.subplots()
        style.density_axis(axes, densities)
        left, right = np.log(axes.get_xlim())
        empty = (left - np.log(max(densities)), np.log(min(densities)) - right)
        assert all(0 < side < (0.04 if len(densities) > 1 else 0.51) * (left - right) for side in empty)


@pytest.mark.parametrize(("first", "plain"), [(40.0, True), (2.0, False)])
def test_first_steps_are_shown_and_do_not_press_the_others_together(tmp_path, first, plain):
    run = write_run(tmp_path / "short", levels=0, replicates=1)
    accuracies = [first, *np.linspace(50 if plain else 95, 62 if plain else 98, 11)]
    names = ("step", "train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
    run.write_level(
        0, run.ticket(0, 0), [dict(zip(names, (i, 1.0, i, a / 100, a / 100))) for i, a in enumerate(accuracies, 1)]
    )
    axes, loss = measured.curves(run).figure.axes
    low, high = axes.get_ylim()
    assert low < first and high > max(accuracies) and (axes.get_yscale() == "linear") == plain
    place = [axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1] for y in accuracies]
    assert place[-1] - place[1] > 0.15 and len([tick for tick in axes.get_yticks() if low <= tick <= high]) >= 4
    assert axes.lines[0].get_markevery() == 1 and loss.get_yscale() == "log"


def test_each_kernel_is_shown_weight_by_weight(run, tmp_path):
    levels = census.take(run)
    first, output = kernels.masks(run, levels).figure.axes
    mask = run.ticket(0, 4).masks
    drawn = np.asarray(first.images[0].get_array())
    for unit in range(8):  # side by side, each in the shape of the input
        assert np.array_equal(drawn[:, 7 * unit : 7 * unit + 6], mask["net/hidden/kernel"][:, unit].reshape(6, 6))
    assert np.array_equal(output.images[0].get_array(), mask["net/output/kernel"].T)
    assert "% of 288 weights" in first.get_title()
    run = write_run(tmp_path / "conv", WINDOW, (8, 8, 1), levels=1)
    first, _ = kernels.masks(run, census.take(run)).figure.axes
    mask = run.ticket(0, 1).masks["net/conv/kernel"]
    assert "first 32 of 40" in first.get_title()
    assert np.array_equal(first.images[0].get_array()[4:7, 4:7], mask[:, :, 0, 9])
    big = write_run(tmp_path / "big", {"net/k": (500, 600)}, None, levels=1, replicates=1)
    (axes,) = kernels.masks(big, census.take(big)).figure.axes
    assert axes.images[0].get_array().shape == (400, 400) and "the first 400 x 400 of 500 x 600" in axes.get_title()


def test_trained_weights_and_signs_by_hand(run):
    levels = census.take(run)
    hidden, output = trained.trained(run, levels).figure.axes[:2]
    parent, child = run.ticket(0, 3), run.ticket(0, 4)
    for axes, path in ((hidden, "net/hidden/kernel"), (output, "net/output/kernel")):
        *_, kept, pruned = axes.patches
        was, now = (ticket.masks[path].astype(bool) for ticket in (parent, child))
        for patch, count in ((kept, now.sum()), (pruned, (was & ~now).sum())):
            assert patch.get_xy()[1:120:2, 1].sum() == count  # the heights of the steps
    hidden, output = weights.survivors(run, levels).figure.axes
    for axes, path in ((hidden, "net/hidden/kernel"), (output, "net/output/kernel")):
        assert len(axes.patches) == 60 + 3 and axes.get_title() == path.split("/")[1]  # all weights, and three levels
    axes = trained.signs(run, levels).figure.axes[0]
    for line, path in zip(axes.lines, IMAGE):
        shares = []
        for replicate in (0, 1):
            ticket = run.ticket(replicate, 2)
            kept = ticket.masks[path] == 1
            shares.append(100 * np.mean(np.sign(ticket.initial[path][kept]) == np.sign(ticket.final[path][kept])))
        assert line.get_ydata()[2] == pytest.approx(np.mean(shares))


def test_three_points_stand_in_a_table(tmp_path):
    names = {path.stem for path in report.write(write_run(tmp_path / "few", levels=2), tmp_path / "out")}
    assert "accuracy" not in names and "curves" in names
    assert "so few points make no curve, they stand in the table" in Page(tmp_path / "out" / "index.html").text


def test_settings_that_are_not_set_are_not_shown(tmp_path):
    run = write_run(tmp_path / "short", levels=1, replicates=1)
    run.open({"model": "net", "dataset": "none", "rewind_to": 0, "level_steps": None, "dense": False}, {})
    told = page.about(run, "").settings
    assert "level_steps" not in told and (told["rewind_to"], told["dense"]) == ("0", "false")


def test_a_supermask_run_has_figures_of_its_own(tmp_path):
    run = Run(tmp_path / "learned")
    for replicate in range(2):
        rng = np.random.default_rng(replicate)
        masks = {path: rng.integers(0, 2, shape).astype(np.uint8) for path, shape in IMAGE.items()}
        initial = {path: rng.normal(size=shape).astype("float32") for path, shape in IMAGE.items()}
        metrics = {"early_stop_step": 10, "early_stop_test_accuracy": 0.7, "final_test_accuracy": 0.7, "seconds": 1.0}
        metrics |= {
            "mask_accuracy": 0.7,
            "sampled_accuracy": 0.65,
            "sampled_accuracy_low": 0.6,
            "sampled_accuracy_high": 0.68,
        }
        curve = [{"step": step, "test_accuracy": step / 20} for step in (5, 10)]
        run.write_level(replicate, Ticket(masks, initial, metrics=metrics, found={"input_shape": [6, 6, 1]}), curve)
    names = {path.stem for path in report.write(run, tmp_path / "out")}
    assert names == {
        "learning",
        "layer_density",
        "first_layer",
        "kernels",
        "survivors",
        "overlap",
        "connected",
        "table",
        "index",
    }
    assert (
        "reaches 70.00 % test accuracy under it (means of 2 replicates)" in (tmp_path / "out" / "table.md").read_text()
    )


def test_recipes_are_drawn_for_the_figures_of_weights(tmp_path, dense_net):
    from tf_lottery.masking import state
    from tf_lottery.tickets import recipes

    model = dense_net()
    drawn = recipes.of_model(model)
    kernel = next(path for path in drawn if path.endswith("hidden/kernel"))
    ticket = Ticket({kernel: np.ones((6, 16), np.uint8)}, {kernel: drawn[kernel]})
    assert np.array_equal(weights.initial_values(ticket, kernel), state.get_values(model)[kernel])


def test_connected_units_by_hand():
    rng = np.random.default_rng(0)
    for shape in [(9, 7), (3, 3, 4, 6)]:
        mask = (rng.random(shape) < 1.5 / np.prod(shape[:-1])).astype(np.uint8)
        inputs = [any(mask[..., i, o].any() for o in range(shape[-1])) for i in range(shape[-2])]
        outputs = [any(mask[..., i, o].any() for i in range(shape[-2])) for o in range(shape[-1])]
        assert census.connected(mask) == (np.mean(inputs), np.mean(outputs)) and not all(outputs)


def test_random_masks_overlap_by_chance_and_equal_ones_by_one_over_density():
    rng = np.random.default_rng(0)
    masks = [(rng.random((200, 200)) < 0.2).astype(np.uint8) for _ in range(6)]

    def against_chance(one, other):
        return masks_lib.overlap({"kernel": one}, {"kernel": other})["kernel"].against_chance

    assert np.mean(list(itertools.starmap(against_chance, itertools.combinations(masks, 2)))) == pytest.approx(
        1, abs=0.02
    )
    assert against_chance(masks[0], masks[0]) == pytest.approx(1 / masks[0].mean())
    assert np.isnan(against_chance(masks[0], np.zeros_like(masks[0])))


RANKED_OR_BY_CHANCE = {"random", "large_init_large_final", "small_init_small_final"}


@pytest.mark.parametrize("name", criteria.of_weights())
def test_the_cut_lies_between_the_kept_and_the_pruned(name):
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(40, 30))
    final = initial + rng.normal(size=initial.shape)
    criterion, candidates = criteria.get(name), rng.random(initial.shape) < 0.8
    initial, final = initial * candidates, final * candidates
    scores = criterion(initial, final, rng=rng)
    kept = masks_lib.keep_top(scores, 700, candidates.astype(np.uint8)).astype(bool)
    cut = weights.cut(weights.Round(initial, final, candidates, kept), criterion)
    if name in RANKED_OR_BY_CHANCE:
        assert cut is None
    elif name.startswith("magnitude_increase") and name != "magnitude_increase":
        assert cut is None or np.isfinite(cut)  # with fewer than 700 weights of that sign the last kept score -inf
    else:
        assert scores[candidates & ~kept].max() <= cut <= scores[kept].min()


def test_a_mask_that_the_criterion_did_not_choose_has_no_cut():
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(20, 20))
    kept = rng.random(initial.shape) < 0.5
    everywhere = np.ones(initial.shape, bool)
    assert weights.cut(weights.Round(initial, initial, everywhere, kept), criteria.get("large_final")) is None
    assert weights.cut(weights.Round(initial, initial, everywhere, everywhere), criteria.get("large_final")) is None


@pytest.mark.parametrize("criterion", ["random", "large_init_large_final"])
def test_where_there_is_no_line_the_caption_says_so(tmp_path, criterion):
    run = write_run(tmp_path / "short", criterion=criterion, levels=2)
    said = f"the scores of {criterion} make no line in this plane"
    assert said in weights.scatter(run, census.take(run)).caption


def test_masks_by_rule_are_drawn(tmp_path):
    run = write_run(tmp_path / "short", levels=1)
    names = [f"rule_{i}" for i in range(9)]
    run.write_rule([
        {"replicate": r, "criterion": name, "signed_constant": constant, "density": d, "test_accuracy": 0.1 + 0.01 * i}
        for r in (0, 1) for i, name in enumerate(names) for constant in (False, True) for d in (1.0, 0.5, 0.2)
    ])  # fmt: skip
    picture = untrained.by_rule(run.rule())
    assert len(picture.figure.axes) == 2 and len(picture.figure.axes[0].lines) == 9
    assert picture.caption.endswith("the best 6 criteria with names: mean, min and max of 2 replicates.")
    style.save(picture.figure, tmp_path / "figure.png")


def test_the_command_line_prints_the_table_as_json(run, tmp_path, capsys):
    import json

    place = [f"--results_dir={run.folder.parent}", f"--name={run.name}", f"--output={tmp_path}", "--json"]
    assert main.dispatch(["report", *place]) == 0
    told = json.loads(capsys.readouterr().out)
    levels = told["levels"]["ticket"]
    assert [round(level["density"]["mean"], 2) for level in levels] == [1.0, 0.6, 0.36, 0.21, 0.13]
    assert levels[4]["early_stop_test_accuracy"] == pytest.approx({"mean": 0.9375, "low": 0.935, "high": 0.94})
    assert "level 4" in told["conclusion"] and all(Path(path).is_file() for path in told["files"])
