"""The README's Python examples are run as they stand, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from chemomech.io.correlative import write_stack
from chemomech.learn.twins import Noise, add_noise, make_particle
from mpirun import needs_mpi, run
from videos import write_video

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE, VOXELS, KINETICS, UNIFORMITY, RANKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_and_makes_its_figure(tmp_path, monkeypatch, capsys):
    particles = [add_noise(make_particle(f"P{i}", length_nm=1500, seed=i), Noise(), seed=i) for i in range(3)]
    write_stack(tmp_path / "maps.h5", particles)
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLE, "README.md", "exec"), {})
    assert "df/dX" in capsys.readouterr().out
    assert (tmp_path / "expansion.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_of_voxels_runs(capsys):
    exec(compile(VOXELS, "README.md", "exec"), {})
    energy, largest, iterations = map(float, capsys.readouterr().out.split())
    assert energy > 0
    assert 0.01 < largest < 0.05
    assert iterations < 15


def test_the_example_of_kinetics_runs(tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "video.h5", [(4, 5), (4, 4)], noise=0.05)
    monkeypatch.chdir(tmp_path)
    exec(compile(KINETICS, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[5]) > 0


def test_the_example_of_uniformity_runs(tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "video.h5", [(3, 4)], noise=0.04, half_cycles=1)
    monkeypatch.chdir(tmp_path)
    exec(compile(UNIFORMITY, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.split(",")) == 2


@needs_mpi
def test_the_example_of_ranks_runs(tmp_path):
    particles = [add_noise(make_particle(f"P{i}", length_nm=1000, seed=i), Noise(), seed=i) for i in range(3)]
    write_stack(tmp_path / "maps.h5", particles)
    (tmp_path / "program.py").write_text(RANKS)
    code, out, err = run(2, "program.py", cwd=tmp_path)
    assert code == 0, err
    assert out.count("[[") == 1


def test_the_examples_are_short():
    examples = (EXAMPLE, VOXELS, KINETICS, UNIFORMITY, RANKS)
    assert all(len([line for line in text.splitlines() if line.strip()]) < 10 for text in examples)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_links_lead_somewhere(target):
    if target.startswith("#"):
        headings = re.findall(r"^#+ (.*)$", README, re.M)
        assert target[1:] in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    else:
        assert (ROOT / target).exists()
