"""From microscopes to fields: composition, strain, rotation and displacement of a particle."""
