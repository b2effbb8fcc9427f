"""Write tomogram.npy: a platelet of 500 x 60 x 250 nm with forty voids of 8 to 20 nm, voxels of 5 nm along a, b, c."""

from pathlib import Path

import numpy as np

cells, spacing = np.array([100, 12, 50]), 5.0
x, y, z = ((np.arange(n) + 0.5) * spacing for n in cells)
solid = ((x / 250 - 1) ** 2)[:, None, None] + (z / 125 - 1) ** 2 + 0 * y[:, None] < 1
random = np.random.default_rng(7)
for _ in range(40):
    a, b, c = random.uniform(0, 1, 3) * cells * spacing
    solid &= ((x - a) ** 2)[:, None, None] + ((y - b) ** 2)[:, None] + (z - c) ** 2 > random.uniform(8, 20) ** 2
path = Path(__file__).with_name("tomogram.npy")
np.save(path, solid)
print(f"{path}: {solid.shape}, {100 * solid.mean():.0f} % solid")
