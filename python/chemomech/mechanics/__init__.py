"""Elasticity on pixels: meshes, stiffness, equilibrium and compatibility."""
