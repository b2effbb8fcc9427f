"""Strong and weak scaling of the distributed elastic solution at 1 and 2 ranks, and what the model makes of it beyond.

`python bench/scaling/scaling.py [--quick]`; needs mpi4py and petsc4py. Answers are compared first: the energy on 2
ranks and that of PETSc's assembled CG + GAMG must be that on 1. Ends with one line of JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

BENCH = Path(__file__).parents[1]
sys.path.insert(0, str(BENCH))
from model import Machine, iteration, step  # noqa: E402

from harness import finish  # noqa: E402

#: Of a cluster's network, where two ranks of one machine cannot tell: a message, bytes a second of a rank.
NETWORK = {"latency_s": 3e-6, "bandwidth": 1e9}
ITERATIONS = 10


def measure(ranks: int, what: str, *nodes: int) -> dict:
    launcher = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [launcher, "-n", str(ranks), sys.executable, str(BENCH / "scaling" / "measure.py"), what]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(BENCH)}
    run = subprocess.run(
        [*command, *map(str, nodes)], env=environment, capture_output=True, text=True, check=True, timeout=900
    )
    return json.loads(run.stdout.splitlines()[-1])


def fitted(operator: dict, tiny: dict, messages: dict, coupled: dict) -> Machine:
    """The model's numbers: rates of a body on one rank, the cost of a call of a tiny one, messages of two ranks."""
    nodes = float(np.prod(operator["nodes"]))
    sizes = np.array([float(n) for n in messages["exchange"]])
    seconds = np.array(list(messages["exchange"].values()))
    slope, least = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    elastic = Machine(
        t_double=operator["double"] / nodes,
        t_single=operator["single"] / nodes,
        t_vector=operator["dot"] / nodes,
        t_cells=0.0,
        t_newton=0.0,
        call_s=tiny["single"],
        latency_s=max(least - tiny["single_halo"], 1e-6),
        bandwidth=1 / slope,
    )
    n_coupled = float(np.prod(coupled["nodes"]))
    cells = coupled["elasticity"] - coupled["iterations"] * iteration(elastic, n_coupled, 1).total
    newton = (coupled["seconds"] - coupled["elasticity"]) / coupled["newton"]
    return replace(elastic, t_cells=cells / n_coupled, t_newton=newton / n_coupled)


