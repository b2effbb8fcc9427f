"""The page and its figures: made from small maps that follow a known law, read back as a browser would."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from chemomech.errors import InputError
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.law import EigenstrainLaw
from chemomech.observe.maps import CorrelativeMaps
from chemomech.report import curves, maps
from chemomech.report.eigenstrain import write_report
from chemomech.report.sheet import nice_above, nice_length
from chemomech.report.tables import with_half_width

LAW = EigenstrainLaw(np.array([[0.0245, -0.001], [-0.0098, 0.0006]]), np.zeros((4, 4)))
NASTY = '<b>&"..$x_{'


def particle(name, seed, ny=24, nx=40):
    """An ellipse with a phase boundary across; every pixel strains freely, plus noise of 0.1 %."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:ny, 0:nx]
    mask = ((y - ny / 2 + 0.5) / (ny / 2 - 1)) ** 2 + ((x - nx / 2 + 0.5) / (nx / 2 - 1)) ** 2 <= 1
    composition = 0.5 + 0.45 * np.tanh((x - nx / 2 + 0.2 * y - 2 * (seed % 3)) / 4)
    distortion = random.normal(0, 1e-3, (ny, nx, 4))
    distortion[..., :2] += LAW(composition)
    composition = composition + random.normal(0, 0.02, mask.shape)
    return CorrelativeMaps(name, 20.0, mask, np.where(mask, composition, np.nan), distortion)


@pytest.fixture(scope="module")
def result():
    return learn_eigenstrain([particle(name, seed) for seed, name in enumerate(("P1", "P2", NASTY))], test=["P2"])


@pytest.fixture(scope="module")
def dislocated():
    """Model M2 on maps that came with an uncertainty in every pixel."""
    own = particle("P1", 0, 16, 26)
    random = np.random.default_rng(0)
    given = {channel: 1e-3 * random.uniform(0.8, 1.2, own.mask.shape) for channel in ("aa", "cc", "ac", "rotation")}
    own.distortion[..., 1] += 0.01 * np.sin(np.indices(own.mask.shape)[1] / 3)
    return learn_eigenstrain([replace(own, uncertainty=given)], order=1, models=("M1", "M2"))