def plot(machine: Machine, path: Path) -> dict[str, float]:
    """Seconds of a solution against ranks, strong and weak; where the strong curves stop falling."""
    ranks = 2 ** np.arange(15)
    figure, (strong, weak) = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    ends = {}
    for side in (256, 512, 1024, 2048):
        seconds = np.array([ITERATIONS * iteration(machine, side**3, int(p)).total for p in ranks])
        strong.loglog(ranks, seconds, marker=".", label=f"{side}³")
        efficiency = seconds[0] / seconds / ranks
        ends[f"{side}"] = int(ranks[efficiency >= 0.5].max())
    strong.set(xlabel="ranks", ylabel="solution, s", title="one body")
    strong.legend(title="nodes", frameon=False)
    for side in (32, 64, 128):
        parts = [iteration(machine, side**3 * float(p), int(p)) for p in ranks]
        weak.semilogx(ranks, [parts[0].total / part.total for part in parts], marker=".", label=f"{side}³")
    weak.set(xlabel="ranks", ylabel="efficiency", title="as much for every rank", ylim=(0, 1.05))
    weak.legend(title="nodes a rank", frameon=False)
    figure.savefig(path, dpi=150)
    return ends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller bodies; a minute")
    quick = parser.parse_args().quick
    large, body = (97, 65) if quick else (129, 97)
    rates = {n: measure(n, "stream")["GB_per_s"] for n in (1, 2)}
    operators = {
        (1, "strong"): measure(1, "operator", large, large, large),
        (2, "strong"): measure(2, "operator", large, large, large),
        (2, "weak"): measure(2, "operator", 2 * large - 1, large, large),
    }
    solutions = {
        (1, "strong"): measure(1, "solve", body, body, body),
        (2, "strong"): measure(2, "solve", body, body, body),
        (2, "weak"): measure(2, "solve", 2 * body - 1, body, body),
    }
    steps = {
        (1, "strong"): measure(1, "step", 65, 65, 65),
        (2, "strong"): measure(2, "step", 65, 65, 65),
        (2, "weak"): measure(2, "step", 129, 65, 65),
    }
    gamg = measure(2, "gamg", 65, 65, 65)
    ours = measure(2, "solve", 65, 65, 65)
    machine = fitted(
        operators[1, "strong"], measure(1, "operator", 9, 9, 9), measure(2, "messages"), steps[1, "strong"]
    )
    one, two = solutions[1, "strong"], solutions[2, "strong"]
    pairs = [(one, two, 1e-9), (ours, gamg, 1e-6), (steps[1, "strong"], steps[2, "strong"], 1e-6)]
    for first, second, tolerance in pairs:
        if abs(second["energy"] / first["energy"] - 1) > tolerance:
            print(f"energies differ: {first}, {second}", file=sys.stderr)
            return 1

    results = {"stream_GB_per_s": [rates[1], rates[2]], "stream_speedup": rates[2] / rates[1]}
    print(f"STREAM triad {rates[1]:.0f} and {rates[2]:.0f} GB/s on 1 and 2 ranks: {rates[2] / rates[1]:.2f} x\n")
    print(f"{'':22}{'nodes':>16}{'1 rank, s':>12}{'2 ranks, s':>12}{'efficiency':>12}{'iterations':>12}")
    for kind in ("strong", "weak"):
        for name in ("double", "single"):
            first, second = operators[1, "strong"], operators[2, kind]
            work = np.prod(second["nodes"]) / np.prod(first["nodes"])
            efficiency = work * first[name] / second[name] / 2
            results[f"operator_{name}_{kind}"] = efficiency
            size = "x".join(map(str, second["nodes"]))
            print(f"operator, {name:7}{kind:>6}{size:>15}{first[name]:12.4f}{second[name]:12.4f}{efficiency:12.2f}")
        for name, figures in (("solution", solutions), ("coupled step", steps)):
            first, second = figures[1, "strong"], figures[2, kind]
            work = np.prod(second["nodes"]) / np.prod(first["nodes"])
            efficiency = work * first["seconds"] / second["seconds"] / 2
            results[f"{name.replace(' ', '_')}_{kind}"] = efficiency
            size = "x".join(map(str, second["nodes"]))
            both = f"{first['iterations']:.3g}, {second['iterations']:.3g}"
            print(
                f"{name:16}{kind:>7}{size:>15}{first['seconds']:12.3f}{second['seconds']:12.3f}{efficiency:12.2f}"
                f"{both:>12}"
            )
    results["x_petsc_gamg_2_ranks"] = gamg["seconds"] / ours["seconds"]
    print(
        f"\n65^3 nodes to 1e-8 on 2 ranks: {ours['seconds']:.2f} s in {ours['iterations']} iterations, PETSc CG + GAMG "
        f"{gamg['seconds']:.2f} s in {gamg['iterations']}: {results['x_petsc_gamg_2_ranks']:.0f} x"
    )
    nodes = float(body**3)
    for n, measured in ((1, one), (2, two)):
        predicted, found = (
            measured["iterations"] * iteration(machine, nodes, n).total,
            measured["seconds"] - measured["setup"],
        )
        results[f"model_over_measured_{n}"] = predicted / found
        print(f"model on {n} ranks: {predicted:.2f} s for {found:.2f} s measured, loads and strains of cells included")
    counts = {key: steps[1, "strong"][key] for key in ("iterations", "newton")}
    for n in (1, 2):
        coupled = steps[n, "strong"]
        predicted = step(machine, 65.0**3 / n, 65.0, n, **counts).total
        results[f"step_model_over_measured_{n}"] = predicted / coupled["seconds"]
        print(f"a coupled step on {n} ranks: {predicted:.2f} s by the model, {coupled['seconds']:.2f} s measured")
    cluster = Machine(**{**vars(machine), **NETWORK})
    results["half_efficient_ranks"] = plot(cluster, Path(__file__).with_name("scaling.png"))
    print(f"model: {machine}\nstrong scaling is half efficient up to {results['half_efficient_ranks']} ranks")
    for ranks in (100, 1000, 10_000):
        parts = iteration(cluster, 64.0**3 * ranks, ranks)
        shares = ", ".join(f"{key} {value * 1e3:.2f}" for key, value in vars(parts).items())
        print(f"an iteration with 64^3 nodes a rank on {ranks} ranks: {parts.total * 1e3:.1f} ms ({shares})")
        parts = step(cluster, 64.0**3, 64.0, ranks, **counts)
        results[f"step_s_on_{ranks}_ranks"] = parts.total
        shares = ", ".join(f"{key} {value:.3f}" for key, value in vars(parts).items())
        print(f"a coupled step with 64^3 nodes a rank on {ranks} ranks: {parts.total:.2f} s ({shares})")
    finish("scaling", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