class Page(HTMLParser):
    """Images, addresses and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.images, self.addresses, self.text = [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        self.addresses += [(tag, attributes[key]) for key in ("src", "href") if key in attributes]

    def handle_data(self, data):
        self.text += data


def write(folder, result, **more):
    data = folder / "maps & more.h5"
    data.write_bytes(b"maps")
    write_report(folder, result, inputs=[data], options={"order": "auto"}, **more)
    return Page(folder / "report.html")


def pixels(png):
    return imread(BytesIO(png), format="png")


@pytest.fixture(scope="module")
def report(result, tmp_path_factory):
    """The page, and the folder it was written to."""
    extra = Figure()
    extra.add_subplot().plot([0, 1])
    folder = tmp_path_factory.mktemp("report")
    return write(folder, result, extra_figures=[("An <extra> figure", extra)]), folder


def test_page_holds_the_same_figures_as_the_folder(report):
    page, folder = report
    files = list((folder / "figures").iterdir())
    embedded = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.images]
    assert sorted(embedded) == sorted(file.read_bytes() for file in files)
    assert all(np.ptp(pixels(png)) > 0 for png in embedded)
    assert "An <extra> figure" in page.text


def test_page_needs_no_other_file(report):
    page, _ = report
    for tag, address in page.addresses:
        assert address.startswith(("data:image/png;base64,", "#")) or (tag == "a" and "doi.org" in address)
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_page_can_be_read_without_its_images(result, report):
    page, _ = report
    assert all(image["alt"] for image in page.images)
    law = result.laws["M1"]
    assert with_half_width(100 * law.derivative(0.5)[0], 100 * law.derivative_band(0.5)[0]) in page.text
    assert "P2 took no part in the fit" in " ".join(page.text.split())
    assert result.uncertainty["M1"].reason.split(":")[0][1:] in page.text


def test_names_are_text_and_nothing_else(report):
    page, folder = report
    assert NASTY in page.text
    assert NASTY not in (folder / "report.html").read_text(encoding="utf-8")
    assert {file.parent for file in folder.rglob("*.png")} == {folder / "figures"}


def test_the_page_of_dislocations(dislocated, tmp_path):
    """Candidates, the error against the given uncertainty and the maps; without M2 there is no such section."""
    page = write(tmp_path, dislocated)
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"candidates.png", "error_against_uncertainty.png", "dislocations_P1.png"} <= figures
    assert "Dislocations" in page.text
    assert f"{1e6 * dislocated.dislocations.mean_abs_density_per_nm2:.0f}" in page.text


def test_no_dislocations_are_drawn_without_M2(result):
    for plot in (curves.plot_candidates, curves.plot_error_against_uncertainty):
        with pytest.raises(InputError, match="M2 was not fitted"):
            plot(result)
    with pytest.raises(InputError, match="M2 was not fitted"):
        maps.plot_dislocations(result, "P1")


@pytest.mark.parametrize("models", [("M0",), ("M1",)])
def test_one_model_and_one_particle_are_enough(models, tmp_path):
    small = particle(" ", 0)
    page = write(tmp_path, learn_eigenstrain([small], order=1, models=models))
    assert "as asked for" in page.text
    assert ("Coherency strain" in page.text) == (models == ("M1",))


def test_particles_too_thin_for_an_incompatibility(tmp_path):
    """Without 3 x 3 pixels there is no noise to estimate either: it is given."""
    thin = particle("thin", 0, ny=4)
    noise = {"composition": 0.02, "aa": 1e-3, "cc": 1e-3, "ac": 1e-3, "rotation": 1e-3}
    given = {channel: np.full(thin.mask.shape, value) for channel, value in noise.items()}
    page = write(tmp_path, learn_eigenstrain([replace(thin, uncertainty=given)], order=1, models=("M0",)))
    assert "RMS incompatibility (µm⁻²)" in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_many_particles_are_on_contact_sheets(tmp_path, monkeypatch):
    monkeypatch.setattr("chemomech.report.eigenstrain._MOST_IN_FULL", 2)
    many = [particle("same name" + "?" * i, i, 9, 14) for i in range(4)]
    page = write(tmp_path, learn_eigenstrain(many, order=1))
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert "particles_from_1.png" in names
    assert sum(name.startswith("particle_") for name in names) == 2
    assert len(page.images) == len(names)


@pytest.mark.parametrize(
    ("plot", "unit"),
    [
        (curves.plot_law, "(%)"),
        (curves.plot_expansion, "(%)"),
        (lambda result, ax: curves.plot_regression(result, "a", ax), "(%)"),
        (curves.plot_order_selection, "(nm)"),
        (curves.plot_incompatibility, "(µm$^{-2}$)"),
    ],
)
def test_curves_draw_on_given_axes_and_name_units(result, plot, unit):
    ax = Figure().add_subplot()
    assert plot(result, ax) is ax
    assert ax.get_ylabel().endswith(unit)
    assert ax.get_xlabel()


def test_model_errors_are_bars_in_thousandths(result):
    ax = curves.plot_model_errors(result)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([1e3 * error for error in result.model_error.values()])
    assert "10$^{-3}$" in ax.get_xlabel()


def test_law_is_drawn_in_per_cent(result):
    ax = curves.plot_law(result)
    drawn = {round(line.get_ydata()[0], 9) for line in ax.lines if len(line.get_xdata()) > 2}
    assert drawn == {round(100 * value, 9) for law in result.laws.values() for value in law(0.0)}


def test_no_selection_no_plot():
    with pytest.raises(InputError, match="order 1 was given"):
        curves.plot_order_selection(learn_eigenstrain([particle("P1", 0)], order=1, models=("M0",)))


def test_noise_alone_gives_the_incompatibility_of_noise(result):
    """A law that leaves only noise leaves its incompatibility: over some 700 pixels the RMS is known to 5 %."""
    for name, of_particle in result.particles.items():
        expected = curves.noise_incompatibility(result, name)
        assert of_particle.rms_incompatibility_per_nm2 == pytest.approx(expected, rel=0.15)


def test_maps_stand_upright_and_show_half_the_shear(result):
    """Axis 0 is c and grows upwards; the shear that is stored is 2 eps_ac."""
    figure = maps.plot_particle(result, "P1")
    panels = {ax.get_title(loc="left"): ax.images[0] for ax in figure.axes if ax.images}
    assert len(panels) == 12
    of_particle = result.particles["P1"]
    shown = panels[r"Residual $\varepsilon_{ac}$"]
    assert shown.origin == "lower"
    values = np.ma.filled(shown.get_array(), np.nan)
    inside = np.isfinite(values)
    assert values[inside] == pytest.approx(50 * of_particle.residual_strain[of_particle.maps.mask][:, 2])


def test_scales_are_round():
    assert [nice_above(x) for x in (0.9, 1.0, 2.1e-3, 8.5)] == pytest.approx([1, 1, 2.5e-3, 10])
    assert nice_length(1234.0) == (1000.0, "1 µm")
    assert nice_length(99.0) == (50.0, "50 nm")


def test_intervals_keep_two_digits_of_the_half_width():
    assert with_half_width(4.9036, 0.0213) == "+4.904 ± 0.021"
    assert with_half_width(-12.0, 3.4) == "\N{MINUS SIGN}12.0 ± 3.4"
    assert with_half_width(1.0, 0.0) == "+1.00000 ± 0.00000"
